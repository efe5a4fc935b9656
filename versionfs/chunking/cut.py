r"""Cut points: where a file's bytes are divided into chunks and holes.

The rule is a pure function of the bytes (and of the store's parameters), so that the same file has
the same chunks everywhere, however it was stored, read or written:

0. A file shorter than ``whole_bytes`` is one chunk.
1. Of another, every maximal run of zero bytes of at least ``max_bytes`` is a *hole*.
2. What lies between holes (and the ends of the file) is a *data run*. Each is divided by itself:
   one of at most ``min_bytes`` is one chunk; else FastCDC 2020 with
   normalisation level 1 (Xia et al., "The Design of Fast Content-Defined Chunking for Data
   Deduplication Based Storage Systems", IEEE TPDS 2020) finds the cut points.

A run of ``max_bytes`` zeros always covers a whole aligned window of ``max_bytes // 2``, so looking
for zeros costs one comparison per window, which ends at its first byte on ordinary data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from versionfs.errors import UnsupportedFormatError

ALGORITHM: Final = "fastcdc-2020-nc1"
LOOK_AHEAD_BYTES: Final = 2
"""A chunk that so many bytes of its data run follow ends where it does, whatever comes later."""


@dataclass(frozen=True, slots=True)
class ChunkingParameters:
    """Sizes in bytes, fixed in the store's format file when the store is created."""

    min_bytes: int = 64 * 1024
    average_bytes: int = 96 * 1024
    max_bytes: int = 192 * 1024
    whole_bytes: int = 0
    """At most ``max_bytes``: what is shorter has no hole. 0 in stores that do not name it."""

    def __post_init__(self) -> None:
        """Checks that the sizes are ones that the cutter can honour."""
        low, mid, high = self.min_bytes, self.average_bytes, self.max_bytes
        mib = 1024 * 1024
        ordered = 64 <= low <= mid <= high and low < high and 0 <= self.whole_bytes <= high
        if not (ordered and low <= mib and 256 <= mid <= 4 * mib and 1024 <= high <= 16 * mib):
            sizes = f"{low}, {mid}, {high}, {self.whole_bytes}"
            raise UnsupportedFormatError(f"unusable chunk sizes {sizes}")

    @property
    def single_bytes(self) -> int:
        """The length up to which a file is one chunk for sure, however it is read."""
        return max(self.min_bytes, self.whole_bytes - 1)


DEFAULT_CHUNKING: Final = ChunkingParameters(whole_bytes=192 * 1024)
"""What new stores have (docs/design/010)."""


class Cut(NamedTuple):
    """One piece of a file: ``length`` bytes at ``offset``; ``data`` is None for a hole."""

    offset: int
    length: int
    data: memoryview | None


