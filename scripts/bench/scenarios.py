"""What is profiled of each group: work in a mount, or a command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.bench import clients
from scripts.bench.bench import Bench
from scripts.bench.groups import commit
from scripts.bench.groups.write import half_random
from scripts.bench.peers.ours import Daemon
from scripts.bench.programs import bound, drop_caches, remove
from scripts.bench.rows import BRANCH, READ_ONLY, SNAPSHOT

Work = Callable[[Path], float]
"""Works in a folder; returns how much was done."""


@dataclass(frozen=True, slots=True)
class InMount:
    """Work in the folder that a mount shows. Warm means that the same work was done before."""

    title: str
    unit: str
    mounted: Callable[[], AbstractContextManager[tuple[Daemon, Path]]]
    work: Work
    cold: bool = True


@dataclass(frozen=True, slots=True)
class OfCommand:
    """A command of versionfs in a store that ``ready`` yields."""

    title: str
    ready: Callable[[], AbstractContextManager[tuple[Path, list[str | Path]]]]


Scenario = InMount | OfCommand


def scenarios(bench: Bench, group: str) -> list[Scenario]:
    """Returns what is profiled of a group; nothing of some."""
    make = _OF_GROUP.get(group)
    return [] if make is None else make(bench)


def _mounted(
    bench: Bench, store: Path, how: str
) -> Callable[[], AbstractContextManager[tuple[Daemon, Path]]]:
    @contextmanager
    def mounted() -> Iterator[tuple[Daemon, Path]]:
        if how == READ_ONLY:
            with bench.ours.read_only(store, bench.point) as daemon:
                yield daemon, daemon.point
        else:
            with bench.ours.ordinary(store, bench.point) as daemon:
                yield daemon, daemon.snapshot if how == SNAPSHOT else daemon.branch

    return mounted


def _mixed(bench: Bench, *parts: tuple[str, str, str, Work, bool]) -> list[Scenario]:
    store = bench.store_of(bench.ours, "mixed", bench.data.mixed())
    return [
        InMount(f"{title}, {how}", unit, _mounted(bench, store, how), work, cold)
        for title, unit, how, work, cold in parts
    ]


def _walk(bench: Bench) -> list[Scenario]:
    def walk(folder: Path) -> float:
        return clients.walk(folder / "small")

    return _mixed(
        bench,
        ("cold walk + stat", "entry", BRANCH, walk, True),
        ("warm walk + stat", "entry", BRANCH, walk, False),
        ("warm walk + stat", "entry", READ_ONLY, walk, False),
    )


def _read(bench: Bench) -> list[Scenario]:
    names = clients.file_names(bench.data.mixed() / "small")

    def in_order(folder: Path) -> float:
        return clients.read_in_order(folder / "small")

    def known(folder: Path) -> float:
        return clients.read_paths(folder / "small", names)

    return _mixed(
        bench,
        ("cold open + read + close", "file", BRANCH, in_order, True),
        ("warm open + read + close", "file", BRANCH, known, False),
        ("warm open + read + close", "file", READ_ONLY, known, False),
    )


def _sequential(bench: Bench) -> list[Scenario]:
    def read(name: str) -> Work:
        return lambda folder: clients.read_large(folder / name)

    return _mixed(
        bench,
        ("cold sequential, incompressible", "MiB", BRANCH, read("random.bin"), True),
        ("cold sequential, compressible", "MiB", BRANCH, read("text.bin"), True),
    )


def _random(bench: Bench) -> list[Scenario]:
    def read(folder: Path) -> float:
        return clients.read_random(folder / "text.bin", bench.scale.random_reads)

    return _mixed(bench, ("cold random 4 KiB", "read", BRANCH, read, True))


def _listing(bench: Bench) -> list[Scenario]:
    store = bench.store_of(bench.ours, "wide", bench.data.wide())

    def list_all(folder: Path) -> float:
        clients.list_long(folder / "all")
        return bench.scale.wide_entries

    return [
        InMount(
            f"`ls -l`, {how}, {'cold' if cold else 'warm'}",
            "entry", _mounted(bench, store, how), list_all, cold,
        )
        for how, cold in ((BRANCH, True), (BRANCH, False), (SNAPSHOT, True))
    ]  # fmt: skip


def _import(bench: Bench) -> list[Scenario]:
    @contextmanager
    def ready(second: bool) -> Iterator[tuple[Path, list[str | Path]]]:
        store, place = bench.work / "profiled", bench.folder / "source"
        bench.ours.create(store)
        try:
            if second:
                with bound(bench.data.mixed(), place):
                    bench.ours.take(store, place)
            source = bench.data.mixed_edited() if second else bench.data.mixed()
            with bound(source, place):
                drop_caches()
                yield store, ["import", place, "set", "-m", "version"]
        finally:
            remove(store)

    return [
        OfCommand("import of the mixed set", lambda: ready(False)),
        OfCommand("import of version 2", lambda: ready(True)),
    ]


def _reimport(bench: Bench) -> list[Scenario]:
    def again(name: str, source: Path) -> OfCommand:
        store = bench.store_of(bench.ours, name, source)

        @contextmanager
        def ready() -> Iterator[tuple[Path, list[str | Path]]]:
            bench.ours.take(store, source)
            yield store, ["import", source, "set", "-m", "version"]

        return OfCommand(f"re-import, nothing changed: {name}", ready)

    return [again("mixed", bench.data.mixed()), again("tree", bench.data.tree())]


def _commit(bench: Bench) -> list[Scenario]:
    large = bench.data.tree()
    store = bench.store_of(bench.ours, "tree", large)
    path = next(large.glob("*/*/*")).relative_to(large)

    def in_daemon(folder: Path) -> float:
        commit.edit(folder / path)
        bench.ours.run(store, "commit", "set", "-m", "one")
        return 1

    @contextmanager
    def ready() -> Iterator[tuple[Path, list[str | Path]]]:
        with bench.ours.ordinary(store, bench.point) as daemon:
            commit.edit(daemon.branch / path)
            yield store, ["commit", "set", "-m", "one"]

    return [
        InMount("commit of one file: the daemon", "commit", _mounted(bench, store, BRANCH),
                in_daemon, cold=False),
        OfCommand("commit of one file: the command", ready),
    ]  # fmt: skip


def _write(bench: Bench) -> list[Scenario]:
    data = memoryview(half_random(bench.scale.written_mib))
    store = bench.work / "profiled"

    @contextmanager
    def mounted() -> Iterator[tuple[Daemon, Path]]:
        seed = bench.work / "seed"
        seed.mkdir(exist_ok=True)
        (seed / "file").write_bytes(b"one\n")
        bench.ours.create(store)
        try:
            bench.ours.take(store, seed)
            with bench.ours.ordinary(store, bench.point) as daemon:
                yield daemon, daemon.branch
        finally:
            remove(store)

    def create(folder: Path) -> float:
        (folder / "new").mkdir()
        return clients.create_files(folder / "new", bench.scale.creates, data)

    def large(folder: Path) -> float:
        return clients.write_large(folder / "large", data)

    def commit_large(folder: Path) -> float:
        mib = clients.write_large(folder / "large", data)
        bench.ours.run(store, "commit", "set", "-m", "large")
        return mib

    return [
        InMount("create + write 4 KiB + close", "file", mounted, create),
        InMount("1 MiB sequential writes with fsync", "MiB", mounted, large),
        InMount("the same with a commit after it", "MiB", mounted, commit_large),
    ]


_OF_GROUP: dict[str, Callable[[Bench], list[Scenario]]] = {
    "walk": _walk,
    "read": _read,
    "sequential": _sequential,
    "random": _random,
    "listing": _listing,
    "import": _import,
    "reimport": _reimport,
    "commit": _commit,
    "write": _write,
}
