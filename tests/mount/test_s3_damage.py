"""Bytes that are wrong, on the server or in the disk cache: never shown."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path
from random import Random

import pytest

from tests.support.proxy import Flip, Proxy, Request
from tests.support.s3 import MakeMachine, objects_below, put_object
from tests.support.seaweed import S3Server

_CACHE_HEAD = 128 * 1024
_GRANULE = 64 * 1024


@pytest.mark.parametrize("where", ["data", "metadata"])
def test_a_flipped_byte_on_the_server_is_an_error_that_names_the_pack(
    machines: MakeMachine, s3_server: S3Server, where: str
) -> None:
    ada = machines("ada")
    blob = os.urandom(500_000)
    ada.bring("set", blob=blob, small=b"small")
    packs = objects_below(s3_server, ada.store, "packs/")
    assert len(packs) == 2
    key = (max if where == "data" else min)(packs, key=lambda key: len(packs[key]))
    size = len(packs[key])
    pack = key.rpartition("/")[2]
    # In the midst of the blob; or in each of the nodes, whose blocks come first.
    places = [size // 2] if where == "data" else range(size // 8, size // 2, 8)
    damaged = bytearray(packs[key])
    for at in places:
        damaged[at] ^= 4
    put_object(s3_server, ada.store, key, bytes(damaged))

    bob = machines("bob")  # which has nothing in its cache
    data = bob.mount()
    path = data / ("set/main/blob" if where == "data" else "set/main")
    for _ in range(2):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            path.read_bytes() if where == "data" else os.listdir(path)
        assert caught.value.errno == errno.EIO
    if where == "data":
        assert (data / "set/main/small").read_bytes() == b"small"
        result = bob.run("cat", "set:blob")
        assert blob.startswith(result.raw)
        assert len(result.raw) < len(blob)
    else:
        result = bob.run("ls", "set/main")
        assert result.raw == b""
    assert result.code == 8
    assert pack in result.err
    log = bob.log(data)
    assert f"damaged data in pack {pack}" in log
    assert "Traceback" not in log

    put_object(s3_server, ada.store, key, packs[key])
    assert (data / "set/main/blob").read_bytes() == blob


def test_a_flipped_byte_in_the_cache_is_fetched_again(
    machines: MakeMachine, s3_server: S3Server
) -> None:
    ada, bob = machines("ada"), machines("bob")
    rng = Random(3)
    blob = rng.randbytes(3_000_000)
    ada.bring("set", blob=blob, **{f"s{n}": rng.randbytes(3000) for n in range(100)})
    before = {path.name: path.read_bytes() for path in (ada.folder / "source").iterdir()}
    data = bob.mount(name="first")
    assert (data / "set/main/blob").read_bytes() == blob
    assert all((data / "set/main" / name).read_bytes() == before[name] for name in before)
    bob.umount(data)

    cached = [path for path in (bob.home / "cache/packs").glob("??/*") if path.is_file()]
    assert len(cached) == 2
    for path in cached:
        _flip_everywhere(path, rng)
    data = bob.mount(name="second")
    for name, content in before.items():
        assert (data / "set/main" / name).read_bytes() == content
    log = bob.log(data)
    for path in cached:
        assert f"fetching damaged data again, pack {path.name}" in log
    assert "ERROR" not in log
    transfers = bob.transfers(data)
    assert transfers["damaged"] >= 2
    assert transfers["received_bytes"] >= len(blob)
    # It is mended.
    bob.umount(data)
    data = bob.mount(name="third")
    assert (data / "set/main/blob").read_bytes() == blob
    assert "damaged" not in bob.log(data)


def test_a_flip_on_the_way_is_fetched_again(machines: MakeMachine, s3_server: S3Server) -> None:
    """Some bytes come damaged the first time, whether somebody waits for them or nobody does."""
    ada = machines("ada")
    blob = Random(4).randbytes(30_000_000)
    ada.bring("set", blob=blob, small=b"small")
    sizes = {key: len(data) for key, data in objects_below(s3_server, ada.store, "packs/").items()}
    wrong = {(key, at) for key, size in sizes.items() for at in range(100, size, 3_000_000)}
    with Proxy(s3_server.endpoint) as proxy:
        bob = machines("bob", proxy.endpoint)
        lock = threading.Lock()

        def plan(request: Request) -> Flip | None:
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
            if asked is None:
                return None
            first, last = int(asked[1]), int(asked[2])
            with lock:
                met = {(k, at) for k, at in wrong if k in request.path and first <= at <= last}
                wrong.difference_update(met)
            return Flip(min(at for _, at in met) - first) if met else None

        proxy.plan = plan
        data = bob.mount()
        assert os.listdir(data / "set/main") == ["blob", "small"]
        assert (data / "set/main/small").read_bytes() == b"small"
        assert (data / "set/main/blob").read_bytes() == blob
        assert not wrong
        assert "ERROR" not in bob.log(data)
        assert bob.transfers(data)["damaged"] >= 3


def _flip_everywhere(path: Path, rng: Random) -> None:
    """Flips a bit in each 1,000 bytes that the cache says to hold."""
    content = bytearray(path.read_bytes())
    for at in range(_CACHE_HEAD, len(content), 1000):
        content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