class Cutter:
    """Divides one file's bytes, fed in order in pieces of any size.

    A cut is yielded as soon as no byte that follows can change it: at the latest when ``max_bytes``
    and two more bytes are fed that do not end in zeros. The bytes from any cut on are cut as if the
    file began there, were it long enough; so a cutter may be started at one
    (``tree/recutting.py``).

    ``feed`` and ``finish`` yield cuts in order; ``data`` stays valid for as long as it is referred
    to. Memory is bounded by the largest piece fed plus two times ``max_bytes``. Not thread-safe.
    """

    def __init__(self, parameters: ChunkingParameters, *, is_file: bool = True) -> None:
        """Makes a cutter.

        Args:
            parameters: the sizes.
            is_file: whether all of a file is fed, which may be so short that it is one chunk.
        """
        self._parameters = parameters
        self._whole = parameters.whole_bytes if is_file else 0
        from pyfastcdc import FastCDC  # not needed by who reads, nor for small files

        self._fastcdc = FastCDC(
            parameters.average_bytes,
            min_size=parameters.min_bytes,
            max_size=parameters.max_bytes,
            normalized_chunking=1,
        )
        self._window = parameters.max_bytes // 2
        self._zero_window = bytes(self._window)
        self._tail = b""
        """Bytes of the current data run that are not cut yet; they begin at ``_offset``."""
        self._offset = 0
        self._zeros = 0
        """Zero bytes that follow ``_tail``: a hole in the making, or the run's own zeros."""

    def feed(self, data: bytes | memoryview) -> Iterator[Cut]:
        """Takes the next bytes of the file and yields the cuts that are certain."""
        if not data:
            return
        view = memoryview(data)
        position = 0
        if self._zeros:
            # Inside a run of zeros: see how far it goes on.
            run = _leading_zeros(view)
            self._zeros += run
            position = run
            if run == len(view):
                return
            yield from self._end_zeros()
        buffer = (
            memoryview(b"".join((self._tail, view[position:]))) if self._tail else view[position:]
        )
        self._tail = b""
        yield from self._take(buffer, final=False)

    def feed_zeros(self, length: int) -> Iterator[Cut]:
        """Takes ``length`` zero bytes without their being in memory (a hole of the source)."""
        if self._zeros:
            self._zeros += length
        elif length < self._parameters.max_bytes:
            yield from self.feed(bytes(length))
        else:
            trailing = _trailing_zeros(memoryview(self._tail))
            self._tail = self._tail[: len(self._tail) - trailing]
            self._zeros = trailing + length

    def give_back(self) -> int:
        """Forgets the last bytes that were fed and not cut, which may be none; returns how many.

        They are to be fed again, with what follows them: reading them anew costs less than putting
        them before a large piece.
        """
        if self._zeros:
            return 0
        count = len(self._tail)
        self._tail = b""
        return count

    def finish(self) -> Iterator[Cut]:
        """Ends the file and yields its last cuts."""
        if self._zeros:
            yield from self._end_zeros()
        tail, self._tail = memoryview(self._tail), b""
        if self._offset == 0 < len(tail) < self._whole:
            yield Cut(0, len(tail), tail)
        else:
            yield from self._take(tail, final=True)

    def _end_zeros(self) -> Iterator[Cut]:
        """Ends the run of zeros: a hole when it is long enough, else bytes of the data run."""
        zeros, self._zeros = self._zeros, 0
        if zeros < self._parameters.max_bytes:
            self._tail += bytes(zeros)
            return
        tail, self._tail = memoryview(self._tail), b""
        yield from self._cut(tail, final=True)
        yield Cut(self._offset, zeros, None)
        self._offset += zeros

    def _take(self, buffer: memoryview, *, final: bool) -> Iterator[Cut]:
        """Splits a buffer, which begins where the data run is cut, into data runs and holes."""
        start = 0
        size = len(buffer)
        window = self._window
        position = 0
        while position + window <= size:
            if buffer[position] or buffer[position : position + window] != self._zero_window:
                position += window
                continue
            low = position - _trailing_zeros(buffer[start:position])
            high = position + window
            high += _leading_zeros(buffer[high:])
            if high == size and not final:
                # The run may go on in the next piece: keep what is before it, count the zeros.
                yield from self._cut(buffer[start:low], final=False)
                self._zeros = high - low
                return
            if high - low >= self._parameters.max_bytes:
                yield from self._cut(buffer[start:low], final=True)
                yield Cut(self._offset, high - low, None)
                self._offset += high - low
                start = high
            position = max(high, position + window)
        yield from self._cut(buffer[start:], final=final)

    def _cut(self, run: memoryview, *, final: bool) -> Iterator[Cut]:
        """Cuts a data run; unless ``final``, keeps what a later byte could still change.

        What is cut off for sure: FastCDC looks at the byte behind a chunk, and at none that is the
        odd last one of a run, so two bytes must follow the chunk. Zeros at the end do not count:
        they may belong to a hole, and then the run ends before them.
        """
        if not run:
            return
        size = len(run)
        if self._offset == 0 and size < self._whole and not final:
            self._tail = bytes(run)  # It may be all of the file.
            return
        sure = size if final else size - _trailing_zeros(run) - LOOK_AHEAD_BYTES
        done = 0
        if sure >= self._parameters.min_bytes or final:
            for chunk in self._fastcdc.cut_buf(run):
                length = chunk.length
                if done + length > sure:
                    break
                yield Cut(self._offset, length, run[done : done + length])
                self._offset += length
                done += length
        self._tail = bytes(run[done:])


def _leading_zeros(view: memoryview) -> int:
    """Counts the zero bytes at the start of a view."""
    count = 0
    step = 65536
    while count < len(view):
        piece = bytes(view[count : count + step])
        rest = piece.lstrip(b"\0")
        count += len(piece) - len(rest)
        if rest:
            break
    return count


def _trailing_zeros(view: memoryview) -> int:
    """Counts the zero bytes at the end of a view."""
    count = 0
    end = len(view)
    step = 65536
    while count < end:
        piece = bytes(view[max(0, end - count - step) : end - count])
        rest = piece.rstrip(b"\0")
        count += len(piece) - len(rest)
        if rest:
            break
    return count
