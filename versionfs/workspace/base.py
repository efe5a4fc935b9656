"""The setting that says which commit a workspace's changes are on top of."""

from __future__ import annotations

import struct
from typing import Final

from versionfs.types import Location, NodeRef, PackId

_FORM: Final = struct.Struct("<32s16s32sIIII")


def encode_base(ref: NodeRef) -> bytes:
    """Returns the reference of a commit as the record has it: 96 bytes."""
    return _FORM.pack(ref.id, ref.stamp, *ref.location)


def decode_base(value: bytes) -> NodeRef:
    """Returns the reference in a record.

    Raises:
        struct.error: it has another length.
    """
    commit, stamp, pack, *numbers = _FORM.unpack(value)
    return NodeRef(commit, stamp, Location(PackId(pack), *numbers))
