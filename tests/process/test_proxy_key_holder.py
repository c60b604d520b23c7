"""The proxy keys a daemon believes: another file is taken up, a bad one is said and left."""

from __future__ import annotations

import base64
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.model.health import Reason
from p2pdist.model.statements import Signer, key_id
from p2pdist.process.proxy_key_holder import (
    ProxyKeyHolder,
    proxy_key_conditions,
    proxy_key_holder,
    proxy_key_samples,
    proxy_key_status,
)
from p2pdist.settings import Cluster, Settings

OLD, NEW, FIXED = (Signer.generate().public_key_bytes for _ in range(3))


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def put(path: Path, *keys: bytes, mode: int = 0o644) -> None:
    fresh = path.with_suffix(".fresh")
    fresh.write_text("# of the proxies\n" + "".join(f"{text(key)}\n" for key in keys))
    fresh.chmod(mode)
    fresh.replace(path)


def gone(path: Path) -> None:
    path.unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "proxy.pub"
    put(path, OLD)
    return path


def held(path: Path) -> ProxyKeyHolder:
    return proxy_key_holder(Settings(Cluster(None, (text(FIXED),), proxy_keys_file=path)))


async def looked(holder: ProxyKeyHolder) -> None:
    for _ in range(3):
        await holder.look()


def knows(holder: ProxyKeyHolder, key: bytes) -> bool:
    return holder.keyring.knows(key_id(key))


async def test_the_keyring_follows_the_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    holder = held(path)
    assert [knows(holder, key) for key in (FIXED, OLD, NEW)] == [True, True, False]

    put(path, NEW)
    with caplog.at_level(logging.INFO):
        await looked(holder)

    assert [knows(holder, key) for key in (FIXED, OLD, NEW)] == [True, False, True]
    assert caplog.text.count("proxy-keys.taken") == 1
    ids = sorted(key_id(key).hex() for key in (FIXED, NEW))
    assert proxy_key_status(holder) == {"proxy_keys": {"ids": ids, "trouble": ""}}
    values = {sample.name: sample.value for sample in proxy_key_samples(holder)}
    assert values == {"p2pdist_proxy_keys": 2, "p2pdist_proxy_keys_taken_total": 1}


async def test_the_same_keys_in_another_order_are_no_news(path: Path) -> None:
    put(path, OLD, NEW)
    holder = held(path)
    put(path, NEW, OLD)

    await looked(holder)

    assert holder.taken_total == 0


async def test_the_key_that_this_host_signs_with_stays(path: Path) -> None:
    holder = held(path)
    own = Signer.generate().public_key_bytes
    holder.sign_with(own)
    put(path, NEW)

    await looked(holder)

    assert knows(holder, own)
    assert own not in holder.believed()
    holder.sign_with(NEW)
    assert not knows(holder, own)


@pytest.mark.parametrize("fault", ["empty", "open", "gone", "half"])
async def test_one_that_is_no_good_is_said_and_the_old_one_stays(
    path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    holder = held(path)
    match fault:
        case "empty":
            put(path)
        case "open":
            put(path, NEW, mode=0o666)
        case "gone":
            gone(path)
        case "half":
            put(path, NEW[:20])

    await looked(holder)

    assert knows(holder, OLD)
    assert not knows(holder, NEW)
    assert caplog.text.count("proxy-keys.unread") == 1
    said = proxy_key_conditions(holder)[Reason.PROXY_KEYS_UNREAD]
    assert "cluster.proxy_keys_file" in said
    put(path, OLD)
    await looked(holder)
    assert not proxy_key_conditions(holder)


async def test_keys_of_the_settings_alone_need_no_look(path: Path) -> None:
    settings = Settings(Cluster(None, (text(OLD),)))

    holder = proxy_key_holder(settings)
    await holder.watch()  # it returns

    assert holder.believed() == (OLD,)


def test_a_daemon_does_not_start_with_a_file_that_is_no_good(path: Path) -> None:
    cluster = Cluster(None, proxy_keys_file=path)
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        proxy_key_holder(replace(Settings(), cluster=cluster))
