"""The semantics of a mount, without one."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from tests.mount.support import SECOND, T0, commit, file, folder, link, settings_at
from versionfs.errors import AmbiguousError, NotFoundError
from versionfs.repo import Store, parse_spec
from versionfs.vfs import FileSystem, FileSystemError, Invalidation, Owner

ROOT = 1
DAY = 86_400.0


@pytest.fixture
def store(tmp_path):
    with Store.create(settings_at(tmp_path / "home")) as store:
        yield store


class View:
    """Walks a file system as the kernel would."""

    def __init__(self, store, spec=None, owner=None):
        self.fs = FileSystem(store, parse_spec(spec) if spec else None, owner or Owner(0, 0))

    def number(self, path, start=ROOT):
        number = start
        for name in filter(None, path.split("/")):
            found = self.fs.lookup(number, os.fsencode(name)).attributes
            if found is None:
                raise FileNotFoundError(path)
            number = found.number
        return number

    def exists(self, path):
        try:
            self.number(path)
        except FileNotFoundError:
            return False
        return True

    def stat(self, path):
        return self.fs.attributes(self.number(path))[0]

    def read(self, path):
        number = self.number(path)
        return b"".join(self.fs.read_pieces(self.fs.open(number, os.O_RDONLY), 0, 1 << 20))

    def items(self, number, per_reply=7):
        handle = self.fs.opendir(number)
        offset, found = 0, []
        while True:
            got = self.reply(handle, offset, per_reply)
            if not got:
                break
            found += got
            offset = got[-1][7]
        self.fs.releasedir(handle)
        return found

    def reply(self, handle, offset, count):
        """Takes entries as readdirplus does: the one that does not fit is not taken."""
        items, _ = self.fs.readdir(handle, offset)
        got: list[tuple] = []
        for item in items:
            if len(got) == count:
                break
            got.append(item)
        items.close()
        return got

    def list(self, path):
        return [item[0] for item in self.items(self.number(path)) if item[0] not in (b".", b"..")]

    def refresh(self, repository=None):
        work = self.fs.refresh(repository)
        work.locate()
        return [one for step in work.steps() if not callable(step) for one in step]


def fails_with(number):
    return pytest.raises(FileSystemError, match=errno.errorcode[number])


# -- the path grammar ------------------------------------------------------------------------------


def test_the_root_lists_repositories(store):
    commit(store, {b"a": b"1"}, repository="photos")
    commit(store, {b"a": b"1"}, repository="texts")
    view = View(store)
    assert view.list("") == [b"photos", b"texts"]
    assert view.fs.lookup(ROOT, b"nothing").attributes is None
    assert view.fs.lookup(ROOT, b"nothing").timeout == 0


def test_a_repository_lists_branches_then_tags(store):
    first = commit(store, {b"a": b"1"})
    commit(store, {b"a": b"2"}, branch="dev")
    store.repository("photos").create_tag("v1.0", first)
    view = View(store)
    assert view.list("photos") == [b"dev", b"main", b"@v1.0"]
    assert view.read("photos/@v1.0/a") == b"1"
    assert view.read("photos/dev/a") == b"2"


def test_every_form_of_revision_is_a_name(store):
    commits = [commit(store, {b"a": b"%d" % n}, time_ns=T0 + n * 86_400 * SECOND) for n in range(5)]
    store.repository("photos").create_tag("v1.0", commits[1])
    view = View(store)
    from datetime import UTC, datetime

    day = datetime.fromtimestamp(commits[2].time_ns / SECOND, UTC).astimezone().strftime("%Y-%m-%d")
    for name, content in (
        ("main", b"4"),
        ("main@head", b"4"),
        ("main@~0", b"4"),
        ("main@~3", b"1"),
        ("main@v1.0", b"1"),
        ("main@v1.0~1", b"0"),
        ("@v1.0", b"1"),
        (f"main@{commits[2].id.hex()[:8]}", b"2"),
        (f"@{commits[3].id.hex()}", b"3"),
        (f"main@{day}", b"2"),
        (f"main@{day}T23:59", b"2"),
    ):
        assert view.read(f"photos/{name}/a") == content, name
        assert not view.exists(f"photos/{name}/b")


@pytest.mark.parametrize(
    "name",
    ["nope", "main@~9", "main@nope", "@nope", "main@", "@", ".git", "main@1999-01-01", "ma\xffin",
     "main@@head", ".diff", "-x", "@0000", "main@2026-99-99"],
)  # fmt: skip
def test_unknown_names_are_not_there_and_not_remembered(store, name):
    commit(store, {b"a": b"1"})
    view = View(store)
    found = view.fs.lookup(view.number("photos"), name.encode("latin-1"))
    assert found == (None, 0.0)


def test_names_in_a_snapshot_are_remembered_as_missing(store):
    commit(store, {b"a": b"1"})
    view = View(store)
    assert view.fs.lookup(view.number("photos/main"), b"zzz") == (None, DAY)


def test_an_ambiguous_prefix_is_an_error_of_its_own(store, monkeypatch):
    commit(store, {b"a": b"1"})
    view = View(store)

    def resolve(branch, revision):
        raise AmbiguousError("two of them")

    repository = store.repository("photos")
    monkeypatch.setattr(repository, "resolve", resolve)
    monkeypatch.setattr(store, "repository", lambda name: repository)
    with pytest.raises(AmbiguousError):
        view.number("photos/main@abcd")


def test_too_long_a_name(store):
    commit(store, {b"a": b"1"})
    view = View(store)
    with fails_with(errno.ENAMETOOLONG):
        view.fs.lookup(view.number("photos/main"), b"x" * 256)


def test_log_has_a_link_for_each_commit(store):
    commits = [
        commit(store, {b"a": b"%d" % n}, message=f"Größe {n}: a/b & c\nmore") for n in range(12)
    ]
    view = View(store)
    assert view.list("photos/.log") == [b"main"]
    names = sorted(view.list("photos/.log/main"))
    assert [int(name[:6]) for name in names] == list(range(1, 13))
    assert names[0].decode().endswith(f"-{commits[0].id.hex()[:12]}-Größe-0-a-b-c")
    for name, one in zip(names, commits, strict=True):
        number = view.number(f"photos/.log/main/{os.fsdecode(name)}")
        target = view.fs.readlink(number)
        assert target == f"../../main@{one.id.hex()[:12]}".encode()
        attributes = view.fs.attributes(number)[0]
        assert attributes.mtime_ns == one.time_ns
        assert attributes.size == len(target)
        assert stat.S_ISLNK(attributes.mode)
        assert view.exists(f"photos/{os.fsdecode(target[6:])}")
    assert not view.exists("photos/.log/main/000001-2020-01-01-abc")
    assert not view.exists("photos/.log/nope")
    commit(store, {b"a": b"new"}, message="")
    assert len(view.list("photos/.log/main")) == 13


@pytest.mark.parametrize(
    ("spec", "path"),
    [("photos", "main/d/x"), ("photos/main", "d/x"), ("photos/main@~0", "d/x"),
     ("photos@v1", "d/x"), ("photos/main:d", "x"), ("photos:d", "x"), ("photos@head:d", "x")],
)  # fmt: skip
def test_a_spec_is_the_root(store, spec, path):
    one = commit(store, {b"d/x": b"content"})
    store.repository("photos").create_tag("v1", one)
    assert View(store, spec).read(path) == b"content"


@pytest.mark.parametrize("spec", ["nope", "photos/nope", "photos@nope", "photos:nope", "photos:f"])
def test_a_spec_that_is_no_directory(store, spec):
    commit(store, {b"f": b"1"})
    with pytest.raises(NotFoundError):
        View(store, spec)


# -- inodes ----------------------------------------------------------------------------------------


def test_the_same_file_in_two_snapshots_is_one_inode(store):
    commit(store, {b"same": b"1", b"other": b"2", b"l": link(b"same")})
    commit(store, {b"other": b"3", b"new": b"1"})
    view = View(store)
    assert view.number("photos/main/same") == view.number("photos/main@~1/same")
    assert view.number("photos/main/same") == view.number("photos/main/new")
    assert view.number("photos/main/l") == view.number("photos/main@~1/l")
    assert view.number("photos/main/other") != view.number("photos/main@~1/other")


@pytest.mark.parametrize(
    "change",
    [{"mode": 0o600}, {"mtime_ns": T0 + 1}, {"uid": 7}, {"gid": 7},
     {"xattrs": ((b"user.a", b"1"),)}],
)  # fmt: skip
def test_what_makes_a_file_another_inode(store, change):
    commit(store, {b"a": file(b"1"), b"b": file(b"1", **change)})
    view = View(store)
    assert view.number("photos/main/a") != view.number("photos/main/b")


def test_numbers_are_the_same_in_another_mount(store):
    commit(store, {b"a": b"1", b"l": link(b"x")})
    for name in ("a", "l"):
        numbers = {View(store).number(f"photos/main/{name}") for _ in range(2)}
        assert len(numbers) == 1


def test_directories_are_one_inode_for_each_path(store):
    commit(store, {b"d/x": b"1", b"e/x": b"1"})
    view = View(store)
    paths = ("photos/main", "photos/main@~0", "photos/main/d", "photos/main/e", "photos/main@~0/d")
    assert len({view.number(path) for path in paths}) == len(paths)
    assert view.number("photos/main/d") == view.number("photos/main/d")


def test_colliding_hashes_get_numbers_of_their_own(store, monkeypatch):
    from versionfs.vfs import directories

    commit(store, {b"%d" % n: b"%d" % n for n in range(20)})
    same = 1 << 62 | 12345
    monkeypatch.setattr(directories, "file_number", lambda leaf, index: same)
    monkeypatch.setattr(
        directories, "file_numbers", lambda leaf, start: [same] * (leaf.count - start)
    )
    view = View(store)
    numbers = {view.number(f"photos/main/{n}") for n in range(20)}
    assert len(numbers) == 20
    for n in range(20):
        assert view.read(f"photos/main/{n}") == b"%d" % n
        assert view.number(f"photos/main/{n}") in numbers
    listed = {item[1] for item in view.items(view.number("photos/main")) if item[0].isdigit()}
    assert listed == numbers


def test_forgetting_everything_leaves_nothing(store):
    commit(store, {b"%d/%d" % (d, f): b"%d" % f for d in range(30) for f in range(30)})
    view = View(store)
    counts: dict[int, int] = {}

    def walk(number):
        for name, child, mode, *_ in view.items(number):
            if name in (b".", b".."):
                continue
            counts[child] = counts.get(child, 0) + 1
            if stat.S_ISDIR(mode):
                walk(child)

    walk(ROOT)
    before = view.fs.statistics()
    assert before.inodes == 30
    assert before.directories == 1 + 1 + 1 + 30
    # Parents may be forgotten before what is in them.
    for number, count in sorted(counts.items()):
        view.fs.forget([(number, count)])
    after = view.fs.statistics()
    assert (after.inodes, after.directories, after.leaves) == (0, 1, 0)
    assert view.fs.attributes(ROOT)[0].number == ROOT
    assert view.read("photos/main/7/8") == b"8"


def test_forgetting_the_unknown_is_harmless(store):
    view = View(store)
    view.fs.forget([(77, 1), (1 << 62 | 77, 3), (ROOT, 5)])
    assert view.list("") == []


# -- listing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_reply", [1, 2, 100, 100_000])
def test_listing_gives_every_entry_once_whatever_fits(store, per_reply):
    names = {b"file-%05d" % n for n in range(3_000)}
    commit(store, dict.fromkeys(names, b""))
    view = View(store)
    number = view.number("photos/main")
    items = view.items(number, per_reply)
    assert [item[0] for item in items[:2]] == [b".", b".."]
    assert [item[0] for item in items[2:]] == sorted(names)
    assert [item[7] & (1 << 40) - 1 for item in items] == list(range(1, len(items) + 1))
    assert view.fs.statistics().inodes == 1


def test_offsets_are_good_for_seekdir(store):
    commit(store, {b"%04d" % n: b"" for n in range(1_000)})
    view = View(store)
    handle = view.fs.opendir(view.number("photos/main"))
    everything = view.reply(handle, 0, 5_000)
    assert view.reply(handle, len(everything), 10) == []
    for start in (1, 2, 3, 500, 999, 1_001, 0, 700, 20, 701, 702, 4):
        assert view.reply(handle, start, 5) == everything[start : start + 5]
    assert view.reply(handle, 5_000, 5) == []


def test_listing_goes_on_in_the_new_tree(store):
    commit(store, {b"%04d" % n: b"" for n in range(1_000)})
    view = View(store)
    number = view.number("photos/main")
    handle = view.fs.opendir(number)
    seen = view.reply(handle, 0, 502)
    commit(store, {b"0100": None, b"0600": None, b"0100x": b"", b"0700x": b""})
    view.refresh()
    seen += view.reply(handle, seen[-1][7], 5_000)
    names = [item[0] for item in seen[2:]]
    assert names == sorted({b"%04d" % n for n in range(1_000)} - {b"0600"} | {b"0700x"})


def test_readers_of_an_unopened_directory_go_on_in_the_new_tree(store):
    """All have one cursor, and replies of the same length: each goes on behind its own last name.

    That is so however many moves and other directories come in between.
    """
    names = {b"%04d" % n for n in range(1_000)}
    others = {b"other%03d/f" % n: b"" for n in range(300)}
    commit(store, {b"d/" + name: b"" for name in names} | others)
    view = View(store)
    view.fs.opened.by_number = True
    number = view.number("photos/main/d")
    began: list[tuple[set[bytes], list[tuple]]] = []
    for step in range(3):
        began += [(names, view.reply(number, 0, 402)), (names, view.reply(number, 0, 12))]
        gone, new = {b"%04d" % step, b"%04d" % (600 + step)}, {b"0000x%d" % step, b"07%02dx" % step}
        commit(store, {b"d/" + n: None for n in gone} | {b"d/" + n: b"" for n in new})
        names = names - gone | new
        view.refresh()
        # As many as those that began before the move, and those that did after it.
        for _, given in began:
            given += view.reply(number, given[-1][7], 150)
        began.append((names, view.reply(number, 0, 552)))
        for other in range(300):
            view.reply(view.number(f"photos/main/other{other:03d}"), 0, 9)
    ended: set[int] = set()
    while len(ended) < len(began):
        for index, (_, given) in enumerate(began):
            got = view.reply(number, given[-1][7], 150)
            given += got
            if not got:
                ended.add(index)
    for at_first, given in began:
        found = [item[0] for item in given[2:]]
        assert found == sorted(set(found))
        assert at_first & names <= set(found) <= at_first | names


def test_offsets_are_good_for_seekdir_when_the_branch_has_moved(store):
    commit(store, {b"%04d" % n: b"" for n in range(1_000)})
    view = View(store)
    handle = view.fs.opendir(view.number("photos/main"))
    everything = view.reply(handle, 0, 5_000)
    commit(store, {b"0000": None, b"0001": None, b"0700x": b""})
    view.refresh()
    view.reply(handle, 0, 300)
    names = [b"%04d" % n for n in range(1_000)]
    names.insert(701, b"0700x")
    for at in (500, 20, 800, 701, 4):
        name, offset = everything[at][0], everything[at][7]
        behind = names[names.index(name) + 1 :][:5]
        assert [item[0] for item in view.reply(handle, offset, 5)] == behind


def test_an_unopened_directory_is_good_for_seekdir(store):
    commit(store, {b"%04d" % n: b"" for n in range(1_000)})
    view = View(store)
    view.fs.opened.by_number = True
    number = view.number("photos/main")
    everything = view.reply(number, 0, 5_000)
    for start in (1, 2, 3, 500, 999, 1_001, 0, 700, 20, 701, 702, 4):
        assert view.reply(number, start, 5) == everything[start : start + 5]
    assert view.reply(number, 5_000, 5) == []
    with fails_with(errno.ENOTDIR):
        view.fs.readdir(view.number("photos/main/0001"), 0)
    with fails_with(errno.ENOENT):
        view.fs.readdir(123_456, 0)


def test_cursors_of_unopened_directories_are_bounded(store):
    commit(store, {b"d%03d/f%d" % (n, m): b"" for n in range(400) for m in range(3)})
    view = View(store)
    view.fs.opened.by_number = True
    numbers = [view.number(f"photos/main/d{n:03d}") for n in range(400)]
    begun = [view.reply(number, 0, 3) for number in numbers]
    assert len(view.fs.opened._unopened) == 256
    for number, given in zip(numbers, begun, strict=True):
        given += view.reply(number, given[-1][7], 10)
        assert [item[0] for item in given[2:]] == [b"f0", b"f1", b"f2"]


def test_closed_and_unknown_handles(store):
    view = View(store)
    handle = view.fs.opendir(ROOT)
    view.fs.releasedir(handle)
    with fails_with(errno.EBADF):
        view.fs.readdir(handle, 0)


def test_names_are_bytes(store):
    names = [b"\xff\xfe", b"new\nline", b" ", b"tab\t", "ü".encode(), b"-rf", b"a" * 255]
    commit(store, {name: name for name in names})
    view = View(store)
    assert view.list("photos/main") == sorted(names)
    for name in names:
        assert view.read(f"photos/main/{os.fsdecode(name)}") == name


# -- attributes ------------------------------------------------------------------------------------


def test_attributes_are_those_stored(store):
    commit(
        store,
        {b"f": file(b"12345", mode=0o640, mtime_ns=T0 + 7, uid=12, gid=13),
         b"l": link(b"target", mtime_ns=T0 + 8)},
    )  # fmt: skip
    view = View(store)
    found = view.stat("photos/main/f")
    assert found[1:] == (stat.S_IFREG | 0o640, 5, T0 + 7, 12, 13)
    found = view.stat("photos/main/l")
    assert found[1:4] == (stat.S_IFLNK | 0o777, 6, T0 + 8)
    assert view.fs.readlink(found.number) == b"target"
    with fails_with(errno.EINVAL):
        view.fs.readlink(view.number("photos/main/f"))
    with fails_with(errno.EINVAL):
        view.fs.readlink(view.number("photos/main"))


def test_a_user_sees_all_as_their_own(store):
    commit(store, {b"f": file(b"1", uid=12, gid=13)})
    view = View(store, owner=Owner(1000, 1001))
    for path in ("", "photos", "photos/main", "photos/main/f", "photos/.log/main"):
        assert view.stat(path)[4:] == (1000, 1001), path
    assert {item[5:7] for item in view.items(view.number("photos/main"))} == {(1000, 1001)}


def test_writing_is_refused(store):
    commit(store, {b"f": b"1"})
    view = View(store)
    number = view.number("photos/main/f")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with fails_with(errno.EROFS):
            view.fs.open(number, flags)
    assert view.fs.open(number, os.O_RDONLY | os.O_APPEND) == number


def test_wrong_kinds_of_node(store):
    commit(store, {b"f": b"1", b"l": link(b"f")})
    view = View(store)
    file_number, folder_number = view.number("photos/main/f"), view.number("photos/main")
    with fails_with(errno.ENOTDIR):
        view.fs.lookup(file_number, b"x")
    with fails_with(errno.ENOTDIR):
        view.fs.opendir(file_number)
    with fails_with(errno.EISDIR):
        view.fs.open(folder_number, os.O_RDONLY)
    with fails_with(errno.EINVAL):
        view.fs.open(view.number("photos/main/l"), os.O_RDONLY)
    for call in (view.fs.attributes, view.fs.opendir, view.fs.readlink, view.fs.xattrs):
        with fails_with(errno.ENOENT):
            call(987_654)


def test_extended_attributes(store):
    commit(
        store,
        {b"d/f": file(b"12345", xattrs=((b"user.colour", b"red"),)), b"d/g": b"678"},
    )
    one = store.repository("photos").resolve("main", None)
    view = View(store)

    def value(path, name):
        return view.fs.xattr(view.number(path), b"user." + name)

    assert view.fs.xattrs(view.number("photos/main/d/f")) == [b"user.colour"]
    assert value("photos/main/d/f", b"colour") == b"red"
    assert view.fs.xattrs(view.number("photos/main/d")) == []
    assert value("photos/main/d", b"versionfs.ref") == b"photos/main:d"
    assert value("photos/main@~0", b"versionfs.ref") == b"photos/main@~0"
    assert value("photos", b"versionfs.ref") == b"photos"
    assert value("", b"versionfs.ref") == b""
    assert value("", b"versionfs.store") == store.settings.store.encode()
    assert value("photos/main/d", b"versionfs.commit") == one.id.hex().encode()
    assert value("photos/main", b"versionfs.id") == one.root.content.hex().encode()
    assert value("photos/main/d", b"versionfs.rfiles") == b"2"
    assert value("photos/main/d", b"versionfs.rbytes") == b"8"
    assert len(value("photos/main/d/f", b"versionfs.id")) == 64
    for path, name in (("photos/main/d/f", b"versionfs.ref"), ("photos", b"versionfs.id"),
                       ("photos/main/d", b"versionfs.nope"), ("photos/main/d", b"x")):  # fmt: skip
        with fails_with(errno.ENODATA):
            value(path, name)
    for name in (b"system.posix_acl_access", b"security.capability"):
        with fails_with(errno.EOPNOTSUPP):
            view.fs.xattr(view.number("photos/main/d/f"), name)


def test_the_space_counts_the_files_of_what_is_mounted(store):
    commit(store, {b"a": b"1", b"d/b": b"2"})
    commit(store, {b"a": b"1"}, branch="dev")
    commit(store, {b"a": b"1"}, repository="texts")
    assert View(store).fs.space()().files == 4
    assert View(store, "photos").fs.space()().files == 3
    assert View(store, "photos/main").fs.space()().files == 2
    space = View(store).fs.space()()
    disk = os.statvfs(store.settings.store)
    assert (space.block_bytes, space.blocks) == (disk.f_frsize, disk.f_blocks)


# -- refs that move --------------------------------------------------------------------------------


def test_a_branch_that_moves_keeps_its_directories(store):
    commit(store, {b"d/e/x": b"1", b"same/y": b"1", b"gone/z": b"1", b"kind/q": b"1"})
    view = View(store)
    paths = ("photos/main", "photos/main/d", "photos/main/d/e", "photos/main/same")
    numbers = [view.number(path) for path in paths]
    gone, kind = view.number("photos/main/gone"), view.number("photos/main/kind")
    old = view.number("photos/main/d/e/x")
    commit(store, {b"d/e/x": b"2", b"d/e/n": b"3", b"gone": None, b"kind": b"a file now"})
    assert view.read("photos/main/d/e/x") == b"1"
    found = view.refresh("photos")
    assert [view.number(path) for path in paths] == numbers
    assert view.read("photos/main/d/e/x") == b"2"
    assert view.read("photos/main/kind") == b"a file now"
    assert view.fs.read_pieces(old, 0, 10) == [b"1"]
    main, d, e, same = numbers
    assert {i.name for i in found if i.number == e} == {None, b"x", b"n"}
    assert {i.name for i in found if i.number == d} == {None}
    assert {i.name for i in found if i.number == main} == {None, b"gone", b"kind"}
    assert not [i for i in found if i.number == same]
    for number in (gone, kind):
        assert view.fs.lookup(number, b"z").attributes is None
        assert [item[0] for item in view.items(number)] == [b".", b".."]
        assert stat.S_ISDIR(view.fs.attributes(number)[0].mode)
    assert not view.exists("photos/main/gone")


def test_a_directory_that_comes_back_is_another_one(store):
    commit(store, {b"d/x": b"1", b"y": b""})
    view = View(store)
    old = view.number("photos/main/d")
    commit(store, {b"d": None})
    view.refresh()
    commit(store, {b"d/x": b"2"})
    view.refresh()
    assert view.number("photos/main/d") != old
    assert view.read("photos/main/d/x") == b"2"
    view.fs.forget([(old, 100)])
    assert view.read("photos/main/d/x") == b"2"


def test_names_relative_to_a_branch_move_with_it(store):
    commit(store, {b"a": b"1"})
    commit(store, {b"a": b"2"})
    view = View(store)
    names = ("main@head", "main@~1", "main@2100-01-01")
    numbers = [view.number(f"photos/{name}") for name in names]
    commit(store, {b"a": b"3"})
    view.refresh()
    assert [view.number(f"photos/{name}") for name in names] == numbers
    assert [view.read(f"photos/{name}/a") for name in names] == [b"3", b"2", b"3"]


def test_a_view_that_shows_nothing_any_more_is_gone(store):
    first = commit(store, {b"d/a": b"1"})
    repository = store.repository("photos")
    repository.create_tag("v1", first)
    view = View(store)
    photos, top, inner = (view.number(p) for p in ("photos", "photos/@v1", "photos/@v1/d"))
    repository.delete_tag("v1")
    found = view.refresh("photos")
    assert Invalidation(photos, b"@v1") in found
    assert not view.exists("photos/@v1")
    for number in (top, inner):
        assert view.fs.lookup(number, b"a").attributes is None
        assert [item[0] for item in view.items(number)] == [b".", b".."]
    repository.create_tag("v1", first)
    assert view.number("photos/@v1") != top
    assert view.read("photos/@v1/d/a") == b"1"


def test_a_moved_ref_is_noticed_and_only_once(store):
    commit(store, {b"a": b"1"})
    view = View(store)
    view.number("photos/main")
    assert view.fs.moved() == []
    commit(store, {b"a": b"2"})
    assert view.fs.moved() == ["photos"]
    view.refresh("photos")
    assert view.fs.moved() == []
    assert view.read("photos/main/a") == b"2"


def test_a_deleted_repository_is_gone(store):
    commit(store, {b"a": b"1"})
    view = View(store)
    view.number("photos/main")
    store.delete_repository("photos")
    assert view.fs.moved() == ["photos"]
    view.refresh()
    assert not view.exists("photos")


def test_a_mounted_branch_moves_too(store):
    commit(store, {b"d/a": b"1"})
    view = View(store, "photos/main:d")
    view.number("a")
    commit(store, {b"d/a": b"2", b"b": b""})
    found = view.refresh("photos")
    assert view.read("a") == b"2"
    assert Invalidation(ROOT, b"a") in found
    commit(store, {b"d": None})
    view.refresh("photos")
    assert view.list("") == []


def test_an_empty_directory(store):
    commit(store, {b"empty": folder(mode=0o700), b"x": b"1"})
    view = View(store)
    assert view.list("photos/main/empty") == []
    assert view.stat("photos/main/empty").mode == stat.S_IFDIR | 0o700
    assert view.fs.lookup(view.number("photos/main/empty"), b"x").attributes is None
