"""``versionfs commit -m MESSAGE`` in a branch folder, without what a command line else loads.

To start Python, click and the modules of a command takes three times as long as what the daemon
does. So this imports next to nothing: not even ``re``, ``typing`` or ``json``.

It does the plain case, or nothing. Where arguments, settings or place are not as expected it is
left to the ordinary command, before anything was asked of the daemon. What is written, and what is
committed, is the same; what fails is reported by what all commands report with.
"""

from __future__ import annotations

import os
import sys

from versionfs.author import default_author
from versionfs.writeback import write_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping, Sequence
    from typing import Any

_REF = "user.versionfs.ref"
_STORE = "user.versionfs.store"
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

    ``words`` are the arguments behind ``commit``. None: it is not the plain case; nothing was done.
    """
    given = _arguments(words)
    if given is None or sys.stdout is None or sys.stderr is None or not _is_plain(environ):
        return None
    author = given.get("author") or default_author(environ)
    try:
        where = _Place()
        from versionfs import _syscalls  # type: ignore[attr-defined]

        write_back(".", _syscalls.syncfs)
        client = _connected(where.socket)
    except (OSError, ImportError, LookupError, ValueError, AttributeError, TypeError):
        return None
    except KeyboardInterrupt as error:
        return _in_full(environ, error)
    try:
        answer = _ask(
            client,
            {
                "op": "workspace-commit",
                "message": given["message"],
                "author": author,
                "repository": where.repository,
                "branch": where.branch,
            },
        )
        if answer is None:
            return _without_answer(where, given["message"], author, environ)
        if not answer["ok"]:
            return _refused(where, answer, environ)
        if not answer["owned"]:
            return None
        _write(f"{where.repository}/{where.branch}", answer["result"], environ)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (told as any command does)
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
        folder = environ.get("XDG_CONFIG_HOME") or environ.get("HOME", "") + "/.config"
        folder += "/versionfs"
        if not environ.get("HOME"):
            return False
    return folder.startswith("/") and _is_absent(f"{folder}/config.toml")


def _is_absent(path: str) -> bool:
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


class _Place:
    """The branch folder that holds the current directory, and the only mount there is.

    Raises:
        OSError: it is in none.
        ValueError: likewise, or there are other mounts, which want to know what is new.
        LookupError: the mount's record is not as it should be.
    """

    def __init__(self) -> None:
        self.state = os.fsdecode(os.getxattr(".", _STATE))
        self.store = os.fsdecode(os.getxattr(".", _STORE))
        names = os.fsdecode(os.getxattr(".", _REF)).partition(":")[0]
        self.repository, slash, self.branch = names.partition("/")
        if not slash or not self.branch or "@" in names:
            raise ValueError(names)
        # As fuse.registry has it: a record and a socket for each mount.
        folder = f"{self.state}/mounts"
        (record,) = [name for name in os.listdir(folder) if name.endswith(".json")]
        self.name = record.removesuffix(".json")
        self.socket = f"{folder}/{self.name}.sock"
        with open(f"{folder}/{record}", encoding="ascii") as file:
            told = _decoded(file.read())
        # The folder may be of a mount that is not there any more.
        if told["store"] != self.store or told["read_only"]:
            raise ValueError(record)


def _connected(path: str) -> _socket.socket:
    """Returns a connection to a daemon; see :mod:`versionfs.fuse.control`."""
    import _socket

    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        # A sun_path holds 107 bytes, a home may be deeper.
        client.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
    return client


def _ask(client: _socket.socket, request: dict[str, str]) -> dict[str, Any] | None:
    """Returns the answer of a daemon, for which it waits; None if that ended before."""
    from _json import encode_basestring_ascii as text

    parts = [f"{text(key)}: {text(value)}" for key, value in request.items()]
    line = "{" + ", ".join([*parts, '"metadata": {}']) + "}\n"
    answer = b""
    try:
        client.sendall(line.encode("ascii"))
        while not answer.endswith(b"\n"):
            part = client.recv(_ANSWER_BYTES)
            if not part:
                return None
            answer += part
    except OSError:
        return None
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


def _without_answer(where: _Place, message: str, author: str, environ: Mapping[str, str]) -> int:
    """Commits by whoever has the workspace now, since its daemon has ended."""
    from versionfs.cli import boundary
    from versionfs.cli.session import Session
    from versionfs.cli.targets import Target
    from versionfs.cli.workspaces import commit_target
    from versionfs.repo.spec import Spec

    session = Session(environ)
    session.show_log()
    spec = Spec(where.repository, where.branch, None, b"")
    target = Target(spec, where.store or None, where.state, is_workspace=True)

    def body() -> int:
        commit_target(session, target, message, author, {})
        return 0

    return boundary.run(session, body)


def _refused(where: _Place, answer: dict[str, Any], environ: Mapping[str, str]) -> int:
    """Reports what a daemon answered in place of a result."""
    from pathlib import Path

    from versionfs.fuse.client import failure_in

    log_file = Path(where.state) / "logs" / f"{where.name}.log"
    return _in_full(environ, failure_in(answer, log_file))


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
