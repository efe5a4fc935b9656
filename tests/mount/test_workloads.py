"""Real programs work in a branch folder; then a commit, and the snapshot is what the folder is."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from versionfs.fuse import control, registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]


def run(*words: object, cwd: Path, **more) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return str(done.stdout)


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture
def top(world) -> Path:
    world.commit({b"base/file": b"from the base\n", b"base/deep/er": b"x" * 100_000})
    return Path(world.mount() / "photos/main")


def commit_and_compare(world, top: Path) -> None:
    """Commits, and compares names, kinds, permission bits and contents."""
    reply = control.ask(
        registry.files_of(world.settings, world.mountpoints[0]).socket,
        {
            "op": "workspace-commit",
            "repository": "photos",
            "branch": "main",
            "message": "work",
            "author": "test",
            "metadata": {},
        },
        120.0,
    )
    assert reply is not None
    assert reply["ok"], reply
    assert reply["result"]["commit"]
    head = top.with_name("main@head")
    run("diff", "-r", "--no-dereference", top, head, cwd=top)
    listing = ["find", ".", "-printf", "%P %y %m %T@ %l\n"]
    assert sorted(run(*listing, cwd=top).splitlines()) == sorted(
        run(*listing, cwd=head).splitlines()
    )


def test_git(world, top: Path) -> None:
    needs("git")
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        pytest.skip("these tests are not in a git repository")
    run("git", "clone", "-q", "--no-hardlinks", here, "clone", cwd=top)
    clone = top / "clone"
    assert run("git", "status", "--porcelain", cwd=clone) == ""
    (clone / "added").write_text("new\n")
    run(*GIT, "add", "added", cwd=clone)
    run(*GIT, "commit", "-q", "-m", "added", cwd=clone)
    run(*GIT, "checkout", "-q", "-b", "other", "HEAD~1", cwd=clone)
    assert not (clone / "added").exists()
    run(*GIT, "merge", "-q", "master" if _has(clone, "master") else "main", cwd=clone)
    run("git", "gc", "-q", "--prune=now", cwd=clone)
    run("git", "fsck", "--strict", cwd=clone)
    commit_and_compare(world, top)
    assert run("git", "status", "--porcelain", cwd=clone) == ""


def _has(clone: Path, branch: str) -> bool:
    return branch in run("git", "branch", "--format=%(refname:short)", cwd=clone).split()


def test_pip_installs_into_a_virtual_environment(world, top: Path) -> None:
    wheel = top / "tiny-1.0-py3-none-any.whl"
    facts = {
        "METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/__init__.py", "def main(): print('it runs')\n")
        for name, text in facts.items():
            archive.writestr(f"tiny-1.0.dist-info/{name}", text)
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=top)
    python = top / "env/bin/python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "-q",
        "--no-index",
        "--disable-pip-version-check",
        wheel,
        cwd=top,
    )
    assert run(top / "env/bin/tiny", cwd=top) == "it runs\n"
    commit_and_compare(world, top)
    assert run(top / "env/bin/tiny", cwd=top) == "it runs\n"


SQLITE_WRITER = """
import sqlite3, sys
me = int(sys.argv[2])
connection = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for number in range(60):
    connection.execute("begin immediate")
    connection.execute("insert into rows values (?, ?, ?)", (me, number, "x" * 500))
    connection.execute("update totals set count = count + 1")
    connection.execute("commit")
