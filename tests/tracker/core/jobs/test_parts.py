"""What a host needs of a job, by its platform."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from p2pdist.model.control import PROOF_PART_BYTES_MAX, PROOF_PARTS_MAX, SwarmKey
from p2pdist.model.geometry import geometry_for
from p2pdist.model.jobs import JobSpec
from p2pdist.tracker.core.jobs.parts import Parts, parts_of, parts_of_all
from tests.tracker.core.jobs.fleet import LAYER_BYTES, TAG, blob, image
from tests.tracker.hosts import key

AMD, ARM = "linux/amd64", "linux/arm64"
BOTH = JobSpec([image((AMD, ARM))])


def test_a_host_needs_its_own_platform_with_manifests_and_tag() -> None:
    parts = parts_of(BOTH, ARM)

    assert parts.sizes == {
        TAG: 0,
        key("index"): 0,
        key(f"manifest {ARM}"): 0,
        blob("config", ARM): 1000,
        blob("layer one", ARM): LAYER_BYTES,
        blob("layer two", ARM): LAYER_BYTES,
    }
    assert parts.total_bytes == 2 * LAYER_BYTES + 1000
    (told,) = parts.images
    assert told.manifests == [key("index"), key(f"manifest {ARM}")]
    assert [ref.digest for ref in told.blobs] == [
        blob(name, ARM) for name in ("config", "layer one", "layer two")
    ]


def test_the_platform_of_the_job_stands_above_that_of_the_host() -> None:
    spec = msgspec.structs.replace(BOTH, platform=AMD)

    assert parts_of(spec, ARM).sizes == parts_of(BOTH, AMD).sizes
    assert parts_of_all(spec, [ARM]).sizes.keys() == parts_of(BOTH, AMD).sizes.keys() - {TAG}


@pytest.mark.parametrize("platform", ["windows/amd64", "", "linux"])
def test_a_host_that_an_image_has_nothing_for_is_told(platform: str) -> None:
    with pytest.raises(ValueError, match=r"registry\.test/web:v1 has nothing for"):
        parts_of(BOTH, platform)


def test_an_image_without_an_index_is_for_anybody() -> None:
    assert blob("config", "") in parts_of(JobSpec([image(("",))]), "plan9/mips").sizes


def test_a_proxy_needs_what_its_hosts_do_and_no_tag() -> None:
    def keys(*platforms: str) -> set[SwarmKey]:
        return {key_ for platform in platforms for key_ in parts_of(BOTH, platform).sizes} - {TAG}

    assert parts_of_all(BOTH, [ARM]).sizes.keys() == keys(ARM)
    assert parts_of_all(BOTH, [ARM, AMD, ARM]).sizes.keys() == keys(ARM, AMD)
    assert parts_of_all(BOTH, [ARM, "windows/amd64"]).sizes.keys() == keys(ARM)
    assert parts_of_all(BOTH, []).sizes.keys() == keys(ARM, AMD), "nobody yet: for whoever comes"


def test_half_a_blob_counts_by_its_chunks_and_never_for_more_than_it_is() -> None:
    parts, layer = parts_of(BOTH, AMD), blob("layer one")
    chunk = geometry_for(LAYER_BYTES).chunk_size_bytes

    assert parts.held_bytes(layer, 0, False) == 0
    assert parts.held_bytes(layer, 3, False) == 3 * chunk
    assert parts.held_bytes(layer, 10**6, False) == LAYER_BYTES
    assert parts.held_bytes(layer, 0, True) == LAYER_BYTES


def test_a_proof_asks_for_a_place_within_each_part_but_tags() -> None:
    parts = parts_of(BOTH, AMD)

    challenge = parts.challenge(Random(1))

    assert {part.digest for part in challenge} == parts.sizes.keys() - {TAG}
    for part in challenge:
        assert part.length == PROOF_PART_BYTES_MAX
        assert 0 <= part.offset <= max(0, parts.sizes[SwarmKey(part.digest)] - part.length)
    assert challenge != parts.challenge(Random(2))


def test_a_proof_over_very_many_parts_asks_for_some() -> None:
    sizes = {key(str(number)): 10_000 for number in range(PROOF_PARTS_MAX + 50)}
    many = Parts((), sizes, sum(sizes.values()))

    asked = [part.digest for part in many.challenge(Random(1))]

    assert len(asked) == len(set(asked)) == PROOF_PARTS_MAX
