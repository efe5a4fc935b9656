"""Reads files of a source in worker threads: bytes, cut points and ids, with their attributes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final, NamedTuple

from versionfs.chunking import ChunkingParameters, Cut, Cutter, chunk_id
from versionfs.syscalls import Read, pread_all, read_unchanged, seen
from versionfs.transfer.attributes import MODE_BITS, Attributes, read_xattrs
from versionfs.types import NO_ID

WHOLE_BYTES: Final = 4 * 1024 * 1024
"""Files up to this size are read in one go, larger ones as a stream of pieces of this size."""

_OPEN_FILES: Final = 16
"""Of a batch that is read by one of several threads."""
_ATTEMPTS: Final = 4
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_GROWN_BYTES: Final = 16 * WHOLE_BYTES
"""A small file that has grown beyond this since it was listed is named as changing."""


class Piece(NamedTuple):
    """A chunk of a file, or a hole (``chunk`` is ``NO_ID``, ``data`` None). Lengths in bytes."""

    length: int
    chunk: bytes
    data: bytes | memoryview | None


class FileRead(NamedTuple):
    """A file's content as pieces, and the state in which it was read (``attributes.seen`` too)."""

    attributes: Attributes
    pieces: list[Piece]
    seen: bytes


class ChangingError(OSError):
    """A file changed each time it was read."""

    def __init__(self, path: bytes) -> None:
        super().__init__(errno.EBUSY, "it changes while it is read", os.fsdecode(path))


def same_content(before: os.stat_result, after: os.stat_result) -> bool:
    """Tells whether nothing says that a file was written between two ``fstat`` calls."""
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


Listed = tuple[bytes, int, bytes]
"""A file's path, its size, and what was seen of it; ``b""`` if that is not known."""

Opened = int | OSError | None
"""A descriptor, or why there is none; None when it is to be opened later."""


def begin_reading(files: list[Listed], parameters: ChunkingParameters) -> list[Read | None]:
    """Reads those of some small files that need nothing else, without the interpreter lock."""
    return read_unchanged(files, parameters.single_bytes)


def finish_reading(
    files: list[Listed],
    parameters: ChunkingParameters,
    found: list[Read | None],
) -> list[FileRead | OSError]:
    """Returns what was read, and reads the others, each as :func:`read_whole`."""
    results: list[FileRead | OSError] = []
    for (path, size, listed), read in zip(files, found, strict=True):
        if read is None:
            results.append(_read_or_error(path, parameters, size, listed))
            continue
        data, mode, mtime_ns, uid, gid = read
        pieces = [Piece(size, chunk_id(data), data)] if data else []
        attributes = Attributes(mode & MODE_BITS, mtime_ns, uid, gid)
        results.append(FileRead(attributes, pieces, listed))
    return results


def read_many(files: list[Listed], parameters: ChunkingParameters) -> list[FileRead | OSError]:
    """Reads small files, each as :func:`read_whole`; holds a few of them open at a time."""
    results: list[FileRead | OSError] = []
    for at in range(0, len(files), _OPEN_FILES):
        some = files[at : at + _OPEN_FILES]
        results += finish_reading(some, parameters, begin_reading(some, parameters))
    return results


def read_opened(
    files: list[Listed], parameters: ChunkingParameters, opened: Sequence[Opened]
) -> list[FileRead | OSError]:
    """Reads small files for which ``open_ahead`` returned ``opened``; closes the descriptors."""
    return [
        _read_or_error(path, parameters, size, listed, file)
        for (path, size, listed), file in zip(files, opened, strict=True)
    ]


def _read_or_error(
    path: bytes,
    parameters: ChunkingParameters,
    size: int,
    listed: bytes,
    opened: Opened = None,
) -> FileRead | OSError:
    try:
        return read_whole(path, parameters, size if listed else -1, listed, opened)
    except OSError as error:
        return error


