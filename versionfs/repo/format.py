"""The store's format file, ``versionfs.json``: written once, never changed."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NamedTuple

from versionfs.chunking import ChunkingParameters
from versionfs.chunking.cut import ALGORITHM
from versionfs.errors import CorruptionError, UnsupportedFormatError

FORMAT_KEY: Final = "versionfs.json"
FORMAT_VERSION: Final = 1
_CHUNKING: Final = frozenset(("algorithm", "min", "average", "max", "whole"))
_ID: Final = re.compile(r"[0-9A-Za-z]{1,64}", re.ASCII)


class StoreFormat(NamedTuple):
    """What is fixed when a store is created."""

    store_id: str
    chunking: ChunkingParameters

    def encode(self) -> bytes:
        """Returns the content of the format file."""
        sizes = self.chunking
        chunking: dict[str, Any] = {
            "algorithm": ALGORITHM,
            "min": sizes.min_bytes,
            "average": sizes.average_bytes,
            "max": sizes.max_bytes,
        }
        if sizes.whole_bytes:
            chunking["whole"] = sizes.whole_bytes
        value = {
            "versionfs": "store",
            "format": FORMAT_VERSION,
            "id": self.store_id,
            "chunking": chunking,
        }
        return json.dumps(value, indent=2).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes, where: str) -> StoreFormat:
        """Returns the format that a file describes; ``where`` is the store, for messages.

        Raises:
            CorruptionError: the file is damaged.
            UnsupportedFormatError: it is of something else, or of a newer versionfs.
        """
        try:
            value: Any = json.loads(data)
            if value["versionfs"] != "store":
                raise KeyError("versionfs")
            version = int(value["format"])
            if version < 1:
                raise ValueError("format")
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CorruptionError(
                f"{FORMAT_KEY} of the store {where} is damaged",
                hint="restore it from a copy of the store",
            ) from error
        if version > FORMAT_VERSION:
            raise UnsupportedFormatError(
                f"the store {where} has format {version}, this versionfs reads {FORMAT_VERSION}",
                hint="upgrade versionfs",
            )
        try:
            chunking = value["chunking"]
            if chunking["algorithm"] != ALGORITHM:
                raise UnsupportedFormatError(
                    f"the store {where} uses the chunking {chunking['algorithm']!r}",
                    hint="upgrade versionfs",
                )
            if unknown := set(chunking) - _CHUNKING:
                # Whoever does not know it would cut files in other places.
                raise UnsupportedFormatError(
                    f"the store {where} says how files are cut with {', '.join(sorted(unknown))}",
                    hint="upgrade versionfs",
                )
            sizes = ChunkingParameters(
                int(chunking["min"]),
                int(chunking["average"]),
                int(chunking["max"]),
                int(chunking.get("whole", 0)),
            )
            # It names a folder of the cache, so it must not lead anywhere else.
            if _ID.fullmatch(value["id"]) is None:
                raise ValueError("id")
            return cls(value["id"], sizes)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise CorruptionError(
                f"{FORMAT_KEY} of the store {where} is damaged",
                hint="restore it from a copy of the store",
            ) from error
