"""Version 2 of a data set: scattered edits, insertions and appends."""

from __future__ import annotations

import bisect
import enum
import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

SMALLEST: Final = 4 << 10
LARGEST: Final = 64 << 10
_COPY: Final = 4 << 20


class Kind(enum.Enum):
    """What is done at a place."""

    OVERWRITE = "overwrite"
    INSERT = "insert"
    APPEND = "append"


@dataclass(frozen=True, slots=True)
class Edit:
    """``size`` new bytes in a file; ``offset`` is in version 1."""

    path: str
    kind: Kind
    offset: int
    size: int


def plan_edits(sizes: Mapping[str, int], share: float, rng: random.Random) -> list[Edit]:
    """Plans edits of 4 to 64 KiB until ``share`` of all bytes are new.

    Each byte is as likely to be hit as any other. What would overwrite more than a file has behind
    its place is appended instead; edits of one file never overlap.
    """
    paths = sorted(sizes)
    ends = list(itertools.accumulate(sizes[path] for path in paths))
    wanted = int(ends[-1] * share)
    edits: list[Edit] = []
    taken: dict[str, list[tuple[int, int]]] = {}
    done = 0
    while done < wanted:
        place = rng.randrange(ends[-1])
        number = bisect.bisect_right(ends, place)
        path = paths[number]
        offset = place - (ends[number] - sizes[path])
        size = rng.randint(SMALLEST, LARGEST)
        kind = rng.choice(list(Kind))
        if kind is Kind.OVERWRITE and offset + size > sizes[path]:
            kind = Kind.APPEND
        if kind is Kind.APPEND:
            offset = sizes[path]
        end = offset + (size if kind is Kind.OVERWRITE else 0)
        if any(offset <= other_end and start <= end for start, other_end in taken.get(path, ())):
            continue
        taken.setdefault(path, []).append((offset, end))
        edits.append(Edit(path, kind, offset, size))
        done += size
    return edits


def apply_edits(old: Path, new: Path, edits: Iterable[Edit], fresh: Callable[[int], bytes]) -> None:
    """Writes version 2 of one file; ``fresh`` gives new bytes."""
    with old.open("rb") as source, new.open("wb") as target:
        for edit in sorted(edits, key=lambda edit: edit.offset):
            _copy(source, target, edit.offset - source.tell())
            target.write(fresh(edit.size))
            if edit.kind is Kind.OVERWRITE:
                source.seek(edit.size, 1)
        _copy(source, target, None)


def _copy(source: BinaryIO, target: BinaryIO, size: int | None) -> None:
    while size is None or size > 0:
        data = source.read(_COPY if size is None else min(size, _COPY))
        if not data:
            return
        target.write(data)
        if size is not None:
            size -= len(data)
