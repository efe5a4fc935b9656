"""What a peer can do: hold a data set, show it as files, take a version of a folder in."""

from __future__ import annotations

import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from scripts.bench.programs import ProgramError, command, size_of


class Peer:
    """A program that versionfs is measured beside. A *store* is a folder of its own."""

    name: ClassVar[str]
    program: ClassVar[str]
    occasional: ClassVar[bool] = False
    """Slow, and no target is about it: measured in the first round only."""

    def available(self) -> bool:
        """Returns whether the program is installed."""
        return shutil.which(self.program) is not None

    def version(self) -> str:
        """Returns the version that the program says it has."""
        raise NotImplementedError

    def create(self, store: Path) -> None:
        """Makes an empty store in a folder that does not exist; not timed."""
        store.mkdir(parents=True)

    def take(self, store: Path, source: Path) -> None:
        """Takes a folder in as a new version; timed."""
        raise NotImplementedError

    def stored(self, store: Path) -> int:
        """Returns the bytes of a store."""
        return size_of(store)

    def mount(self, store: Path, point: Path) -> AbstractContextManager[Path]:
        """Mounts the newest version of a store; yields the folder that shows it."""
        raise NotImplementedError


def said_version(*words: str | Path) -> str:
    """Returns the first version number in what a program writes to either output; "?" if none."""
    try:
        said = command("sh", "-c", '"$@" 2>&1 | head -1', "sh", *words)
    except ProgramError:
        return "?"
    found = re.search(r"\d+(\.\d+)*", said)
    return found[0] if found else "?"
