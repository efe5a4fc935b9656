"""Changes and results of commits as a daemon tells them, in JSON."""

from __future__ import annotations

import os
from typing import Any

from versionfs.readable import count, human_size
from versionfs.tree import Change
from versionfs.types import NO_STAMP, Entry, Kind, short
from versionfs.workspace import CommitResult, encode_base


def encode_change(change: Change) -> dict[str, Any]:
    """Returns a change as JSON: path, and each side or null.

    A side is kind, mode, size, files, mtime in ns, uid, gid, content id, target, and attributes.
    """
    return {
        "path": os.fsdecode(change.path),
        "old": None if change.old is None else _encode(change.old),
        "new": None if change.new is None else _encode(change.new),
    }


def decode_change(value: dict[str, Any]) -> Change:
    """Returns the change that was encoded; its entries say nothing of where content is stored."""
    path = os.fsencode(value["path"])
    name = path.rpartition(b"/")[2]
    old, new = value["old"], value["new"]
    return Change(
        path,
        None if old is None else _decode(name, old),
        None if new is None else _decode(name, new),
    )


def encode_result(result: CommitResult) -> dict[str, Any]:
    """Returns what a commit did as JSON; commits by their ids, ``summary`` for people."""
    return {
        "commit": None if result.commit is None else result.commit.id.hex(),
        "head": result.head.id.hex(),
        "ref": encode_base((result.commit or result.head).ref).hex(),
        "merged": result.merged,
        "files": result.files,
        "new_bytes": result.new_bytes,
        "stored_bytes": result.stored_bytes,
        "read_bytes": result.read_bytes,
        "seconds": result.seconds,
        "skipped": [[os.fsdecode(path), what] for path, what in result.skipped],
        "summary": _summary(result),
    }


def _summary(result: CommitResult) -> str | None:
    """Returns a line on a commit, to stand behind the name of its branch; None if there is none."""
    if result.commit is None:
        return None
    files = result.files
    what = count(files, "changed file") if files else "names and attributes only"
    new, stored = human_size(result.new_bytes), human_size(result.stored_bytes)
    joined = ", on top of what others committed" if result.merged else ""
    return (
        f"{short(result.commit.id)}: {what}, {new} new, {stored} stored{joined}"
        f" ({result.seconds:.1f} s)"
    )


def _encode(entry: Entry) -> list[Any]:
    return [
        int(entry.kind),
        entry.mode,
        entry.size,
        entry.files,
        entry.mtime_ns,
        entry.uid,
        entry.gid,
        entry.content.hex(),
        os.fsdecode(entry.target),
        [[os.fsdecode(name), value.hex()] for name, value in entry.xattrs],
    ]


def _decode(name: bytes, value: list[Any]) -> Entry:
    kind, mode, size, files, mtime_ns, uid, gid, content, target, xattrs = value
    return Entry(
        name,
        Kind(kind),
        mode,
        size,
        files,
        bytes.fromhex(content),
        os.fsencode(target),
        tuple((os.fsencode(key), bytes.fromhex(data)) for key, data in xattrs),
        mtime_ns,
        uid,
        gid,
        NO_STAMP,
        None,
    )
