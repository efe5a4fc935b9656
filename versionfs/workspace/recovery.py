"""Reads the journals of a table back when it is opened."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from versionfs.errors import CorruptionError
from versionfs.workspace.journal import Batch, Journal, replay

log = logging.getLogger(__name__)

_PREFIX = "journal-"


class Recovered(NamedTuple):
    """The batches that LMDB lacks, in order, their journals, and the number of the next one."""

    batches: list[Batch]
    journals: list[Journal]
    next_number: int


def journal_path(folder: Path, number: int) -> Path:
    """Returns where a journal is."""
    return folder / f"{_PREFIX}{number}"


def has_journals(folder: Path) -> bool:
    """Whether there is a journal."""
    return bool(_found(folder))


def recover(folder: Path, identity: bytes, sequence: int) -> Recovered:
    """Returns what follows the batch ``sequence``; new batches go on in the last journal.

    A torn record ends it: its batch never returned, or a power cut took what was never synced. Of
    what follows nothing can be applied, for each batch builds on those before; it is put aside.

    Raises:
        CorruptionError: a journal is damaged, or batches are missing that were on the disk.
        OSError: a journal cannot be read or cut.
    """
    batches: list[Batch] = []
    journals: list[Journal] = []
    following = 1
    ended = False
    try:
        for number, path in _found(folder):
            following = number + 1
            content = replay(path, identity)
            if content is None or (ended and not content.batches and not content.torn):
                path.unlink()  # It was never begun, or not yet used.
                continue
            first = content.batches[0].sequence if content.batches else 0
            if first > sequence + 1 and not journals:
                raise CorruptionError(
                    f"the workspace in {folder} lacks changes: its table has the first {sequence},"
                    f" {path.name} goes on with number {first}",
                    hint="keep the folder; nothing in it was changed",
                )
            if ended or first > sequence + 1:
                ended = True
                _put_aside(path)
                continue
            for batch in content.batches:
                if batch.sequence > sequence:
                    batches.append(batch)
                    sequence = batch.sequence
            if content.torn:
                ended = True
                _put_aside(path, content.end)
            journals.append(Journal.resume(path, identity, content.end, torn=content.torn))
    except BaseException:
        for journal in journals:
            journal.close()
        raise
    return Recovered(batches, journals, following)


def _found(folder: Path) -> list[tuple[int, Path]]:
    numbers = (path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*"))
    return [(n, journal_path(folder, n)) for n in sorted(int(n) for n in numbers if n.isdecimal())]


def _put_aside(path: Path, start: int = 0) -> None:
    """Keeps what a replay leaves out, a whole journal or the rest of one, and says so."""
    lost = path.with_name(f"left-out-{path.name}")
    log.warning(
        "%s holds from byte %d on what is no whole change or follows one; it is kept as %s",
        path,
        start,
        lost.name,
    )
    if not start:
        path.rename(lost)
        return
    try:
        lost.write_bytes(path.read_bytes()[start:].rstrip(b"\0"))
    except OSError as error:
        log.warning("%s could not be written: %s", lost, error)
