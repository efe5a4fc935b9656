"""ULIDs: names that are unique, and sort by the time of their making.

26 characters of Crockford's base32: 48 bits of milliseconds since 1970, then 80 bits of chance.
Source: https://github.com/ulid/spec. There is a package for this; it takes longer to import than
all that an import of an unchanged folder does.
"""

from __future__ import annotations

import os
import time
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH: Final = 26


def new_ulid() -> str:
    """Returns a ULID of now."""
    value = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[value >> 5 * at & 31] for at in reversed(range(_LENGTH)))
