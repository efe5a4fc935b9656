"""Blocks: the unit of compression. One codec byte, then a zstd frame or the bytes themselves.

A block that does not shrink by at least 1/64 is stored raw, so that reading it costs no decoding.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

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


DEFAULT_LEVEL: Final = 2

_TUNED: Final[dict[int, dict[str, int]]] = {
    # Faster than zstd's own level 3, and as small where it was measured on text (and 4 % larger on
    # programs): a table that holds a whole block of small chunks, and no second one.
    2: {
        "window_log": 20,
        "hash_log": 16,
        "chain_log": 16,
        "min_match": 6,
        "strategy": zstandard.STRATEGY_FAST,
    },
}
"""Levels whose parameters are ours, chosen for blocks of 64 KiB and more (docs/design/006)."""

Stored = bytes | memoryview


class BlockCodec:
    """Compresses blocks at one level; safe to share between threads."""

    def __init__(self, level: int = DEFAULT_LEVEL) -> None:
        self._level = level
        self._local = threading.local()

    def _compressor(self) -> Any:
        compressor = getattr(self._local, "compressor", None)
        if compressor is None:
            tuned = _TUNED.get(self._level)
            if tuned is None:
                compressor = zstandard.ZstdCompressor(level=self._level, write_checksum=False)
            else:
                parameters = zstandard.ZstdCompressionParameters(**tuned)
                compressor = zstandard.ZstdCompressor(compression_params=parameters)
            self._local.compressor = compressor
        return compressor

    def encode(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """Returns the stored form of a block. Releases the interpreter lock while it compresses."""
        return b"".join(_parts(plaintext, self._compressor().compress(plaintext)))

    def encode_many(self, plaintexts: Sequence[bytes | memoryview]) -> list[tuple[Stored, Stored]]:
        """Returns the stored form of each block, in two parts that are not copied together.

        Releases the interpreter lock once for all of them: taking it back is what a thread waits
        for. A part stays in memory as long as any other of the same call.
        """
        compressor = self._compressor()
        several = getattr(compressor, "multi_compress_to_buffer", None)
        if several is None or len(plaintexts) == 1:  # only zstandard's C backend has it
            return [_parts(data, compressor.compress(data)) for data in plaintexts]
        frames = several(list(plaintexts), threads=1)
        return [
            _parts(data, memoryview(frame)) for data, frame in zip(plaintexts, frames, strict=True)
        ]


def _parts(plaintext: Any, frame: Stored) -> tuple[Stored, Stored]:
    """Returns codec byte and payload: the frame, or the plaintext if that is not larger."""
    size = len(plaintext)
    if len(frame) + size // 64 < size:
        return _ZSTD_PREFIX, frame
    return _RAW_PREFIX, plaintext


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