"""


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_sqlite_with_four_writers(world, top: Path, mode: str) -> None:
    path = top / "data.db"
    connection = sqlite3.connect(path)
    assert connection.execute(f"pragma journal_mode={mode}").fetchone()[0] == mode.lower()
    connection.execute("create table rows (writer, number, text)")
    connection.execute("create table totals (count)")
    connection.execute("insert into totals values (0)")
    connection.commit()
    connection.close()
    writers = [
        subprocess.Popen([sys.executable, "-c", SQLITE_WRITER, path, str(number)])
        for number in range(4)
    ]
    assert [writer.wait(200) for writer in writers] == [0, 0, 0, 0]
    connection = sqlite3.connect(path)
    assert connection.execute("select count from totals").fetchone() == (240,)
    assert connection.execute("select count(*) from rows").fetchone() == (240,)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    connection.close()
    commit_and_compare(world, top)
    copy = sqlite3.connect(
        f"file:{top.with_name('main@head')}/data.db?mode=ro&immutable=1", uri=True
    )
    assert copy.execute("select count from totals").fetchone() == (240,)
    copy.close()


def test_duckdb_and_pandas(world, top: Path) -> None:
    import duckdb
    import pandas as pd

    with duckdb.connect(str(top / "data.duckdb")) as database:
        database.execute("create table t as select range as a, hash(range) as b from range(200000)")
        database.execute("update t set b = 0 where a % 7 = 0")
        database.execute("checkpoint")
        expected = database.execute("select sum(a), count(*) from t where b = 0").fetchone()
    frame = pd.DataFrame({"a": range(100_000), "b": [f"text {i % 97}" for i in range(100_000)]})
    frame.to_parquet(top / "frame.parquet")
    frame["a"] *= 2
    frame.to_parquet(top / "frame.parquet")
    assert pd.read_parquet(top / "frame.parquet")["a"].sum() == frame["a"].sum()
    commit_and_compare(world, top)
    head = top.with_name("main@head")
    with duckdb.connect(str(head / "data.duckdb"), read_only=True) as database:
        assert database.execute("select sum(a), count(*) from t where b = 0").fetchone() == expected
    assert pd.read_parquet(head / "frame.parquet").equals(frame)


def test_tar_rsync_make_and_editors(world, top: Path, tmp_path: Path) -> None:
    needs("tar", "rsync", "make", "gcc")
    source = tmp_path / "project"
    (source / "lib").mkdir(parents=True)
    for number in range(30):
        (source / f"lib/f{number}.c").write_text(f"int f{number}(void) {{ return {number}; }}\n")
    (source / "main.c").write_text(
        "#include <stdio.h>\n"
        + "".join(f"int f{n}(void);\n" for n in range(30))
        + 'int main(void) { printf("%d\\n", '
        + "+".join(f"f{n}()" for n in range(30))
        + "); return 0; }\n"
    )
    (source / "Makefile").write_text(
        textwrap.dedent(
            """\
            OBJECTS = main.o $(patsubst %.c,%.o,$(wildcard lib/*.c))
            program: $(OBJECTS)
            \tgcc -o $@ $^
            %.o: %.c
            \tgcc -c -o $@ $<
            clean:
            \trm -f $(OBJECTS) program
            """
        )
    )
    os.link(source / "main.c", source / "linked.c")
    run("tar", "cf", tmp_path / "project.tar", "-C", tmp_path, "project", cwd=tmp_path)
    run("tar", "xpf", tmp_path / "project.tar", cwd=top)
    run("diff", "-r", source, top / "project", cwd=top)
    assert (top / "project/main.c").stat().st_nlink == 2
    run("make", "-j2", cwd=top / "project")
    assert run("./program", cwd=top / "project") == f"{sum(range(30))}\n"
    assert "up to date" in run("make", cwd=top / "project")
    run("rsync", "-aH", "--checksum", f"{source}/", "synced/", cwd=top)
    (source / "main.c").write_text("int main(void) { return 0; }\n")
    run("rsync", "-aH", "--inplace", f"{source}/", "synced/", cwd=top)
    assert "deleting" not in run("rsync", "-aHni", "--delete", f"{source}/", "synced/", cwd=top)
    # As vim saves: a backup by rename, a new file, fsync, the backup removed.
    path = top / "project/main.c"
    text = path.read_text()
    os.rename(path, f"{path}~")
    with path.open("w") as file:
        file.write(text + "/* edited */\n")
        file.flush()
        os.fsync(file.fileno())
    shutil.copystat(f"{path}~", path)
    os.unlink(f"{path}~")
    # As most others do: a temporary file, fsync, rename over, fsync of the folder.
    temporary = top / "project/.Makefile.tmp"
    with temporary.open("w") as file:
        file.write((top / "project/Makefile").read_text() + "# edited\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, top / "project/Makefile")
    folder = os.open(top / "project", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)
    commit_and_compare(world, top)
    run("make", "clean", cwd=top / "project")
    commit_and_compare(world, top)


@pytest.mark.parametrize("engine", ["psync", "mmap"])
def test_fio_verifies(world, top: Path, engine: str) -> None:
    needs("fio")
    run(
        "fio", "--name=verify", f"--directory={top}", f"--ioengine={engine}", "--rw=randrw",
        "--bs=4k", "--size=24m", "--numjobs=2", "--verify=crc32c", "--do_verify=1",
        "--verify_fatal=1", "--fsync=200", "--randseed=7", "--group_reporting", "--minimal",
        cwd=top,
    )  # fmt: skip
    commit_and_compare(world, top)


def test_dbench(world, top: Path) -> None:
    needs("dbench")
    loads = [Path("/usr/share/dbench/client.txt"), Path("/usr/share/doc/dbench/client.txt")]
    load = next((path for path in loads if path.exists()), None)
    options = [] if load is None else ["-c", load]
    (top / "bench").mkdir()
    out = run("dbench", "-t", "6", "-D", top / "bench", *options, "4", cwd=top)
    assert "Throughput" in out
    commit_and_compare(world, top)


STRESS = """
import os, random, sys
rng = random.Random(int(sys.argv[2]))
os.chdir(sys.argv[1])
def name():
    return "/".join(rng.choice(["a", "b", "c", "d"]) for _ in range(rng.randint(1, 4)))
fds = []
for _ in range(int(sys.argv[3])):
    one, two = name(), name()
    try:
        match rng.randrange(16):
            case 0 | 1: os.mkdir(one)
            case 2: os.rmdir(one)
            case 3 | 4: fds.append(os.open(one, os.O_RDWR | os.O_CREAT))
            case 5: os.unlink(one)
            case 6: os.rename(one, two)
            case 7: os.link(one, two)
            case 8: os.symlink(one, two)
            case 9: os.truncate(one, rng.randrange(200_000))
            case 10: os.chmod(one, rng.choice([0o600, 0o755, 0o4755, 0o2775]))
            case 11: os.setxattr(one, b"user.x", b"v" * rng.randrange(100))
            case 12: os.listdir(one)
            case 13 if fds: os.close(fds.pop(rng.randrange(len(fds))))
            case 14 if fds:
                data = b"d" * rng.randrange(1, 9000)
                os.pwrite(rng.choice(fds), data, rng.randrange(300_000))
            case 15 if fds: os.pread(rng.choice(fds), 10_000, rng.randrange(300_000))
    except OSError as error:
        if error.errno in (5, 103, 107): raise
"""


def test_stress_by_four_processes(world, top: Path) -> None:
    """As fsstress does: everything at once on a few names, with commits in between."""
    folder = top / "stress"
    folder.mkdir()
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    workers = [
        subprocess.Popen([sys.executable, "-c", STRESS, folder, str(seed + number), "4000"])
        for number in range(4)
    ]
    (top / "again").write_text("1")
    commits = 0
    while any(worker.poll() is None for worker in workers) and commits < 5:
        reply = control.ask(
            registry.files_of(world.settings, world.mountpoints[0]).socket,
            {"op": "workspace-commit", "repository": "photos", "branch": "main",
             "message": "meanwhile", "author": "test", "metadata": {}},
            120.0,
        )  # fmt: skip
        assert reply is not None
        assert reply["ok"], reply
        commits += 1
    assert [worker.wait(200) for worker in workers] == [0, 0, 0, 0]
    (top / "again").write_text("2")
    commit_and_compare(world, top)
    assert "unexpectedly" not in world.log(world.mountpoints[0])
