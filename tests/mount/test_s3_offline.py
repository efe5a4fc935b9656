"""Mounts whose server dies, hangs, comes back, or never does."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy import Hang, Proxy, Request
from tests.support.s3 import MakeMachine, wait_until
from tests.support.seaweed import S3Server

NEVER = "3600"
BLOB = 6_000_000


@pytest.fixture(autouse=True)
def server_lives_again(s3_server: S3Server) -> Iterator[None]:
    """What one test kills, the next one finds alive."""
    yield
    s3_server.start()


def error_of(path: Path) -> int | None:
    """Returns the errno of a read of a whole file, None if it works."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno
    return None


def reading(path: Path) -> subprocess.Popen[bytes]:
    """Starts to read a file in another process; it may be killed while the kernel waits."""
    script = (
        "import sys\n"
        "try: sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    return subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE)


def test_offline_what_was_read_stays_readable_and_the_rest_is_an_error(
    machines: MakeMachine, s3_server: S3Server
) -> None:
    ada, bob = machines("ada"), machines("bob")
    # Packs of their own: what is near to what was read is fetched with it.
    seen, unseen = os.urandom(BLOB), os.urandom(BLOB)
    ada.bring("set:unseen", blob=unseen)
    ada.bring("set:seen", blob=seen, small=b"small")
    data = bob.mount("--refresh", "0.3", "--timeout", "2")
    main = data / "set/main"
    assert (main / "seen/blob").read_bytes() == seen
    assert (main / "seen/small").read_bytes() == b"small"
    assert os.listdir(main / "unseen") == ["blob"]
    assert os.listdir(data) == ["set"]

    s3_server.kill()
    begun = time.monotonic()
    assert error_of(main / "unseen/blob") == errno.EIO
    # Not a hang: the budget, and one more time-out at most. It is 60 s if nobody says otherwise.
    assert time.monotonic() - begun < 30
    for _ in range(3):
        assert error_of(main / "unseen/blob") == errno.EIO
        assert (main / "seen/blob").read_bytes() == seen
        assert sorted(os.listdir(main)) == ["seen", "unseen"]
        assert sorted(os.listdir(main / "seen")) == ["blob", "small"]
        assert os.listdir(data) == ["set"]
    wait_until(lambda: "; showing what was last seen" in bob.log(data))

    # Commands too show what was seen last, and say so.
    result = bob.run("log", "set", "--timeout", "1")
    assert (result.code, len(result.lines)) == (0, 2), result
    assert "cannot be reached" in result.err
    assert bob.run("cat", "set:seen/blob", "--timeout", "1").raw == seen
    result = bob.run("cat", "set:unseen/blob", "--timeout", "1")
    assert (result.code, result.raw) == (7, b"")
    assert "cannot be reached" in result.err

    s3_server.start()
    ada.bring("set:unseen", blob=unseen, more=b"more")
    wait_until(lambda: error_of(main / "unseen/more") is None)
    assert (main / "unseen/blob").read_bytes() == unseen
    assert (main / "unseen/more").read_bytes() == b"more"
    log = bob.log(data)
    assert log.count("; showing what was last seen") == 1
    assert log.count("can be reached again") == 1


def test_a_store_seen_before_is_mounted_offline(machines: MakeMachine, s3_server: S3Server) -> None:
    ada, bob = machines("ada"), machines("bob")
    ada.bring("set", a=b"one", b=b"two")
    first = bob.mount()
    assert os.listdir(first) == ["set"]
    assert (first / "set/main/a").read_bytes() == b"one"
    bob.umount(first)
    s3_server.kill()
    carol = machines("carol")
    (carol.folder / "data").mkdir()
    result = carol.fails(7, "mount", carol.folder / "data", "--timeout", "1")
    assert "cannot be reached" in result.err

    path = bob.folder / "offline"
    path.mkdir()
    bob._mountpoints.append(path)
    result = bob.run("mount", path, "--timeout", "1", "--refresh", "0.3")
    assert result.code == 0, result
    assert (path / "set/main/a").read_bytes() == b"one"
    assert os.listdir(path) == ["set"]
    s3_server.start()
    ada.bring("set", a=b"three")
    wait_until(lambda: (path / "set/main/a").read_bytes() == b"three")


def test_a_read_goes_on_when_the_server_comes_back(
    machines: MakeMachine, s3_server: S3Server
) -> None:
    ada, bob = machines("ada"), machines("bob")
    blob = os.urandom(40_000_000)
    ada.bring("set", blob=blob)
    data = bob.mount("--timeout", "40")
    with reading(data / "set/main/blob") as reader:
        assert reader.stdout is not None
        begun = reader.stdout.read(1 << 16)
        s3_server.kill()
        time.sleep(1)
        s3_server.start()
        rest, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0, bob.log(data)
        assert begun + rest == blob
    assert bob.transfers(data)["failures"] == 0


def test_a_server_that_hangs_is_not_waited_for_without_end(
    machines: MakeMachine, s3_server: S3Server
) -> None:
    """Connections are accepted, nothing is answered; what is cached is served meanwhile."""
    with Proxy(s3_server.endpoint) as proxy:
        ada, bob = machines("ada"), machines("bob", proxy.endpoint)
        blob = os.urandom(BLOB)
        ada.bring("set:unseen", blob=blob)
        ada.bring("set:seen", small=b"small")
        main = bob.mount("--timeout", "3", "--refresh", NEVER) / "set/main"
        assert (main / "seen/small").read_bytes() == b"small"
        assert os.listdir(main / "unseen") == ["blob"]

        def hang(_request: Request) -> Hang:
            return Hang()

        proxy.plan = hang
        with reading(main / "unseen/blob") as reader:
            while reader.poll() is None:
                assert (main / "seen/small").read_bytes() == b"small"
                assert (main / "unseen/blob").stat().st_size == BLOB
                time.sleep(0.01)
            assert reader.wait() == errno.EIO
        assert (main / "seen/small").read_bytes() == b"small"
        proxy.plan = None
        wait_until(lambda: error_of(main / "unseen/blob") is None)
        assert (main / "unseen/blob").read_bytes() == blob


def test_a_mount_ends_although_its_server_hangs(machines: MakeMachine, s3_server: S3Server) -> None:
    with Proxy(s3_server.endpoint) as proxy:
        ada, bob = machines("ada"), machines("bob", proxy.endpoint)
        ada.bring("set", blob=os.urandom(BLOB))
        data = bob.mount("--timeout", "100")
        assert os.listdir(data / "set/main") == ["blob"]
        proxy.plan = lambda _request: Hang()
        with reading(data / "set/main/blob") as reader:
            wait_until(lambda: proxy.most_at_once > 0)
            bob.ok("umount", data, "--force")
            reader.kill()
        assert not os.listdir(data)
