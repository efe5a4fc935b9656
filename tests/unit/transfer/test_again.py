"""Importing again: what is read, what makes a commit, and that memory never makes it wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.support.folders import describe, fill, write
from tests.support.stores import (
    LONG_AGO_NS,
    ROOT,
    at,
    bring,
    content,
    head,
    make_store,
    names,
    settings_in,
    tar_of,
)
from versionfs.errors import ConflictError, InvalidInputError, SourceError
from versionfs.repo import Store
from versionfs.transfer import export
from versionfs.tree import diff

FILES: dict[str, bytes | None] = {
    "a": b"1",
    "b": b"22",
    "dir/c": b"333",
    "dir/sub/d": b"4444",
    "dir2/e": b"55555",
    "empty": None,
}


def remake(source: Path) -> None:
    for path in source.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def agrees(store: Store, source: Path, tmp_path: Path) -> bool:
    """Whether an export of the head is the source, and a store of its own gives the same id."""
    out = tmp_path / "exported"
    shutil.rmtree(out, ignore_errors=True)
    export(store, head(store).root, out)
    home = tmp_path / "another"
    shutil.rmtree(home, ignore_errors=True)
    with make_store(home) as other:
        bring(other, source, warn=lambda _: None)
        same_id = head(other).root.content == head(store).root.content
    return same_id and describe(out, mtimes=False) == describe(source, mtimes=False)


def test_an_unchanged_source_makes_no_commit_and_is_not_read(store: Store, source: Path) -> None:
    fill(source, FILES)
    first = bring(store, source)
    assert (first.files, first.files_read) == (5, 5)
    again = bring(store, source)
    assert again.commit is None
    assert again.head == first.commit
    assert (again.files, again.files_read, again.new_bytes) == (5, 0, 0)
    assert again.size_bytes == first.size_bytes


def test_only_changed_files_are_read(store: Store, source: Path, tmp_path: Path) -> None:
    fill(source, FILES)
    first = bring(store, source)
    write(source / "dir" / "sub" / "d", b"new!")
    os.utime(source / "dir" / "sub" / "d", ns=(LONG_AGO_NS, LONG_AGO_NS + 1))
    write(source / "dir" / "added", b"added")
    second = bring(store, source)
    assert second.files_read == 2
    assert second.commit is not None
    assert first.commit is not None
    assert second.commit.parents == (first.commit.ref,)
    assert [c.path for c in diff(store.trees, first.commit.root, second.commit.root)] == [
        b"dir/added",
        b"dir/sub/d",
    ]
    assert agrees(store, source, tmp_path)


def test_a_file_written_a_moment_ago_is_read_again(store: Store, source: Path) -> None:
    """Its next writer may leave size and mtime as they are."""
    fill(source, FILES)
    (source / "a").write_bytes(b"x")
    bring(store, source)
    assert bring(store, source).files_read == 1


def test_checksum_finds_a_change_behind_a_restored_mtime(store: Store, source: Path) -> None:
    fill(source, FILES)
    bring(store, source)
    status = (source / "b").stat()
    with (source / "b").open("r+b") as file:
        file.write(b"XY")
    os.utime(source / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bring(store, source).commit is None
    assert content(store, b"b") == b"22"
    result = bring(store, source, checksum=True)
    assert result.files_read == 5
    assert result.commit is not None
    assert content(store, b"b") == b"XY"
    assert bring(store, source, checksum=True).commit is None
    assert bring(store, source).files_read == 0


def test_a_file_replaced_by_one_of_equal_size_and_time_is_read(store: Store, source: Path) -> None:
    fill(source, FILES)
    bring(store, source)
    write(source / "other", b"99")
    (source / "other").rename(source / "b")
    assert bring(store, source).files_read == 1
    assert content(store, b"b") == b"99"


def test_attributes_that_changed_are_taken_without_reading(
    store: Store, source: Path, tmp_path: Path
) -> None:
    fill(source, FILES)
    bring(store, source)
    (source / "a").chmod(0o600)
    os.setxattr(source / "dir" / "c", "user.k", b"v")
    result = bring(store, source)
    assert result.files_read == 0
    assert result.commit is not None
    assert agrees(store, source, tmp_path)
    os.utime(source / "dir", ns=(5, 5))
    assert bring(store, source).commit is None


def test_the_root_folder_has_attributes_of_its_own(store: Store, source: Path) -> None:
    fill(source, FILES)
    first = bring(store, source).commit
    source.chmod(0o711)
    os.setxattr(source, "user.k", b"v")
    second = bring(store, source).commit
    assert first is not None
    assert second is not None
    assert first.root.content == second.root.content
    assert (second.root.mode, second.root.xattrs) == (0o711, ((b"user.k", b"v"),))
    assert bring(store, source).commit is None


def swap_folders(s: Path) -> None:
    (s / "dir").rename(s / "tmp")
    (s / "dir2").rename(s / "dir")
    (s / "tmp").rename(s / "dir2")


def file_to_folder(s: Path) -> None:
    (s / "a").unlink()
    fill(s, {"a/inner": b"i", "a/x/y": b"j"})


def folder_to_file(s: Path) -> None:
    shutil.rmtree(s / "dir")
    write(s / "dir", b"file")


def file_to_symlink(s: Path) -> None:
    (s / "a").unlink()
    (s / "a").symlink_to("b")


def folder_to_symlink(s: Path) -> None:
    shutil.rmtree(s / "dir")
    (s / "dir").symlink_to("dir2")


def symlink_elsewhere(s: Path) -> None:
    (s / "link").unlink()
    (s / "link").symlink_to("b")


def symlink_to_file(s: Path) -> None:
    (s / "link").unlink()
    write(s / "link", b"a")


CHANGES: dict[str, Callable[[Path], object]] = {
    "remove a file": lambda s: (s / "a").unlink(),
    "remove a folder": lambda s: shutil.rmtree(s / "dir"),
    "rename a file": lambda s: (s / "a").rename(s / "zz"),
    "rename over": lambda s: (s / "a").rename(s / "b"),
    "rename a folder": lambda s: (s / "dir").rename(s / "aaa"),
    "swap folders": swap_folders,
    "file to folder": file_to_folder,
    "folder to file": folder_to_file,
    "file to symlink": file_to_symlink,
    "folder to symlink": folder_to_symlink,
    "symlink elsewhere": symlink_elsewhere,
    "symlink to file": symlink_to_file,
    "empty a folder": lambda s: (s / "dir2" / "e").unlink(),
    "remove all": remake,
    "move up": lambda s: (s / "dir" / "sub").rename(s / "sub"),
    "nested": partial(fill, files={"dir/sub/more/and/more": b"m", "dir/0": b"0", "~": b"z"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_taken_over_and_back(
    store: Store, source: Path, tmp_path: Path, change: str
) -> None:
    fill(source, FILES)
    (source / "link").symlink_to("a")
    first = bring(store, source).commit
    saved = tmp_path / "saved"
    subprocess.run(["cp", "-a", str(source), str(saved)], check=True)
    CHANGES[change](source)
    result = bring(store, source)
    assert result.commit is not None
    assert result.files_read <= 3
    assert agrees(store, source, tmp_path)
    assert bring(store, source).commit is None
    remake(source)
    subprocess.run(["cp", "-a", f"{saved}/.", str(source)], check=True)
    bring(store, source)
    assert agrees(store, source, tmp_path)
    assert first is not None
    assert head(store).root.content == first.root.content


def test_a_folder_that_comes_back_changed_is_not_taken_for_the_old_one(
    store: Store, source: Path, tmp_path: Path
) -> None:
    fill(source, FILES)
    bring(store, source)
    inode = (source / "dir" / "c").stat().st_ino
    (source / "dir").rename(tmp_path / "away")
    bring(store, source)
    with (tmp_path / "away" / "c").open("r+b") as file:
        file.write(b"XYZ")
    os.utime(tmp_path / "away" / "c", ns=(LONG_AGO_NS, LONG_AGO_NS))
    (tmp_path / "away").rename(source / "dir")
    assert (source / "dir" / "c").stat().st_ino == inode
    bring(store, source)
    assert content(store, b"dir/c") == b"XYZ"
    assert agrees(store, source, tmp_path)


def test_random_changes_one_after_another(store: Store, source: Path, tmp_path: Path) -> None:
    rng = Random(11)
    fill(source, {f"d{i % 7}/s{i % 3}/f{i}": b"%d" % i for i in range(400)})
    bring(store, source)
    for turn in range(8):
        for _ in range(rng.choice([1, 5, 60])):
            files = [p for p in source.rglob("*") if p.is_file()]
            path = rng.choice(files)
            kind = rng.choice(["write", "remove", "rename", "folder", "prune", "link"])
            if kind == "write":
                write(path, rng.randbytes(5), mtime_ns=LONG_AGO_NS + turn + 1)
            elif kind == "remove":
                path.unlink()
            elif kind == "rename":
                path.rename(path.with_name(f"r{rng.getrandbits(20)}"))
            elif kind == "folder":
                path.unlink()
                fill(path, {"in": b"side"})
            elif kind == "prune" and len(files) > 300:
                shutil.rmtree(path.parent)
            else:
                path.with_name(f"l{rng.getrandbits(20)}").symlink_to(path.name)
        bring(store, source)
        assert agrees(store, source, tmp_path), turn


def test_memory_of_a_tree_that_is_gone_is_not_trusted(store: Store, source: Path) -> None:
    fill(source, FILES)
    first = bring(store, source)
    store.repository("photos").delete_branch("main")
    for info in list(store.objects.list("packs/")):
        store.objects.remove(info.key)
    home = Path(store.settings.store).parent
    store.close()
    with Store.open(settings_in(home)) as again:
        result = bring(again, source)
        assert result.files_read == 5
        assert result.commit is not None
        assert first.commit is not None
        assert result.commit.root.content == first.commit.root.content
        assert content(again, b"dir/sub/d") == b"4444"


def test_the_same_source_into_two_branches(store: Store, source: Path) -> None:
    fill(source, FILES)
    one = bring(store, source)
    two = bring(store, source, branch="dev")
    assert two.files_read == 0
    assert one.commit is not None
    assert two.commit is not None
    assert one.commit.root.content == two.commit.root.content
    write(source / "a", b"changed")
    bring(store, source, branch="dev")
    assert content(store, b"a") == b"1"
    assert content(store, b"a", "dev") == b"changed"
    bring(store, source)
    assert content(store, b"a") == b"changed"


# -- PATH and keep ---------------------------------------------------------------------------------


def test_a_path_has_exactly_the_content_of_the_source(store: Store, source: Path) -> None:
    fill(source, FILES)
    bring(store, source)
    other = source.parent / "other"
    fill(other, {"x": b"1", "y/z": b"2"})
    bring(store, other, path=b"dir")
    assert names(store, head(store).root) == [
        b"a",
        b"b",
        b"dir",
        b"dir/x",
        b"dir/y",
        b"dir/y/z",
        b"dir2",
        b"dir2/e",
        b"empty",
    ]
    bring(store, other, path=b"deep/er/still")
    assert content(store, b"deep/er/still/y/z") == b"2"
    assert bring(store, other, path=b"deep/er/still").commit is None
    bring(store, other, path=b"a/b")  # a was a file
    assert content(store, b"a/b/x") == b"1"
    assert content(store, b"b") == b"22"


def test_a_path_may_be_the_first_commit(store: Store, source: Path) -> None:
    fill(source, FILES)
    bring(store, source, path=b"in/here")
    assert content(store, b"in/here/dir/c") == b"333"
    assert head(store).root.files == 5


def test_keep_adds_and_overwrites_without_removing(store: Store, source: Path) -> None:
    fill(source, FILES)
    bring(store, source)
    other = source.parent / "other"
    fill(other, {"a": b"new", "dir/sub/n": b"n", "b/inner": b"i", "dir2": b"file now"})
    result = bring(store, other, keep=True)
    assert result.commit is not None
    assert names(store, head(store).root) == [
        b"a",
        b"b",
        b"b/inner",
        b"dir",
        b"dir/c",
        b"dir/sub",
        b"dir/sub/d",
        b"dir/sub/n",
        b"dir2",
        b"empty",
    ]
    assert content(store, b"a") == b"new"
    assert content(store, b"dir2") == b"file now"
    assert bring(store, other, keep=True).commit is None
    bring(store, other)
    assert len(names(store, head(store).root)) == 7


def test_keep_below_a_path(store: Store, source: Path) -> None:
    fill(source, FILES)
    bring(store, source, path=b"p/q")
    other = source.parent / "other"
    fill(other, {"dir/c": b"C"})
    bring(store, other, path=b"p/q", keep=True)
    assert content(store, b"p/q/dir/c") == b"C"
    assert content(store, b"p/q/dir/sub/d") == b"4444"
    bring(store, other, path=b"p/q", keep=False)
    assert names(store, head(store).root) == [b"p", b"p/q", b"p/q/dir", b"p/q/dir/c"]


@pytest.mark.parametrize("data", [b"", b"text", bytes(3000), Random(5).randbytes(6_000_000)])
def test_a_single_file_goes_to_its_path(store: Store, source: Path, data: bytes) -> None:
    write(source / "one", data)
    (source / "one").chmod(0o640)
    result = bring(store, source / "one", path=b"in/file")
    assert content(store, b"in/file") == data
    assert (result.files, result.size_bytes) == (1, len(data))
    entry = at(store, b"in/file")
    assert entry is not None
    assert (entry.mode, entry.mtime_ns) == (0o640, LONG_AGO_NS)
    assert bring(store, source / "one", path=b"in/file").commit is None
    with pytest.raises(InvalidInputError, match="root of a repository is a folder"):
        bring(store, source / "one")


def test_a_symlink_to_a_source_is_that_source(store: Store, source: Path) -> None:
    fill(source, FILES)
    link = source.parent / "link"
    link.symlink_to(source)
    first = bring(store, link)
    assert first.files == 5
    assert bring(store, source).files_read == 0
    bring(store, link / "a", path=b"f")
    (source.parent / "file link").symlink_to(source / "b")
    bring(store, source.parent / "file link", path=b"g")
    assert content(store, b"g") == b"22"


def test_a_single_file_that_cannot_be_read_is_never_a_version(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(source / "one", b"data")
    pread = os.pread

    def changing(descriptor: int, size: int, offset: int) -> bytes:
        with (source / "one").open("ab") as file:
            file.write(b"more")
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", changing)
    with pytest.raises(SourceError):
        bring(store, source / "one", path=b"p", skip_errors=True, warn=lambda _: None)
    assert store.repository("photos").branches() == {}


# -- the same id everywhere ------------------------------------------------------------------------


def test_the_tree_id_does_not_depend_on_how_the_data_came(source: Path, tmp_path: Path) -> None:
    rng = Random(6)
    files: dict[str, bytes | None] = {
        f"d{i % 5}/e{i % 3}/f{i}": rng.randbytes(rng.choice([0, 10, 5000])) for i in range(300)
    }
    files |= {"big": rng.randbytes(6_000_000), "hole": bytes(3 << 20) + b"x", "void": None}
    fill(source, files)
    (source / "link").symlink_to("big")
    os.setxattr(source / "big", "user.k", b"v")

    def id_of(store: Store) -> bytes:
        return head(store).root.content

    with make_store(tmp_path / "one") as store:
        bring(store, source)
        expected = id_of(store)

    # Made in another order, with other times and inodes.
    copy = tmp_path / "copy"
    fill(copy, {name: files[name] for name in reversed(list(files))}, age=False)
    (copy / "link").symlink_to("big")
    os.setxattr(copy / "big", "user.k", b"v")
    with make_store(tmp_path / "two") as store:
        bring(store, copy)
        assert id_of(store) == expected
        # Again after the index was deleted, on another branch.
        home = tmp_path / "two"
    shutil.rmtree(home / "cache")
    with Store.open(settings_in(home)) as store:
        result = bring(store, copy, branch="again")
        assert result.files_read == 302
        assert head(store, "again").root.content == expected
        assert result.new_bytes == 0

    # In several imports by PATH, in any order.
    with make_store(tmp_path / "three") as store:
        tops = sorted(os.listdir(source))
        rng.shuffle(tops)
        for top in tops:
            if top != "link":
                bring(store, source / top, path=top.encode())
        link_only = tmp_path / "link only"
        link_only.mkdir()
        (link_only / "link").symlink_to("big")
        bring(store, link_only, keep=True)
        assert id_of(store) == expected

    # Grown and shrunk to it.
    with make_store(tmp_path / "four") as store:
        fill(copy, {f"extra{i}/x": b"%d" % i for i in range(300)})
        bring(store, copy)
        assert id_of(store) != expected
        for i in range(300):
            shutil.rmtree(copy / f"extra{i}")
        bring(store, copy)
        assert id_of(store) == expected

    # As a tar, with another compression level.
    settings = settings_in(tmp_path / "five")._replace(compression_level=19)
    archive = tmp_path / "a.tar"
    subprocess.run(["tar", "--xattrs", "-C", source, "-cf", archive, "."], check=True)
    with Store.create(settings) as store:
        store.create_repository("photos")
        bring(store, archive)
        assert id_of(store) == expected


def test_the_order_in_a_tar_does_not_matter(store: Store) -> None:
    import io

    members = [(f"d{i % 4}/f{i}", b"%d" % i) for i in range(50)]
    ids = set()
    for seed in range(3):
        Random(seed).shuffle(members)
        bring(store, "-", stdin=io.BytesIO(tar_of(*members)), branch=f"b{seed}")
        ids.add(head(store, f"b{seed}").root.content)
    assert len(ids) == 1


# -- several writers -------------------------------------------------------------------------------


def import_in_processes(home: Path, jobs: list[tuple[Path, str]]) -> list[str]:
    """Imports sources to paths of one branch, each in a process; all start together."""
    code = (
        "import sys; from tests.support.stores import *; from versionfs.errors import *\n"
        "home, source, path = Path(sys.argv[1]), sys.argv[2], sys.argv[3].encode()\n"
        "with Store.open(settings_in(home)) as store:\n"
        "    print('ready', flush=True); sys.stdin.readline()\n"
        "    try: print('done', bring(store, source, path=path, message=sys.argv[3]).files)\n"
        "    except ConflictError: print('conflict')\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(home), str(source), path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for source, path in jobs
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate()[0].strip() for process in processes]


def test_imports_to_different_paths_at_once_are_all_in_the_history(
    store: Store, home: Path, source: Path
) -> None:
    for number in range(5):
        fill(source / str(number), {f"f{i}": b"%d %d" % (number, i) for i in range(40)})
    bring(store, source / "0", path=b"first")
    store.close()
    shown = import_in_processes(home, [(source / str(n), f"p{n}") for n in range(5)])
    assert shown == ["done 40"] * 5
    with Store.open(settings_in(home)) as again:
        repository = again.repository("photos")
        commits = list(repository.history(head(again)))
        assert sorted(c.message for c in commits[:-1]) == [f"p{n}" for n in range(5)]
        assert [c.number for c in commits] == [6, 5, 4, 3, 2, 1]
        for number in range(5):
            assert content(again, b"p%d/f7" % number) == b"%d 7" % number
        assert head(again).root.files == 240


def test_imports_to_the_same_path_at_once_do_not_overwrite_each_other(
    store: Store, home: Path, source: Path
) -> None:
    """A writer that read the branch before another moved it is told."""
    fill(source, {"mine/a": b"mine", "theirs/b": b"theirs"})
    repository = store.repository("photos")
    moved: list[object] = []

    def theirs(_: object) -> None:
        if not moved:
            moved.append(bring(store, source / "theirs", message="theirs"))

    slow = source.parent / "slow"
    fill(slow, {f"f{i}": b"%d" % i for i in range(300)})
    with pytest.raises(ConflictError, match="changed by someone else"):
        bring(store, slow, message="mine", progress=theirs)
    assert [c.message for c in repository.history(head(store))] == ["theirs"]
    assert content(store, b"b") == b"theirs"
    result = bring(store, slow, message="mine")
    assert result.new_bytes == 0
    assert [c.message for c in repository.history(head(store))] == ["mine", "theirs"]


def test_a_process_reads_while_another_writes(store: Store, home: Path, source: Path) -> None:
    fill(source, {f"f{i}": b"%d" % i * 50 for i in range(500)})
    bring(store, source)
    expected = head(store).id
    code = (
        "import sys; from tests.support.stores import *\n"
        "with Store.open(settings_in(Path(sys.argv[1]))) as store:\n"
        "    print('ready', flush=True)\n"
        "    for turn in range(20):\n"
        "        commit = head(store); found = names(store, commit.root)\n"
        "        assert len(found) == commit.root.files, turn\n"
        "        for name in found[::50]:\n"
        "            entry = store.trees.lookup(commit.root.node, name)\n"
        "            assert store.contents.open(entry).read(0, 99999), name\n"
        "    print('done')\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        turn = 0
        while reader.poll() is None and turn < 40:
            turn += 1
            write(source / f"g{turn}", b"%d" % turn)
            bring(store, source)
        assert reader.stdout.read() == "done\n"
    assert head(store).number == turn + 1
    assert list(store.repository("photos").history(head(store)))[-1].id == expected


def test_commits_never_go_back_in_time(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source, FILES)
    first = bring(store, source).commit
    assert first is not None
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3_600_000_000_000)
    write(source / "a", b"changed")
    second = bring(store, source).commit
    assert second is not None
    assert second.time_ns > first.time_ns