def read_whole(
    path: bytes,
    parameters: ChunkingParameters,
    size: int = -1,
    listed: bytes = b"",
    opened: Opened = None,
) -> FileRead:
    """Reads a small file; again when it changes meanwhile.

    ``size`` and ``listed`` are what ``lstat`` said of it (``attributes.seen``), if that is known:
    a file that is still so when it has been read did not change. ``opened`` is what ``open_ahead``
    returned for it, if it was asked; the descriptor is closed.

    Raises:
        ChangingError: it changed each time.
        OSError: it cannot be read.
    """
    if isinstance(opened, OSError):
        raise opened
    descriptor = os.open(path, _OPEN) if opened is None else opened
    try:
        if 0 <= size <= parameters.single_bytes:
            data = os.pread(descriptor, size + 1, 0)
            xattrs = read_xattrs(descriptor)
            after = os.fstat(descriptor)
            if len(data) == size and seen(after) == listed:
                pieces = [Piece(size, chunk_id(data), data)] if data else []
                return FileRead(Attributes.of(after, xattrs), pieces, listed)
        before = os.fstat(descriptor)
        for _ in range(_ATTEMPTS):
            if before.st_size > _GROWN_BYTES:
                break
            data = _read_all(descriptor, before.st_size)
            xattrs = read_xattrs(descriptor)
            after = os.fstat(descriptor)
            if len(data) == after.st_size and same_content(before, after):
                pieces = cut_whole(data, parameters)
                return FileRead(Attributes.of(after, xattrs), pieces, seen(after))
            before = after
        raise ChangingError(path)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, size: int) -> bytes:
    """Returns the file's bytes: ``size`` of them, and one more when it has grown."""
    data = os.pread(descriptor, size + 1, 0)
    if len(data) >= size:
        return data
    return data + pread_all(descriptor, size + 1 - len(data), len(data))


def cut_whole(data: bytes, parameters: ChunkingParameters) -> list[Piece]:
    """Returns the pieces of a whole file."""
    if len(data) <= parameters.single_bytes:
        return [Piece(len(data), chunk_id(data), data)] if data else []
    cutter = Cutter(parameters)
    return with_ids([*cutter.feed(data), *cutter.finish()])


def with_ids(cuts: Iterable[Cut]) -> list[Piece]:
    """Returns the pieces that cuts are, with their ids."""
    return [
        Piece(cut.length, NO_ID if cut.data is None else chunk_id(cut.data), cut.data)
        for cut in cuts
    ]


def stream_descriptor(
    descriptor: int, size: int, parameters: ChunkingParameters
) -> Iterator[list[Cut]]:
    """Yields the cuts of a large file, about ``WHOLE_BYTES`` at a time; skips its holes.

    They have no ids yet: another thread can make them meanwhile.
    """
    cutter = Cutter(parameters)
    at = 0
    while at < size:
        try:
            data_at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: there is nothing but a hole up to the end.
            data_at = size if error.errno == errno.ENXIO else at
        data_at = min(data_at, size)
        if data_at > at:
            yield list(cutter.feed_zeros(data_at - at))
            at = data_at
            continue
        try:
            hole_at = min(os.lseek(descriptor, at, os.SEEK_HOLE), size)
        except OSError:
            hole_at = size
        while at < hole_at:
            again = cutter.give_back()
            start, length = at - again, again + min(WHOLE_BYTES, hole_at - at)
            data = pread_all(descriptor, length, start)
            yield list(cutter.feed(data))
            if len(data) <= again:
                break
            at += len(data) - again
        if at < hole_at:
            break  # The file became shorter; whoever compares sizes sees it.
    yield list(cutter.finish())


def stream_file(stream: BinaryIO, parameters: ChunkingParameters) -> Iterator[list[Piece]]:
    """Yields the pieces of a stream that cannot seek."""
    cutter = Cutter(parameters)
    while data := stream.read(WHOLE_BYTES):
        yield with_ids(cutter.feed(data))
    yield with_ids(cutter.finish())


def open_for_reading(path: bytes) -> int:
    """Opens a source file without following a symlink or waiting for a fifo."""
    return os.open(path, _OPEN)
