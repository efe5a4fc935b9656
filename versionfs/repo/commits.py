"""Commits as stored: a metadata object whose parts are JSON.

canonical    {"author", "message", "metadata": {…}, "number", "parents": [id…], "root": {"files",
             "mode", "size", "tree", "xattrs": [[name, value]…]}, "time_ns", "version": 1}
attributes   {"gid", "mtime_ns", "parents": [stamp…], "stamp", "uid"}: of the root folder
locations    the root tree, then the parents

Keys are sorted, without white space, non-ASCII characters as they are (UTF-8). Ids, stamps, and
names and values of extended attributes are in hex.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from versionfs.chunkstore import MetadataObject, MetadataReader, MetadataWriter
from versionfs.errors import CorruptionError, InvalidInputError, UnsupportedFormatError
from versionfs.types import Commit, Entry, Kind, NodeRef, ObjectKind, short

_VERSION: Final = 1
_CACHED: Final = 4096


def _dump(value: Mapping[str, object]) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            "author, message and metadata of a commit must be valid UTF-8"
        ) from error


def write_commit(
    writer: MetadataWriter,
    *,
    root: Entry,
    parents: Sequence[Commit],
    author: str,
    message: str,
    time_ns: int,
    metadata: Mapping[str, str],
) -> NodeRef:
    """Stores a commit and returns its reference, to be resolved after the writer's ``finish``.

    Raises:
        InvalidInputError: a text is not valid Unicode.
    """
    canonical = {
        "author": author,
        "message": message,
        "metadata": dict(metadata),
        "number": parents[0].number + 1 if parents else 1,
        "parents": [parent.id.hex() for parent in parents],
        "root": {
            "files": root.files,
            "mode": root.mode,
            "size": root.size,
            "tree": root.content.hex(),
            "xattrs": [[name.hex(), value.hex()] for name, value in root.xattrs],
        },
        "time_ns": time_ns,
        "version": _VERSION,
    }
    attributes = {
        "gid": root.gid,
        "mtime_ns": root.mtime_ns,
        "parents": [parent.ref.stamp.hex() for parent in parents],
        "stamp": root.stamp.hex(),
        "uid": root.uid,
    }
    locations = [root.location, *(parent.ref.location for parent in parents)]
    return writer.put(ObjectKind.COMMIT, _dump(canonical), _dump(attributes), locations)


def _decode(ref: NodeRef, source: MetadataObject) -> Commit:
    try:
        canonical: Any = json.loads(bytes(source.canonical))
        attributes: Any = json.loads(bytes(source.attributes))
        columns = source.location_columns
        if canonical["version"] > _VERSION:
            raise UnsupportedFormatError(
                f"commit {short(ref.id)} has format version {canonical['version']}, "
                f"this versionfs reads {_VERSION}",
                hint="upgrade versionfs",
            )
        folder = canonical["root"]
        root = Entry(
            name=b"",
            kind=Kind.DIRECTORY,
            mode=folder["mode"],
            size=folder["size"],
            files=folder["files"],
            content=bytes.fromhex(folder["tree"]),
            target=b"",
            xattrs=tuple((bytes.fromhex(n), bytes.fromhex(v)) for n, v in folder["xattrs"]),
            mtime_ns=attributes["mtime_ns"],
            uid=attributes["uid"],
            gid=attributes["gid"],
            stamp=bytes.fromhex(attributes["stamp"]),
            location=columns[0],
        )
        parents = []
        pairs = zip(canonical["parents"], attributes["parents"], strict=True)
        for index, (parent, parent_stamp) in enumerate(pairs, start=1):
            where = columns[index]
            if where is None:
                raise KeyError("parent")
            parents.append(NodeRef(bytes.fromhex(parent), bytes.fromhex(parent_stamp), where))
        return Commit(
            ref=ref,
            root=root,
            parents=tuple(parents),
            author=canonical["author"],
            time_ns=canonical["time_ns"],
            message=canonical["message"],
            number=canonical["number"],
            metadata=canonical["metadata"],
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CorruptionError(
            f"commit {short(ref.id)} is malformed", pack=source.pack.hex()
        ) from error


class CommitReader:
    """Reads commits, keeping the last few thousand. Thread-safe."""

    def __init__(self, objects: MetadataReader) -> None:
        self._objects = objects
        self._commits: OrderedDict[bytes, Commit] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, ref: NodeRef) -> Commit:
        """Returns a commit.

        Raises:
            CorruptionError: it is damaged or gone.
        """
        with self._lock:
            commit = self._commits.get(ref.key)
            if commit is not None:
                self._commits.move_to_end(ref.key)
                return commit
        commit = _decode(ref, self._objects.load(ObjectKind.COMMIT, ref))
        with self._lock:
            self._commits[ref.key] = commit
            if len(self._commits) > _CACHED:
                self._commits.popitem(last=False)
        return commit
