"""The journal: every batch of a table, appended before it counts.

A file ``journal-<number>`` is a header (magic, the table's identity), then one record per batch:
the length of its body (u32), the CRC-32 of the body (u32), the body: a sequence number (u64), then
for each mutation the lengths of key (u16) and value (u32, ``0xFFFFFFFF``: the key is deleted), key
and value. All little-endian. The CRC-32 starts from that of the identity, so a record of another
table, or a user's bytes that look like one, are none.

Space is allocated ahead, so a length of zero ends a journal as its end does, and a full disk does
not stop what frees space: the last ``RESERVE`` bytes are kept for that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from versionfs.errors import CorruptionError

Mutation = tuple[bytes, bytes | None]
"""A key and the value it gets, or None to delete it."""

IDENTITY_BYTES: Final = 16
RESERVE: Final = 256 * 1024
"""Bytes that only batches which free space may use."""

KEY_BYTES: Final = 511
"""The longest key (LMDB's bound)."""

_MAGIC: Final = b"vfsjrnl1"
_HEADER_BYTES: Final = len(_MAGIC) + IDENTITY_BYTES
_STEP: Final = 1024 * 1024
_HEAD: Final = struct.Struct("<II")
_SEQUENCE: Final = struct.Struct("<Q")
_LENGTHS: Final = struct.Struct("<HI")
_DELETED: Final = 0xFFFFFFFF
_NO_ALLOCATION: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ENODEV})


class Batch(NamedTuple):
    """A record read back."""

    sequence: int
    mutations: list[Mutation]


class Replay(NamedTuple):
    """What a journal holds: its batches, where they end, and whether bytes follow that are none."""

    batches: list[Batch]
    end: int
    torn: bool


class Journal:
    """One journal file, open for appending. The caller serialises all but :meth:`duplicate`."""

    def __init__(self, path: Path, identity: bytes, descriptor: int, end: int) -> None:
        self.path = path
        self.synced_end = 0
        """Bytes known to be on the disk."""
        self._seed = zlib.crc32(identity)
        self._descriptor = descriptor
        self._end = end
        self._allocated: float = end
        self._torn = False

    @classmethod
    def create(cls, path: Path, identity: bytes) -> Journal:
        """Makes a new file, with space for a while; its header is on the disk, not yet its name.

        Raises:
            OSError: it cannot be made, or has no space; no file is left.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        journal = cls(path, identity, descriptor, 0)
        try:
            journal._allocate(0)
            journal._write(_MAGIC + identity)
            os.fsync(descriptor)
        except OSError:
            journal.close()
            path.unlink(missing_ok=True)
            raise
        return journal

    @classmethod
    def resume(cls, path: Path, identity: bytes, end: int, *, torn: bool) -> Journal:
        """Opens a file that was read, to go on after byte ``end``; what is torn there is cut off.

        Raises:
            OSError: it cannot be opened or cut.
        """
        journal = cls(path, identity, os.open(path, os.O_RDWR | os.O_CLOEXEC), end)
        try:
            if torn:
                journal._cut()
                with contextlib.suppress(OSError):  # Perhaps the disk is full; then later.
                    journal._allocate(end)
            else:
                journal._allocated = os.fstat(journal._descriptor).st_size
        except OSError:
            journal.close()
            raise
        return journal

    @property
    def end(self) -> int:
        """The bytes it has."""
        return self._end

    def append(self, sequence: int, mutations: Sequence[Mutation], *, frees: bool) -> None:
        """Appends a batch; when it returns, a kill of this process cannot lose it.

        Raises:
            OSError: nothing was appended: no space, or the disk failed.
            ValueError: a key is empty or too long.
        """
        parts = [_SEQUENCE.pack(sequence)]
        pack = _LENGTHS.pack
        for key, value in mutations:
            if not 0 < len(key) <= KEY_BYTES:
                raise ValueError(f"a key of {len(key)} bytes")
            if value is None:
                parts += (pack(len(key), _DELETED), key)
            else:
                parts += (pack(len(key), len(value)), key, value)
        body = b"".join(parts)
        record = _HEAD.pack(len(body), zlib.crc32(body, self._seed)) + body
        if self._torn or self._end + len(record) + RESERVE > self._allocated:
            self._need(self._end + len(record), frees=frees)
        self._write(record)

    def _need(self, end: int, *, frees: bool) -> None:
        if self._torn:
            self._cut()
        try:
            self._allocate(end)
        except OSError:
            if not frees:
                raise

    def _allocate(self, end: int) -> None:
        """Allocates space beyond ``end`` and the reserve."""
        target = (end + RESERVE) // _STEP * _STEP + _STEP
        try:
            os.posix_fallocate(self._descriptor, 0, target)
        except OSError as error:
            if error.errno not in _NO_ALLOCATION:
                raise
            self._allocated = float("inf")
        else:
            self._allocated = target

    def _write(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):
                rest = data if not done else data[done:]
                done += os.pwrite(self._descriptor, rest, self._end + done)
        except BaseException:
            # Whatever got there must not be taken for a batch, nor hide the ones to come.
            self._torn = True
            with contextlib.suppress(OSError):  # Then it is tried again before the next batch.
                self._cut()
            raise
        self._end += done

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self._end)
        self._allocated = self._end
        self._torn = False

    def trim(self) -> None:
        """Gives back the space allocated ahead, as far as the disk lets it."""
        with contextlib.suppress(OSError):
            self._cut()

    def duplicate(self) -> int:
        """Returns a descriptor of its own, to sync the file in another thread; to be closed."""
        return os.dup(self._descriptor)

    def close(self) -> None:
        """Closes the file; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def replay(path: Path, identity: bytes) -> Replay | None:
    """Reads a journal back, up to its end or the first record that is torn.

    Returns None for a file whose header was never written.

    Raises:
        CorruptionError: it is no journal of this table.
    """
    data = path.read_bytes()
    if data[:_HEADER_BYTES] != _MAGIC + identity:
        if not data.strip(b"\0") or (_MAGIC + identity).startswith(data.rstrip(b"\0")):
            return None
        raise CorruptionError(
            f"{path} is not a journal of this workspace, or is damaged",
            hint="keep the folder; nothing in it was changed",
        )
    seed = zlib.crc32(identity)
    batches: list[Batch] = []
    end = _HEADER_BYTES
    while True:
        batch, after = _record(data, end, seed)
        if batch is None:
            break
        batches.append(batch)
        end = after
    return Replay(batches, end, torn=bool(data[end:].strip(b"\0")))


def _record(data: bytes, start: int, seed: int) -> tuple[Batch | None, int]:
    begin = start + _HEAD.size
    if begin > len(data):
        return None, start
    length, checksum = _HEAD.unpack_from(data, start)
    end = begin + length
    if length < _SEQUENCE.size or end > len(data):
        return None, start
    if zlib.crc32(memoryview(data)[begin:end], seed) != checksum:
        return None, start
    (sequence,) = _SEQUENCE.unpack_from(data, begin)
    mutations: list[Mutation] = []
    position = begin + _SEQUENCE.size
    while position < end:
        key_bytes, value_bytes = _LENGTHS.unpack_from(data, position)
        position += _LENGTHS.size
        key = data[position : position + key_bytes]
        position += key_bytes
        if value_bytes == _DELETED:
            mutations.append((key, None))
        else:
            mutations.append((key, data[position : position + value_bytes]))
            position += value_bytes
    return Batch(sequence, mutations), end
