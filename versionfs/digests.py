"""BLAKE2b, for names of files and keys of indexes: nothing in a store depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import blake2b
else:
    # hashlib loads OpenSSL, which takes a tenth of the time of a short command; its BLAKE2 is this.
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b

__all__ = ["blake2b"]
