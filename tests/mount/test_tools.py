"""Unmodified tools on a snapshot, compared with the source it was imported from."""

from __future__ import annotations

import hashlib
import mmap
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mount.conftest import World
from versionfs.transfer import import_source

SEED = 11


def run(*command, **more) -> str:
    done = subprocess.run(
        [os.fspath(part) for part in command], capture_output=True, check=False, **more
    )
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    said: bytes = done.stdout
    return said.decode("utf-8", "surrogateescape")


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def fill(source: Path) -> None:
    """Makes a folder of what data sets are made of."""
    rng = random.Random(SEED)
    for folder in ("small", "small/deep/er", "package", "empty", "odd"):
        (source / folder).mkdir(parents=True)
    for n in range(120):
        words = " ".join(rng.choice(["alpha", "beta", "needle", "gamma"]) for _ in range(200))
        (source / "small" / f"{n}.txt").write_text(words)
    (source / "small/deep/er/x").write_bytes(b"")
    (source / "large.bin").write_bytes(rng.randbytes(9_000_000))
    with open(source / "holes", "wb") as file:
        file.write(b"begin")
        file.seek(5_000_000)
        file.write(b"end")
    (source / "script.sh").write_text("#!/bin/sh\necho hello\n")
    (source / "script.sh").chmod(0o755)
    (source / "private").write_text("x")
    (source / "private").chmod(0o600)
    (source / "link").symlink_to("small/1.txt")
    (source / "dangling").symlink_to("nowhere/at all")
    (source / "folder-link").symlink_to("small")
    for name in (b"\xff\xfe", b"new\nline", b" lead and trail ", "grüße".encode(), b"-rf"):
        Path(os.fsdecode(os.fsencode(source / "odd") + b"/" + name)).write_bytes(name)
    (source / "package/__init__.py").write_text("from package.inner import VALUE\n")
    (source / "package/inner.py").write_text("VALUE = 42\n")
    os.utime(source / "small", ns=(1_600_000_000_123_456_789,) * 2)
    try:
        os.setxattr(source / "private", "user.colour", b"red")
        os.setxattr(source / "small", "user.kind", b"texts")
    except OSError:
        pass
    database = sqlite3.connect(source / "data.sqlite")
    with database:
        database.execute("create table points (id integer primary key, name text)")
        database.executemany(
            "insert into points values (?, ?)", ((n, f"point {n}") for n in range(5_000))
        )
    database.close()
    git = ["git", "-C", source / "repository", "-c", "user.name=a", "-c", "user.email=a@b"]
    run("git", "init", "-q", "-b", "main", source / "repository")
    for n in range(3):
        (source / "repository" / "file").write_text(f"{n}\n")
        run(*git, "add", "file")
        run(*git, "commit", "-qm", f"commit {n}")
    run(*git, "gc", "-q")


@pytest.fixture(scope="module")
def mounted(tmp_path_factory):
    """Yields the source and the folder that shows it."""
    need("git")
    folder = tmp_path_factory.mktemp("tools")
    source = folder / "source"
    fill(source)
    world = World(folder)
    try:
        world.store.create_repository("photos")
        import_source(
            world.store, "photos", "main", b"", source, message="all", author="a", warn=print
        )
        yield source, world.mount() / "photos" / "main"
    finally:
        world.close()


def tree(root: Path, *, owner: bool = False) -> dict[bytes, tuple]:
    """Returns all there is to know of a folder, by path."""
    found = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            what: object = None
            if os.path.islink(path):
                what = os.readlink(path)
            elif not os.path.isdir(path):
                with open(path, "rb") as file:
                    what = hashlib.sha256(file.read()).hexdigest()
            xattrs = {} if os.path.islink(path) else {
                n: os.getxattr(path, n) for n in os.listxattr(path) if n.startswith("user.")
            }  # fmt: skip
            size = 0 if os.path.isdir(path) and not os.path.islink(path) else info.st_size
            owners = (info.st_uid, info.st_gid) if owner else ()
            found[os.path.relpath(path, top)] = (
                info.st_mode, size, info.st_mtime_ns, what, xattrs, owners
            )  # fmt: skip
    return found


def test_walk(mounted):
    source, shown = mounted
    assert tree(shown, owner=os.geteuid() == 0) == tree(source, owner=os.geteuid() == 0)


def test_diff(mounted):
    source, shown = mounted
    assert run("diff", "-r", "--no-dereference", source, shown) == ""


def test_tar(mounted, tmp_path):
    source, shown = mounted
    archive = tmp_path / "all.tar"
    run("tar", "--xattrs", "-cf", archive, "-C", shown, ".")
    run("tar", "--xattrs", "-xpf", archive, "-C", tmp_path, "--one-top-level=out")
    archive.unlink()
    assert tree(tmp_path / "out") == tree(source)


def test_rsync(mounted, tmp_path):
    need("rsync")
    source, shown = mounted
    # By default rsync leaves a folder's time alone if it is right to the second.
    exact = "--modify-window=-1"
    run("rsync", "-aX", exact, "--checksum", f"{shown}/", tmp_path / "out/")
    assert tree(tmp_path / "out") == tree(source)
    again = run("rsync", "-aXi", exact, "--checksum", f"{shown}/", tmp_path / "out/")
    assert again == ""
    from_source = run("rsync", "-aXni", exact, "--checksum", "--delete", f"{source}/", f"{shown}/")
    assert from_source == ""


