"""Where chunks lie: chunk id → location, for deduplication. A cache of the packs' own indexes.

A row is 24 bytes: pack number u32, block offset u32, stored length u32, offset in block u32,
length u32, CRC-32 of id, pack id and row u32. LMDB pages have no checksum, and a wrong location
here would end up in a tree; a row that does not match its CRC counts as absent. As the pack's id is
in it, so does a row whose number has come to mean another pack.

Pack numbers keep rows small. A number whose pack is gone from the store is removed, which makes
every row that uses it count as absent; numbers are never used again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Final

import lmdb

from versionfs.index.environment import Environment
from versionfs.types import ID_BYTES, Location, PackId

_ROW: Final = struct.Struct("<IIIIII")
_BODY: Final = struct.Struct("<IIIII")
_NUMBER: Final = struct.Struct(">I")
_PACK: Final = struct.Struct("<QB")
_BATCH_ROWS: Final = 10_000


def encode_row(key: bytes, number: int, location: Location) -> bytes:
    """Returns the row of an object that lies in the pack of that number."""
    pack, *where = location
    body = _BODY.pack(number, *where)
    return body + _check(key, pack, body).to_bytes(4, "little")


def _check(key: bytes | memoryview, pack: bytes, body: bytes | memoryview) -> int:
    return zlib.crc32(b"".join((key, pack, body)))


def _size(about: bytes | memoryview) -> int:
    """Returns the size in bytes of a known pack."""
    return int.from_bytes(about[_NUMBER.size : _NUMBER.size + 8], "little")


class ChunkIndex:
    """Chunk locations and the set of known packs. Thread-safe."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._packs: dict[int, PackId] = {}
        self._own: tuple[int, frozenset[str]] = environment.generation, frozenset()
        """Names of segments that are not written down, and the index that has their rows."""
        self._generation = environment.generation
        self._kept_folders = b"", b""

    @property
    def generation(self) -> int:
        """Grows when the index was made anew, or may have been."""
        return self._environment.generation

    def _pack(self, transaction: lmdb.Transaction, number: int) -> PackId | None:
        if self._generation != self._environment.generation:
            self._packs.clear()
            self._generation = self._environment.generation
        pack = self._packs.get(number)
        if pack is None:
            value = transaction.get(
                _NUMBER.pack(number), db=self._environment.database(b"pack-numbers")
            )
            if value is None or len(value) != ID_BYTES:
                return None
            pack = self._packs[number] = PackId(bytes(value))
        return pack

    def decode(
        self, transaction: lmdb.Transaction, key: bytes | memoryview, row: bytes | memoryview
    ) -> Location | None:
        """Returns the location in a row, or None when the row is damaged or its pack is gone."""
        if len(row) != _ROW.size:
            return None
        number, block_offset, stored_length, offset, length, check = _ROW.unpack(row)
        pack = self._pack(transaction, number)
        if pack is None or check != _check(key, pack, row[:20]):
            return None
        return Location(pack, block_offset, stored_length, offset, length)

    def locate(self, chunks: Sequence[bytes], database: bytes = b"chunks") -> list[Location | None]:
        """Returns where each chunk lies, or None for those that are not known."""

        def work(transaction: lmdb.Transaction) -> list[Location | None]:
            # Another process may have found a pack lost since the last call.
            self._packs.clear()
            rows = self._environment.database(database)
            get = transaction.get
            return [
                None if (row := get(key, db=rows)) is None else self.decode(transaction, key, row)
                for key in chunks
            ]

        return self._environment.read(work, len(chunks))

    def known_packs(self, first_bytes: Sequence[int] | None = None) -> dict[bytes, int]:
        """Returns the packs whose objects the index lists, with their sizes in bytes.

        ``first_bytes`` says which: those whose ids begin with one of these; None for all.
        """

        def work(transaction: lmdb.Transaction) -> dict[bytes, int]:
            cursor = transaction.cursor(self._environment.database(b"packs"))
            if first_bytes is None:
                return {bytes(pack): _size(value) for pack, value in cursor}
            found = {}
            for first in first_bytes:
                there = cursor.set_range(bytes([first]))
                while there and cursor.key()[0] == first:
                    found[bytes(cursor.key())] = _size(cursor.value())
                    there = cursor.next()
            return found

        return self._environment.read(work)

    def size_of(self, pack: bytes) -> int | None:
        """Returns the size in bytes of a known pack; None of another one."""

        def work(transaction: lmdb.Transaction) -> int | None:
            value = transaction.get(pack, db=self._environment.database(b"packs"))
            return None if value is None else _size(value)

        return self._environment.read(work)

    def add_pack(
        self,
        pack: PackId,
        chunks: Iterable[tuple[bytes, Location]],
        nodes: Iterable[tuple[bytes, Location]] = (),
        *,
        size_bytes: int,
        is_metadata: bool = False,
    ) -> None:
        """Adds a pack with what it holds; idempotent.

        The pack counts as known only when all rows are there: a crash before makes the next
        :func:`sync_index` do it again. Rows go in by the ten thousand, because what a transaction
        has changed stays in memory until it ends.

        Args:
            pack: the pack, which must be durable in the store already.
            chunks: chunk id and location.
            nodes: ``id + stamp`` and location of metadata objects.
            size_bytes: the size of the pack; one of another size in the store is damaged.
            is_metadata: whether the pack holds metadata, whatever of it is listed.
        """
        rows = sorted(
            [(b"chunks", key, where) for key, where in chunks]
            + [(b"places", key, where) for key, where in nodes]
        )
        # In key order, so that each batch changes pages of its own.
        batches = [rows[at : at + _BATCH_ROWS] for at in range(0, len(rows), _BATCH_ROWS)] or [[]]
        number = 0
        about = _PACK.pack(size_bytes, is_metadata)

        def put(transaction: lmdb.Transaction, batch: list[tuple[bytes, bytes, Location]]) -> None:
            for name, group in groupby(batch, key=itemgetter(0)):
                cursor = transaction.cursor(self._environment.database(name))
                cursor.putmulti([(key, encode_row(key, number, where)) for _, key, where in group])

        waited = self._own

        def first(transaction: lmdb.Transaction) -> None:
            nonlocal number
            number = self._number(transaction, pack)
            self._put_own(transaction, waited)
            put(transaction, batches[0])
            if len(batches) == 1:
                self._set_number(transaction, pack, number, about)

        def last(transaction: lmdb.Transaction) -> None:
            put(transaction, batches[-1])
            self._set_number(transaction, pack, number, about)

        self._environment.write(first, len(batches[0]))
        if self._own is waited:
            self._own = self.generation, frozenset()
        for batch in batches[1:-1]:
            self._environment.write(partial(put, batch=batch), len(batch))
        if len(batches) > 1:
            self._environment.write(last, len(batches[-1]))

    def _number(self, transaction: lmdb.Transaction, pack: PackId) -> int:
        """Returns the pack's number; a new one, which is never given again, if it has none."""
        known = transaction.get(pack, db=self._environment.database(b"packs"))
        if known is not None:
            return int(_NUMBER.unpack_from(known)[0])
        meta = self._environment.database(b"meta")
        following = transaction.get(b"next-pack", db=meta)
        number = 1 if following is None else int(_NUMBER.unpack(following)[0])
        transaction.put(b"next-pack", _NUMBER.pack(number + 1), db=meta)
        return number

    def _set_number(
        self, transaction: lmdb.Transaction, pack: PackId, number: int, about: bytes
    ) -> None:
        """Makes the rows with this number count: they are all there."""
        key = _NUMBER.pack(number)
        transaction.put(pack, key + about, db=self._environment.database(b"packs"))
        transaction.put(key, pack, db=self._environment.database(b"pack-numbers"))

    def segments(self) -> set[str]:
        """Returns the names of the index segments that were read, or written, here."""

        def work(transaction: lmdb.Transaction) -> set[str]:
            cursor = transaction.cursor(self._environment.database(b"segments"))
            return {bytes(name).decode() for name in cursor.iternext(values=False)}

        return self._environment.read(work) | self._own_segments()

    def add_segment(self, name: str) -> None:
        """Remembers that the rows of an index segment are here, as far as they are of use."""
        self._environment.write(lambda transaction: self._put_segments(transaction, [name]))

    def add_own_segment(self, name: str) -> None:
        """Remembers a segment that was written here. It is written down with the next pack.

        Should that be lost, the segment is read in vain once: not worth a wait for the disk.
        """
        self._own = self.generation, self._own_segments() | {name}

    def _own_segments(self) -> frozenset[str]:
        """Returns the names that wait; none that waited for an index that was made anew since."""
        generation, names = self._own
        return names if generation == self.generation else frozenset()

    def flush(self) -> None:
        """Writes down what waits for the next pack.

        Raises:
            IndexDamagedError: the index was damaged and is now empty.
            StorageTransientError: its disk is full.
        """
        waited = self._own
        self._own = self.generation, frozenset()
        if waited[1]:
            self._environment.write(lambda transaction: self._put_own(transaction, waited))

    def _put_own(self, transaction: lmdb.Transaction, waited: tuple[int, frozenset[str]]) -> None:
        """Writes down names that waited, unless the index was made anew meanwhile."""
        generation, names = waited
        if generation == self.generation:
            self._put_segments(transaction, names)

    def _put_segments(self, transaction: lmdb.Transaction, names: Iterable[str]) -> None:
        segments = self._environment.database(b"segments")
        for name in names:
            transaction.put(name.encode(), b"", db=segments)

    def totals(self) -> tuple[int, int, set[bytes]]:
        """Returns the number of chunks, their bytes of plaintext, and the packs with metadata."""

        def work(transaction: lmdb.Transaction) -> tuple[int, int, set[bytes]]:
            chunks = size = 0
            for key, row in transaction.cursor(self._environment.database(b"chunks")):
                where = self.decode(transaction, key, row)
                if where is not None:
                    chunks += 1
                    size += where.length
            numbers = set()
            for _, row in transaction.cursor(self._environment.database(b"places")):
                numbers.add(int.from_bytes(row[:4], "little"))
            packs = {self._pack(transaction, number) for number in numbers}
            metadata = {bytes(pack) for pack in packs if pack is not None}
            for pack, value in transaction.cursor(self._environment.database(b"packs")):
                if any(value[_NUMBER.size + 8 :]):
                    metadata.add(bytes(pack))
            return chunks, size, metadata

        return self._environment.read(work)

    def forget_packs(self, packs: Iterable[bytes]) -> None:
        """Removes packs that are gone from the store; their rows count as absent from now on.

        So does all metadata, which may name them: what is written again must name what is there.
        What is remembered of sources goes too: their trees may refer to those packs, and an import
        that reads only what changed would do so again.
        """
        gone = {bytes(pack) for pack in packs}

        def work(transaction: lmdb.Transaction) -> None:
            transaction.drop(self._environment.database(b"sources"), delete=False)
            transaction.drop(self._environment.database(b"places"), delete=False)
            self._put_lost(transaction, self._lost(transaction) | gone)
            for pack in gone:
                number = transaction.get(pack, db=self._environment.database(b"packs"))
                if number is not None:
                    key = bytes(number[: _NUMBER.size])
                    transaction.delete(pack, db=self._environment.database(b"packs"))
                    transaction.delete(key, db=self._environment.database(b"pack-numbers"))

        self._environment.write(work)
        self._packs.clear()

    def lost_packs(self) -> set[bytes]:
        """Returns the packs that were forgotten and have not come back."""
        return self._environment.read(self._lost)

    def add_lost(self, packs: Iterable[bytes]) -> None:
        """Adds to the lost packs; metadata stays, as it was dropped when the first was lost."""
        more = {bytes(pack) for pack in packs}
        self._environment.write(
            lambda transaction: self._put_lost(transaction, self._lost(transaction) | more)
        )

    def found_packs(self, packs: Iterable[bytes]) -> None:
        """Notes that lost packs are back in the store."""
        back = {bytes(pack) for pack in packs}
        self._environment.write(
            lambda transaction: self._put_lost(transaction, self._lost(transaction) - back)
        )

    def folders(self) -> tuple[bytes, bytes]:
        """Returns what :meth:`put_folders` put, empty if nothing; and what was kept since, if so.

        What is kept counts only on top of what was written down when it was: who writes, in any
        process, or makes the index anew, knows better.
        """

        def work(transaction: lmdb.Transaction) -> bytes:
            return bytes(transaction.get(b"folders", db=self._environment.database(b"meta")) or b"")

        written = self._environment.read(work)
        since, kept = self._kept_folders
        return written, kept if written and written == since else written

    def keep_folders(self, written: bytes, value: bytes) -> None:
        """Remembers how folders are now in this process only: to write waits for the disk."""
        self._kept_folders = written, value

    def put_folders(self, value: bytes) -> None:
        """Remembers how the folders of packs were, whose packs are all here."""
        self._environment.write(
            lambda transaction: transaction.put(
                b"folders", value, db=self._environment.database(b"meta")
            )
        )

    def _lost(self, transaction: lmdb.Transaction) -> set[bytes]:
        value = bytes(transaction.get(b"lost-packs", db=self._environment.database(b"meta")) or b"")
        return {value[at : at + ID_BYTES] for at in range(0, len(value), ID_BYTES)}

    def _put_lost(self, transaction: lmdb.Transaction, packs: set[bytes]) -> None:
        meta = self._environment.database(b"meta")
        if packs:
            transaction.put(b"lost-packs", b"".join(sorted(packs)), db=meta)
        else:
            transaction.delete(b"lost-packs", db=meta)
