"""Opens tars to be read in one pass, whatever they are compressed with, and strictly.

Left to itself, the standard library takes a header that is damaged or missing for the end of the
tar, checks no checksum of a compressed stream, and reads one gzip member of several. A tar that was
cut short would then pass for a smaller one. Here a tar ends where it says that it ends.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from tarfile import HeaderError, ReadError
from typing import IO, Any, BinaryIO, Final, Self

import zstandard

_BUFFER_BYTES: Final = 1 << 20
_MAGIC_BYTES: Final = 6
_END: Final = "EOFHeaderError"  # a block of zeros

UNREADABLE: Final = (
    tarfile.TarError,
    EOFError,
    OSError,
    ValueError,
    lzma.LZMAError,
    zlib.error,
    zstandard.ZstdError,
)
"""What reading a stream that is no whole tar may raise."""


class _Member(tarfile.TarInfo):
    """A member whose header is whole."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if type(error).__name__ == _END:
                raise
            # No HeaderError: those are what TarFile takes for the end.
            raise ReadError(f"it is damaged or cut short ({error})") from error


@contextmanager
def open_tar(source: BinaryIO) -> Iterator[tarfile.TarFile]:
    """Opens a tar in a stream; what follows its end is read to the end on leaving.

    Raises:
        UNREADABLE: it is none, or damaged; now or while it is read.
    """
    with (
        _decompressed(source) as plain,
        tarfile.open(
            fileobj=plain,
            mode="r|",
            encoding="utf-8",
            errors="surrogateescape",
            bufsize=_BUFFER_BYTES,
            tarinfo=_Member,
        ) as archive,
    ):
        yield archive
        while plain.read(_BUFFER_BYTES):
            pass  # The checksum of a compressed stream is its last word.


def is_tar(source: BinaryIO) -> bool:
    """Tells whether a file begins as a tar does; a tar without members is not told from zeros."""
    try:
        with _decompressed(source) as plain:
            header = _read_exactly(plain, tarfile.BLOCKSIZE)
        tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except UNREADABLE:
        return False
    return True


def _decompressed(source: BinaryIO) -> Any:
    """Returns the bytes without their compression, which the first of them tell, as a file."""
    magic = _read_exactly(source, _MAGIC_BYTES)
    whole = io.BufferedReader(_Again(magic, source), _BUFFER_BYTES)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=whole)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(whole)
    if magic.startswith((b"\xfd7zXZ\0", b"]\0\0")):
        return lzma.LZMAFile(whole)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().stream_reader(whole, read_across_frames=True)
    return whole


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    parts = b""
    while len(parts) < size and (data := stream.read(size - len(parts))):
        parts += data
    return parts


class _Again(io.RawIOBase):
    """A stream whose first bytes were read already. Does not close it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)