def test_cp(mounted, tmp_path):
    source, shown = mounted
    run("cp", "-a", shown, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(source)


def test_find_and_grep(mounted):
    source, shown = mounted
    for command in (
        ["find", ".", "-printf", r"%P %y %m %s %T@ %l\0"],
        ["find", ".", "-type", "f", "-size", "+1M", "-print0"],
        ["find", ".", "-empty", "-type", "d"],
        ["find", ".", "-newermt", "2020-09-14", "-name", "*.txt"],
        ["grep", "-rlZ", "needle", "small"],
        ["grep", "-rc", "needle", "."],
    ):
        assert sizes_of_folders_aside(run(*command, cwd=shown)) == sizes_of_folders_aside(
            run(*command, cwd=source)
        )


def sizes_of_folders_aside(text: str) -> list[str]:
    """Sorts lines; the size of a folder is the file system's own business."""
    kept = []
    for line in text.replace("\0", "\n").splitlines():
        fields = line.split(" ")
        kept.append(" ".join(fields[:3]) if "d" in fields[1:2] else line)
    return sorted(kept)


def test_sha256sum(mounted):
    source, shown = mounted
    files = sorted(str(p.relative_to(source)) for p in (source / "small").rglob("*.txt"))
    files += ["large.bin", "holes"]
    sums = run("sha256sum", *files, cwd=source)
    assert run("sha256sum", *files, cwd=shown) == sums
    run("sha256sum", "-c", cwd=shown, input=sums.encode())


def test_du_and_stat(mounted):
    source, shown = mounted
    total = sum(p.lstat().st_size for p in source.rglob("*") if not p.is_dir() or p.is_symlink())
    assert int(run("du", "-sb", shown).split()[0]) == total
    assert run("stat", "-c", "%a %s %Y %F", "script.sh", "link", cwd=shown) == run(
        "stat", "-c", "%a %s %Y %F", "script.sh", "link", cwd=source
    )


def test_running_a_program(mounted):
    _, shown = mounted
    assert run(shown / "script.sh") == "hello\n"


def test_mmap(mounted):
    source, shown = mounted
    content = (source / "large.bin").read_bytes()
    with open(shown / "large.bin", "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert mapped[8_999_000:] == content[8_999_000:]
            assert mapped[4_000_000:4_001_000] == content[4_000_000:4_001_000]
            assert mapped[:] == content
        with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as private:
            private[:5] = b"mine!"
            assert private[5:100] == content[5:100]


def test_sqlite(mounted):
    _, shown = mounted
    for options in ("mode=ro", "mode=ro&immutable=1"):
        database = sqlite3.connect(f"file:{shown}/data.sqlite?{options}", uri=True)
        try:
            rows = database.execute("select count(*), max(name) from points").fetchone()
            assert rows == (5_000, "point 999")
            with pytest.raises(sqlite3.OperationalError):
                database.execute("insert into points values (-1, 'x')")
        finally:
            database.close()


def test_git(mounted):
    source, shown = mounted
    options = ["-c", "safe.directory=*"]
    for command in (["log", "--format=%H %s"], ["show", "HEAD~1"], ["fsck", "--full"]):
        assert run("git", *options, "-C", shown / "repository", *command) == run(
            "git", *options, "-C", source / "repository", *command
        )
    assert (
        len(run("git", *options, "-C", shown / "repository", "log", "--oneline").split("\n")) == 4
    )
    assert (
        run("git", "--no-optional-locks", *options, "-C", shown / "repository", "status", "-s")
        == ""
    )


def test_python_imports_from_it(mounted):
    _, shown = mounted
    code = "import package; print(package.VALUE, package.__file__)"
    said = run(sys.executable, "-c", code, env={"PYTHONPATH": os.fspath(shown)})
    assert said == f"42 {shown}/package/__init__.py\n"


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Yields a source of tables and the folder that shows it."""
    pandas = pytest.importorskip("pandas")
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("tables")
    source = folder / "source"
    source.mkdir()
    rng = random.Random(SEED)
    frame = pandas.DataFrame({
        "id": range(50_000),
        "value": [rng.random() for _ in range(50_000)],
        "name": [f"name {rng.randrange(1000)}" for _ in range(50_000)],
    })  # fmt: skip
    frame.to_parquet(source / "table.parquet", row_group_size=10_000)
    for part in range(4):
        (source / "parts" / f"part={part}").mkdir(parents=True)
        frame[frame.id % 4 == part].to_parquet(source / "parts" / f"part={part}" / "x.parquet")
    with duckdb.connect(str(source / "data.duckdb")) as database:
        database.execute(f"create table t as from '{source}/table.parquet'")
    world = World(folder)
    try:
        world.store.create_repository("photos")
        import_source(
            world.store, "photos", "main", b"", source, message="all", author="a", warn=print
        )
        yield source, world.mount() / "photos" / "main"
    finally:
        world.close()


def test_pandas_and_pyarrow(tables):
    import pandas as pd
    import pyarrow.dataset
    import pyarrow.parquet

    source, shown = tables
    frame = pd.read_parquet(shown / "table.parquet")
    pd.testing.assert_frame_equal(frame, pd.read_parquet(source / "table.parquet"))
    mapped = pyarrow.parquet.read_table(shown / "table.parquet", memory_map=True)
    assert mapped.equals(pyarrow.parquet.read_table(source / "table.parquet"))
    parts = pyarrow.dataset.dataset(shown / "parts", partitioning="hive").to_table()
    assert parts.num_rows == 50_000
    assert set(parts.column_names) >= {"id", "part"}


def test_duckdb(tables):
    import duckdb

    source, shown = tables
    with duckdb.connect(str(shown / "data.duckdb"), read_only=True) as database:
        found = database.execute("select count(*), sum(id) from t").fetchone()
    assert found == (50_000, sum(range(50_000)))
    query = "select count(*), round(sum(value), 6), max(name) from '{}/parts/*/*.parquet'"
    with duckdb.connect() as database:
        one = database.execute(query.format(shown)).fetchone()
        other = database.execute(query.format(source)).fetchone()
    assert one == other
