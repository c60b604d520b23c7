"""Names of blobs that only some may read: what they tell, and what they do not."""

from __future__ import annotations

from p2pdist.model.ids import digest_of, parse_exchanged
from p2pdist.model.private_digests import is_private, scope_of
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.private_names import PrivateNames

NAMES = PrivateNames(bytes(32))
BLOB = digest_of(b"a layer")


def test_a_blob_goes_by_another_name_in_each_repository_and_for_each_key() -> None:
    names = {
        NAMES.digest(ImageName("registry.test", "alice/app"), BLOB),
        NAMES.digest(ImageName("registry.test", "bob/app"), BLOB),
        NAMES.digest(ImageName("other.test", "alice/app"), BLOB),
        NAMES.digest(ImageName("registry.test", "alice/app"), digest_of(b"another")),
        PrivateNames(bytes(31) + b"1").digest(ImageName("registry.test", "alice/app"), BLOB),
    }
    assert len(names) == 5
    for name in names:
        assert parse_exchanged(name) == name
        assert is_private(name)
        assert BLOB.partition(":")[2][:16] not in name
    assert not is_private(BLOB)


def test_it_says_which_repository_it_is_of_to_who_has_the_name_of_that() -> None:
    scope = NAMES.scope(ImageName("registry.test", "alice/app"))

    assert scope_of(NAMES.digest(ImageName("registry.test", "alice/app"), BLOB)) == scope
    assert scope_of(NAMES.digest(ImageName("registry.test", "alice/app"), digest_of(b""))) == scope
    assert scope_of(NAMES.digest(ImageName("registry.test", "bob/app"), BLOB)) != scope


def test_no_two_repositories_run_into_each_other() -> None:
    assert NAMES.scope(ImageName("registry.test", "a/b")) != NAMES.scope(
        ImageName("registry.test/a", "b")
    )
