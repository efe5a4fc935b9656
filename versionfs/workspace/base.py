"""The settings that say which commit the changes are on top of, and which commit is under way."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from versionfs.types import Location, NodeRef, PackId

_FORM: Final = struct.Struct("<32s16s32sIIII")
_PENDING: Final = struct.Struct("<QQ")

BASE_KEY: Final = b"mbase"
PENDING_KEY: Final = b"mpending"


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


class Pending(NamedTuple):
    """A commit whose branch is about to move, or has moved, and that is not settled yet.

    ``sequence`` is that of the last change in it; layers below ``frozen_below`` belong to it.
    """

    commit: NodeRef
    sequence: int
    frozen_below: int


def encode_pending(pending: Pending) -> bytes:
    """Returns a pending commit as the record has it."""
    return encode_base(pending.commit) + _PENDING.pack(pending.sequence, pending.frozen_below)


def decode_pending(value: bytes) -> Pending:
    """Returns the pending commit in a record.

    Raises:
        struct.error: it has another length.
    """
    return Pending(decode_base(value[: _FORM.size]), *_PENDING.unpack(value[_FORM.size :]))
