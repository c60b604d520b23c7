"""The key a proxy signs with: another one is taken up once its public half is believed here."""

from __future__ import annotations

import base64
import logging
import shutil
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.model.health import Reason
from p2pdist.model.ids import MapId, digest_of
from p2pdist.model.statements import RetiredKey, Revocation, key_id
from p2pdist.process.identity import read_signer
from p2pdist.process.keys import KeyFiles, make_keys
from p2pdist.process.proxy_key_holder import proxy_key_holder
from p2pdist.process.signing_key_holder import (
    SigningKeyHolder,
    signing_key_conditions,
    signing_key_holder,
    signing_key_samples,
    signing_key_status,
)
from p2pdist.settings import Cluster, Proxy, Settings

SAID = Revocation(digest_of(b"a blob"), MapId(bytes(16)), 1)


class Host:
    """A proxy with the first of two keys, which it alone believes."""

    def __init__(self, directory: Path) -> None:
        self.first, self.second = make_keys(directory / "first"), make_keys(directory / "second")
        self.key_file, self.keys_file = directory / "a.key", directory / "a.pub"
        self.put(self.first)
        self.believe(self.first)
        proxy = Proxy(key_file=self.key_file)
        settings = Settings(Cluster(None, proxy_keys_file=self.keys_file), proxy=proxy)
        self.believed = proxy_key_holder(settings)
        self.holder = signing_key_holder(settings, self.believed)

    def put(self, keys: KeyFiles) -> None:
        fresh = self.key_file.with_suffix(".fresh")
        shutil.copy2(keys.key_file, fresh)
        fresh.replace(self.key_file)

    def believe(self, *keys: KeyFiles) -> None:
        fresh = self.keys_file.with_suffix(".fresh")
        fresh.write_text("".join(f"{each.public_key}\n" for each in keys))
        fresh.replace(self.keys_file)

    async def look(self) -> None:
        for _ in range(3):
            await self.believed.look()
            await self.holder.look()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def id_of(keys: KeyFiles) -> str:
    return key_id(base64.b64decode(keys.public_key)).hex()


def signs_with(holder: SigningKeyHolder, keys: KeyFiles) -> bool:
    return read_signer(keys.key_file).made(holder.signer.sign(SAID))


async def test_another_key_that_is_believed_is_signed_with(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.believe(host.first, host.second)
    await host.look()
    before = host.holder.signer.sign(SAID)
    host.put(host.second)

    with caplog.at_level(logging.INFO):
        await host.look()

    assert signs_with(host.holder, host.second)
    assert caplog.text.count("signing-key.taken") == 1
    assert host.believed.keyring.open(before) == SAID
    assert host.believed.keyring.open(host.holder.signer.sign(SAID)) == SAID
    told = {"id": id_of(host.second), "trouble": ""}
    assert signing_key_status(host.holder) == {"signing_key": told}
    assert [sample.value for sample in signing_key_samples(host.holder)] == [1]


async def test_one_that_nobody_is_told_to_believe_is_said_and_not_used(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.put(host.second)

    await host.look()

    assert signs_with(host.holder, host.first)
    assert caplog.text.count("signing-key.unread") == 1
    said = signing_key_conditions(host.holder)[Reason.SIGNING_KEY_UNREAD]
    assert host.second.public_key in said
    assert id_of(host.first) in said


async def test_it_is_used_as_soon_as_it_is_believed(host: Host) -> None:
    host.put(host.second)
    await host.look()
    host.believe(host.first, host.second)

    await host.look()

    assert signs_with(host.holder, host.second)
    assert not signing_key_conditions(host.holder)


async def test_what_the_old_one_signed_counts_as_long_as_the_file_has_it(host: Host) -> None:
    old = host.holder.signer.sign(SAID)
    host.believe(host.first, host.second)
    await host.look()
    host.put(host.second)
    await host.look()
    host.believe(host.second)

    await host.look()

    with pytest.raises(RetiredKey):
        host.believed.keyring.open(old)


async def test_half_a_key_changes_nothing(host: Host) -> None:
    host.key_file.write_bytes(host.key_file.read_bytes()[:40])
    host.key_file.chmod(0o600)

    await host.look()

    assert signs_with(host.holder, host.first)
    assert "no private key" in signing_key_conditions(host.holder)[Reason.SIGNING_KEY_UNREAD]
    host.put(host.first)
    await host.look()
    assert not signing_key_conditions(host.holder)


def test_a_proxy_does_not_start_without_one(host: Host) -> None:
    with pytest.raises(ConfigError, match="not set"):
        signing_key_holder(Settings(), host.believed)
