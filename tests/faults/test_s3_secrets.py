"""Credentials: in no output, log, file, object, or list of processes, whatever fails."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.proxy import Answer, Proxy
from tests.support.s3 import Machine, MakeMachine, objects_below
from tests.support.seaweed import ACCESS_KEY, SECRET_KEY, S3Server
from versionfs.errors import VersionFSError
from versionfs.objectstore import open_object_store

WRONG = "a-wrong-secret-nobody-may-see"
TOKEN = "a-session-token-nobody-may-see"
PASSWORD = "a-password-in-a-url"
SECRETS = (SECRET_KEY, WRONG, TOKEN, PASSWORD)
# What a signed request or a presigned URL holds.
SIGNED = ("X-Amz-Signature", "X-Amz-Credential", "Signature=", "Authorization")


def assert_clean(text: str | bytes, where: str) -> None:
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    for secret in (*SECRETS, *SIGNED):
        assert secret not in text, f"{secret} in {where}"


def assert_files_clean(folder: Path) -> None:
    """Looks into every file below a folder, and at its name."""
    for path in folder.rglob("*"):
        assert_clean(str(path), "a name")
        with contextlib.suppress(FileNotFoundError):  # the daemon may be at work
            if stat.S_ISREG(path.lstat().st_mode):
                assert_clean(path.read_bytes(), str(path))


def command_lines() -> Iterator[tuple[str, bytes]]:
    """Yields those of our own processes: any other may say words that a request has too."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            words = line.split(b"\0")
            if any(w.startswith(b"versionfs.") or w.endswith(b"/versionfs") for w in words):
                yield str(path), line


def run(machine: Machine, *words: str | os.PathLike[str], **env: str) -> int:
    """Runs a command, in vain or not; nothing it writes tells a secret."""
    result = machine.run_quietly(*words, VERSIONFS_DEBUG="1", **env)  # with the traceback
    assert_clean(result.out + result.err, f"output of {words}")
    return result.code


@pytest.fixture
def bad() -> dict[str, dict[str, str]]:
    """Environments in which nothing works."""
    return {
        "a wrong secret": {"AWS_SECRET_ACCESS_KEY": WRONG},
        "an unknown key": {"AWS_ACCESS_KEY_ID": "unknown", "AWS_SECRET_ACCESS_KEY": WRONG},
        "a wrong token": {"AWS_SESSION_TOKEN": TOKEN, "AWS_SECRET_ACCESS_KEY": WRONG},
        "nobody there": {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"},
        "no such host": {"AWS_ENDPOINT_URL_S3": "http://no-such-host.invalid"},
        "a password in the endpoint": {"AWS_ENDPOINT_URL_S3": f"http://ada:{PASSWORD}@127.0.0.1:9"},
        "our own endpoint": {"VERSIONFS_S3_ENDPOINT": f"http://ada:{PASSWORD}@127.0.0.1:9"},
        "not a URL": {"VERSIONFS_S3_ENDPOINT": f"ada:{PASSWORD}@"},
        "a password in the store": {"VERSIONFS_STORE": f"s3://ada:{PASSWORD}@bucket/x"},
        "a key in the store": {"VERSIONFS_STORE": f"s3://bucket/x?secret={PASSWORD}"},
        "no such bucket": {"VERSIONFS_STORE": "s3://no-such-bucket-here/x"},
        "no credentials": {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
    }


def test_no_error_tells_a_secret(
    machines: MakeMachine, s3_server: S3Server, bad: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    ada = machines("ada")
    ada.bring("set", a=b"one")
    source = ada.folder / "source"
    codes = {}
    for name, env in bad.items():
        env = {"VERSIONFS_TIMEOUT": "0.3", **env}
        codes[name] = {run(ada, "import", source, "set", **env), run(ada, "init", **env)}
    run(ada, "clone", ada.store, tmp_path / "copy", **bad["a wrong secret"])
    run(ada, "clone", bad["a password in the store"]["VERSIONFS_STORE"], tmp_path / "copy")
    assert codes["a wrong secret"] == {7}
    assert codes["a password in the endpoint"] == {2}
    assert codes["a password in the store"] >= {2}
    assert all(70 not in found and 71 not in found for found in codes.values()), codes
    assert_files_clean(ada.home)
    for key, data in objects_below(s3_server, ada.store, "").items():
        assert_clean(key, "a key")
        assert_clean(data, key)
        assert ACCESS_KEY.encode() not in data


@pytest.mark.mount
def test_no_mount_tells_a_secret(
    machines: MakeMachine, s3_server: S3Server, bad: dict[str, dict[str, str]]
) -> None:
    with Proxy(s3_server.endpoint) as proxy:
        ada = machines("ada", proxy.endpoint)
        ada.bring("set", a=b"one", b=os.urandom(3_000_000))
        data = ada.mount("--timeout", "0.5", "--refresh", "0.2")
        assert (data / "set/main/a").read_bytes() == b"one"
        found = list(command_lines())
        assert any(b"versionfs.fuse" in line for _, line in found)
        for where, line in found:
            assert_clean(line, where)
        for name in os.listxattr(data / "set/main"):
            assert_clean(os.getxattr(data / "set/main", name), name)
        # What was refused, broken or unreachable is logged by the daemon.
        for answer in (
            Answer(403, "AccessDenied"),
            Answer(403, "SignatureDoesNotMatch"),
            Answer(400, "ExpiredToken"),
            Answer(500),
        ):
            proxy.plan = lambda _request, answer=answer: answer
            with pytest.raises(OSError):  # noqa: PT011
                (data / "set/dev/a").read_bytes()
            run(ada, "fetch", VERSIONFS_TIMEOUT="0.5")
        assert "ERROR" in ada.log(data) or "WARNING" in ada.log(data)
    (ada.folder / "never").mkdir()
    for name in ("a wrong secret", "nobody there", "a password in the endpoint", "not a URL"):
        env = bad[name]
        run(ada, "mount", ada.folder / "never", **{"VERSIONFS_TIMEOUT": "0.3", **env})
        ada.run_quietly("umount", ada.folder / "never")
    assert_files_clean(ada.home)
    for where, line in command_lines():
        assert_clean(line, where)


def test_no_object_of_ours_shows_a_secret(
    machines: MakeMachine, monkeypatch: pytest.MonkeyPatch, bad: dict[str, dict[str, str]]
) -> None:
    ada = machines("ada")
    for env in bad.values():
        environ = {**ada.env, **env}
        for name, value in environ.items():
            if name.startswith(("AWS_", "VERSIONFS_")):
                monkeypatch.setenv(name, value)
        settings = ada.settings._replace(
            store=environ["VERSIONFS_STORE"],
            s3_endpoint=environ.get("VERSIONFS_S3_ENDPOINT"),
            timeout_seconds=0.3,
        )
        try:
            store = open_object_store(settings)
            assert_clean(repr(store) + store.url, "a store")
            store.get("format.json")
        except VersionFSError as error:
            chain: BaseException | None = error
            assert_clean(str(error) + repr(error), "an error")
            # What it was caused by is only shown on demand, and may not tell either.
            while chain is not None:
                assert_clean(str(chain) + repr(chain), "a cause")
                hidden = chain.__suppress_context__
                chain = chain.__cause__ or (None if hidden else chain.__context__)
