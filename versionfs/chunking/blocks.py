"""Blocks: the unit of compression. One codec byte, then a zstd frame or the bytes themselves.

A block that does not shrink by at least 1/64 is stored raw, so that reading it costs no decoding.
"""

from __future__ import annotations

import threading
from typing import Final

import zstandard

from versionfs.errors import CorruptionError

RAW: Final = 0
ZSTD: Final = 1
BLOCK_TARGET_BYTES: Final = 64 * 1024
"""Small chunks share a block until their plaintext reaches this size (see PERFORMANCE.md)."""

MAX_BLOCK_BYTES: Final = 64 * 1024 * 1024
"""No block decodes to more than this; a larger claim is damage, not a reason to allocate."""

_RAW_PREFIX: Final = bytes([RAW])
_ZSTD_PREFIX: Final = bytes([ZSTD])


class BlockCodec:
    """Compresses blocks at one level; safe to share between threads."""

    def __init__(self, level: int = 3) -> None:
        self._level = level
        self._local = threading.local()

    def encode(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Returns the stored form of a block. Releases the interpreter lock while it compresses."""
        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=False)
            self._local.compressor = compressor
        frame: bytes = compressor.compress(plaintext)
        if len(frame) + len(plaintext) // 64 < len(plaintext):
            return b"".join((_ZSTD_PREFIX, frame))
        return b"".join((_RAW_PREFIX, plaintext))


_local = threading.local()


def decode_block(stored: bytes | memoryview) -> bytes | memoryview:
    """Returns a block's plaintext; a raw block is a view of ``stored``, not a copy.

    Raises:
        CorruptionError: the codec byte is unknown or the frame does not decode.
    """
    if not stored:
        raise CorruptionError("an empty block")
    codec = stored[0]
    if codec == RAW:
        return memoryview(stored)[1:]
    if codec != ZSTD:
        raise CorruptionError(f"unknown block codec {codec}")
    decompressor = getattr(_local, "decompressor", None)
    if decompressor is None:
        decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    payload = memoryview(stored)[1:]
    try:
        size = zstandard.frame_content_size(payload)
        if not 0 <= size <= MAX_BLOCK_BYTES:
            raise CorruptionError(f"a block claims {size} bytes")
        plaintext: bytes = decompressor.decompress(payload, max_output_size=size)
    except zstandard.ZstdError as error:
        raise CorruptionError(f"a block does not decompress: {error}") from error
    return plaintext
