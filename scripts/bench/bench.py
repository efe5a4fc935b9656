"""What all measurements share: folders, data sets, peers, and where results go."""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from scripts.bench import clients
from scripts.bench.datasets import VERSION, DataSets, Scale
from scripts.bench.figures import alternated
from scripts.bench.peers.base import Peer
from scripts.bench.peers.borg import Borg
from scripts.bench.peers.casync import Casync
from scripts.bench.peers.git import Dvc, Git
from scripts.bench.peers.ours import Versionfs
from scripts.bench.peers.plain import Plain
from scripts.bench.peers.restic import Restic
from scripts.bench.peers.squashfs import Squashfs
from scripts.bench.programs import ROOT, ProgramError, command, drop_caches, mounts_below, remove
from scripts.bench.rows import BRANCH, BY_KEY, READ_ONLY, SNAPSHOT

_CHECKED: Final = 4 << 20
"""Of each file of the sample, the first bytes are compared."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A name in the tables, and how its files come to be seen."""

    name: str
    mount: Callable[[], AbstractContextManager[Path]]
    occasional: bool = False


@dataclass
class Bench:
    """One run."""

    folder: Path
    scale: Scale
    rounds: int
    wanted: Sequence[str] | None = None
    """The peers that are asked for; all if None."""
    code: Path = ROOT
    """The checkout of versionfs that is measured."""
    say: Callable[[str], None] = print
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    profiles: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.commit = source_commit(self.code)
        self.data = DataSets(self.folder, self.scale, self.say)
        self.ours = Versionfs(self.code)
        self.peers: dict[str, Peer] = {}
        for peer in (Plain(), Squashfs(), Borg(), Restic(), Casync(), Git(), Dvc()):
            if self.wanted is not None and peer.name not in self.wanted:
                continue
            if peer.available():
                self.peers[peer.name] = peer
            else:
                self.missing[peer.name] = "not installed"
        self._checked: set[tuple[str, Path]] = set()
        self._known_names: dict[Path, list[str]] = {}
        # What a run left that was ended.
        for left in mounts_below(self.folder):
            command("umount", "--lazy", left)
        self.point = self.folder / "mount"
        self.point.mkdir(parents=True, exist_ok=True)
        self.work = self.folder / "work"
        remove(self.work)
        self.work.mkdir()

    def note(self, key: str, contender: str, value: float) -> None:
        """Adds a sample."""
        row = BY_KEY[key]
        self.samples.setdefault(key, {}).setdefault(contender, []).append(value)
        self.say(f"  {key:24} {contender:24} {value:14,.3f} {row.unit}")

    def discard(self, group: str) -> None:
        """Forgets the samples of a group that failed: half of a row is no row."""
        for key in [key for key in self.samples if BY_KEY[key].group == group]:
            del self.samples[key]
        remove(self.work)
        self.work.mkdir()

    def store_of(self, peer: Peer, name: str, source: Path) -> Path:
        """Returns a store that holds a data set; it is made once and kept between runs.

        Ours is made again when the code has changed, a peer's when it is another version.
        """
        state = f"{code_id(self.code) if peer is self.ours else peer.version()} {recipe_id(peer)}"
        store = self.folder / "stores" / self.scale.name / peer.name / name
        stamp = store.parent / f"{name}.complete"
        wanted = f"{state} {source} {VERSION}"
        if stamp.exists() and stamp.read_text() == wanted:
            return store
        self.say(f"  preparing {name} for {peer.name}")
        stamp.unlink(missing_ok=True)
        remove(store)
        peer.create(store)
        peer.take(store, source)
        os.sync()
        stamp.write_text(wanted)
        return store

    def mounting(
        self, name: str, source: Path, peers: Sequence[str], occasional: Sequence[str] = ()
    ) -> list[Contender]:
        """Returns those that show a data set as files: versionfs three times, and peers.

        Those that are ``occasional`` are so for this work beside those that are always so.
        """
        store = self.store_of(self.ours, name, source)
        contenders = [
            Contender(BRANCH, lambda: self._ordinary(store, snapshot=False)),
            Contender(SNAPSHOT, lambda: self._ordinary(store, snapshot=True)),
            Contender(READ_ONLY, lambda: self._read_only(store)),
        ]
        for peer in (self.peers[each] for each in peers if each in self.peers):
            try:
                theirs = self.store_of(peer, name, source)
                contender = Contender(
                    peer.name,
                    partial(peer.mount, theirs, self.point),
                    peer.occasional or peer.name in occasional,
                )
                self._check(contender, source)
            except (ProgramError, OSError) as error:
                self.missing[peer.name] = f"cannot show {name}: {str(error).splitlines()[0]}"
                self.say(f"  left out: {peer.name}: {error}")
                continue
            contenders.append(contender)
        for contender in contenders[:3]:
            self._check(contender, source)
        return contenders

    def rounds_of(self, contenders: Sequence[Contender]) -> Iterator[Contender]:
        """Yields the contenders of each round, in alternating order."""
        for number in range(self.rounds):
            for contender in alternated(contenders, number):
                if number == 0 or not contender.occasional:
                    yield contender

    @contextmanager
    def cold(self, contender: Contender) -> Iterator[Path]:
        """Mounts a contender with nothing cached, in the kernel or in its process."""
        with contender.mount() as folder:
            folder.stat()
            drop_caches()
            yield folder

    @contextmanager
    def _ordinary(self, store: Path, *, snapshot: bool) -> Iterator[Path]:
        with self.ours.ordinary(store, self.point) as daemon:
            yield daemon.snapshot if snapshot else daemon.branch

    @contextmanager
    def _read_only(self, store: Path) -> Iterator[Path]:
        with self.ours.read_only(store, self.point):
            yield self.point

    def _check(self, contender: Contender, source: Path) -> None:
        """Sees that a contender serves the bytes of the data set; once a run for each.

        Raises:
            ProgramError: it does not.
        """
        if (contender.name, source) in self._checked:
            return
        names = self._names(source)
        sample = names[:: max(1, len(names) // 100)][:100] + names[-2:]
        expected = clients.digest_of(source, sample, _CHECKED)
        with contender.mount() as folder:
            if clients.digest_of(folder, sample, _CHECKED) != expected:
                raise ProgramError(f"{contender.name} serves other bytes than the data set has")
        self._checked.add((contender.name, source))

    def _names(self, source: Path) -> list[str]:
        if source not in self._known_names:
            self._known_names[source] = clients.file_names(source)
        return self._known_names[source]


def code_id(code: Path) -> str:
    """Returns a digest of the code that makes and fills a store of versionfs."""
    digest = hashlib.sha256()
    for part in (
        "chunking",
        "chunkstore",
        "index",
        "objectstore",
        "pack",
        "repo",
        "transfer",
        "tree",
    ):
        for path in sorted((code / "versionfs" / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def recipe_id(peer: Peer) -> str:
    """Returns a digest of how a peer's stores are made here."""
    return hashlib.sha256(inspect.getsource(type(peer)).encode()).hexdigest()[:12]


def source_commit(code: Path) -> str:
    """Returns the short id of the commit, with "+" if versionfs is changed; "?" without git."""
    try:
        name = command("git", "rev-parse", "--short=12", "HEAD", folder=code).strip()
        changed = command("git", "status", "--porcelain", "--", "versionfs", folder=code)
    except ProgramError:
        return "?"
    return name + ("+" if changed.strip() else "")
