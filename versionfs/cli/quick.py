"""``versionfs commit -m MESSAGE`` in a branch folder, without what a command line else loads.

To start Python, click and the modules of a command takes three times as long as what the daemon
does. So this imports next to nothing: not even ``re``, ``typing`` or ``json``.

It does the plain case, or nothing. Whatever is not as expected, the arguments, the settings, the
place or the daemon's answer, is left to the ordinary command, which finds the same and says what it
is. What is written, and what is committed, is the same.
"""

from __future__ import annotations

import os
import sys

from versionfs.author import default_author
from versionfs.writeback import write_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_REF = "user.versionfs.ref"
_STATE = "user.versionfs.state"
_OPTIONS = {"-m": "message", "--message": "message", "--author": "author"}
_HOME = "VERSIONFS_HOME"
SAY_MORE = (
    "VERSIONFS_STORE",
    "VERSIONFS_S3_ENDPOINT",
    "VERSIONFS_TIMEOUT",
    "VERSIONFS_CACHE_SIZE",
    "VERSIONFS_DEBUG",
    "VERSIONFS_ACCELERATOR",
    "_VERSIONFS_COMPLETE",
    "_VFS_COMPLETE",
)
"""The environment variables that change what a command does, but for where its files are."""
_ANSWER_BYTES = 65536


def commit(words: Sequence[str], environ: Mapping[str, str]) -> int | None:
    """Commits the branch folder that is the current directory; returns the exit code.

    ``words`` are the arguments behind ``commit``. None: it is not the plain case, or did not work;
    then nothing was written.
    """
    given = _arguments(words)
    if given is None or sys.stdout is None or sys.stderr is None or not _is_plain(environ):
        return None
    try:
        where = _Place()
        from versionfs import _syscalls  # type: ignore[attr-defined]

        write_back(".", _syscalls.syncfs)
        answer = _ask(
            where.socket,
            {
                "op": "workspace-commit",
                "message": given["message"],
                "author": given.get("author") or default_author(environ),
                "repository": where.repository,
                "branch": where.branch,
            },
        )
        if not (answer["ok"] and answer["owned"]):
            return None
        result = answer["result"]
    except (OSError, ImportError, LookupError, ValueError, AttributeError, TypeError):
        return None
    except KeyboardInterrupt as error:
        return _in_full(environ, error)
    try:
        _write(f"{where.repository}/{where.branch}", result, environ)
    except (OSError, ValueError, KeyboardInterrupt) as error:
        return _in_full(environ, error)
    return 0


def _arguments(words: Sequence[str]) -> dict[str, str] | None:
    """Returns message and perhaps author; None if anything else is said, or not plainly."""
    given: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        option, assigned, value = word.partition("=")
        name = _OPTIONS.get(option)
        if name is None or (assigned and not option.startswith("--")):
            return None
        if not assigned:
            value = next(rest, "")
        if not value or value.startswith("-"):
            return None
        given[name] = value
    return given if "message" in given else None


def _is_plain(environ: Mapping[str, str]) -> bool:
    """Whether no setting, and no completion, has a say: only then nothing needs to be read."""
    if any(environ.get(name) for name in SAY_MORE):
        return False
    folder = environ.get(_HOME)
    if not folder:
        folder = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '')}/.config"
        folder += "/versionfs"
    return folder.startswith("/") and not os.path.lexists(f"{folder}/config.toml")


class _Place:
    """The branch folder that holds the current directory, and the only mount there is.

    Raises:
        OSError: it is in none.
        ValueError: likewise, or there are other mounts, which want to know what is new.
    """

    def __init__(self) -> None:
        state = os.fsdecode(os.getxattr(".", _STATE))
        names = os.fsdecode(os.getxattr(".", _REF)).partition(":")[0]
        self.repository, slash, self.branch = names.partition("/")
        if not slash or not self.branch or "@" in names:
            raise ValueError(names)
        # As fuse.registry has it: a record and a socket for each mount.
        folder = f"{state}/mounts"
        (record,) = [name for name in os.listdir(folder) if name.endswith(".json")]
        self.socket = f"{folder}/{record.removesuffix('.json')}.sock"


def _ask(path: str, request: dict[str, str]) -> dict[str, Any]:
    """Asks a daemon, and waits as long as it lives; see :mod:`versionfs.fuse.control`."""
    import _socket
    from _json import encode_basestring_ascii as text

    parts = [f"{text(key)}: {text(value)}" for key, value in request.items()]
    line = "{" + ", ".join([*parts, '"metadata": {}']) + "}\n"
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        # A sun_path holds 107 bytes, a home may be deeper.
        client.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
    client.sendall(line.encode("ascii"))
    answer = b""
    while not answer.endswith(b"\n"):
        part = client.recv(_ANSWER_BYTES)
        if not part:
            raise ValueError("the daemon ended before it answered")
        answer += part
    client.close()
    found: dict[str, Any] = _decoded(answer.decode("ascii"))
    return found


class _Json:
    """What the scanner of ``json`` is told; ``json`` itself loads ``re``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = None


def _decoded(text: str) -> Any:
    from _json import make_scanner

    try:
        return make_scanner(_Json)(text, 0)[0]  # type: ignore[arg-type]
    except StopIteration as error:
        raise ValueError("no JSON") from error


def _write(branch: str, result: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Writes what came of it, as ``workspaces`` does."""
    if result["skipped"]:
        from versionfs.cli.session import Session
        from versionfs.cli.workspaces import note_skipped

        note_skipped(Session(environ), result["skipped"])
    if result["commit"] is None:
        sys.stderr.write(f"versionfs: nothing to commit in {branch}\n")
    else:
        # A daemon that was there before an upgrade has no summary.
        told = result.get("summary") or result["commit"][:12]
        sys.stdout.write(f"{branch} {told}\n")
        sys.stdout.flush()


def _in_full(environ: Mapping[str, str], error: BaseException) -> int:
    """Reports an error as every command does; returns the exit code."""
    from versionfs.cli import boundary
    from versionfs.cli.session import Session

    def body() -> int:
        raise error

    return boundary.run(Session(environ), body)
