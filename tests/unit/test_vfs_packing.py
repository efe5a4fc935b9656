"""Directories packed by compiled code against the same entries one by one."""

from __future__ import annotations

import os
import stat
import struct
from typing import NamedTuple

import pytest

from tests.mount.support import commit, file, folder, link, settings_at
from versionfs.fuse.answers import answers
from versionfs.fuse.branch_requests import BranchRequests
from versionfs.repo import Store, parse_spec
from versionfs.vfs import FileSystem, Owner
from versionfs.vfs.directories import PACKS

pytestmark = pytest.mark.skipif(not PACKS, reason="nothing is compiled here")

ROOT = 1
HEAD = struct.Struct("<QQQQII" + "QQQQQQIIIIIIIIII" + "QQII")


class Packed(NamedTuple):
    name: bytes
    number: int
    mode: int
    size: int
    mtime_ns: int
    uid: int
    gid: int
    offset: int


def unpack(data: bytes) -> list[Packed]:
    found = []
    at = 0
    while at < len(data):
        values = HEAD.unpack_from(data, at)
        node, _, valid, attr_valid = values[:4]
        ino, size, _, _, seconds, _, _, rest, _, mode, links, uid, gid = values[6:19]
        d_ino, offset, length, kind = values[22:]
        name = data[at + HEAD.size : at + HEAD.size + length]
        at += HEAD.size + length + -(HEAD.size + length) % 8
        if name not in (b".", b".."):
            assert ino == node == d_ino
            assert valid == attr_valid == 86_400
            assert kind == mode >> 12
            assert links == 1
        mtime = seconds * 10**9 + rest
        found.append(Packed(name, d_ino, mode or kind << 12, size, mtime, uid, gid, offset))
    assert at == len(data)
    return found


@pytest.fixture
def store(tmp_path):
    with Store.create(settings_at(tmp_path / "home")) as store:
        changes = {b"d/f%04d" % i: file(b"%d" % (i % 7)) for i in range(900)}
        changes |= {b"d/sub%d" % i: folder() for i in range(5)}
        changes |= {b"d/link%d" % i: link(b"f%d" % i) for i in range(5)}
        changes[b"d/" + b"n" * 255] = file(b"long")
        commit(store, changes)
        yield store


def folder_number(fs: FileSystem) -> int:
    found = fs.lookup(ROOT, b"d").attributes
    assert found is not None
    return found.number


def listed(fs: FileSystem, room: int | None) -> list[Packed]:
    handle = fs.opendir(folder_number(fs))
    found: list[Packed] = []
    start = 0
    while True:
        if room is None:
            items, seconds = fs.readdir(handle, start)
            assert seconds == 86_400
            part = [Packed(*item) for item in items]
        else:
            data = fs.readdir_packed(handle, start, room)
            assert data is not None
            assert len(data) <= room
            part = unpack(data)
        if not part:
            break
        found += part
        start = part[-1].offset
    fs.releasedir(handle)
    return found


@pytest.mark.parametrize("room", [500, 4096, 32_768, 1 << 20])
@pytest.mark.parametrize("owner", [Owner(0, 0), Owner(1000, 1001)])
def test_packed_entries_are_those_given_one_by_one(store, room, owner):
    plain = FileSystem(store, parse_spec("photos/main@~0"), owner)
    packing = FileSystem(store, parse_spec("photos/main@~0"), owner)
    one_by_one, packed = listed(plain, None), listed(packing, room)
    assert len(packed) == 2 + 900 + 5 + 5 + 1
    assert [p[2:] for p in one_by_one if p.name[0] != 46] == [
        p[2:] for p in packed if p.name[0] != 46
    ]
    for one, other in zip(one_by_one, packed, strict=True):
        assert one.name == other.name
        assert stat.S_IFMT(one.mode) == stat.S_IFMT(other.mode)
        assert one.offset == other.offset
        if not stat.S_ISDIR(one.mode):
            assert one.number == other.number
    # Each entry that was given counts as a lookup, none else.
    assert plain.statistics().inodes == packing.statistics().inodes
    for entry in packed:
        if entry.name not in (b".", b".."):
            packing.forget([(entry.number, 1)])
    assert packing.statistics().inodes == 0
    assert packing.statistics().leaves <= 1


@pytest.mark.parametrize("ahead", [False, True])
def test_packed_from_any_offset(store, ahead):
    fs = FileSystem(store, parse_spec("photos/main@~0"), Owner(0, 0))
    whole = listed(fs, 1 << 20)
    handle = fs.opendir(folder_number(fs))
    for start in (500, 2, 0, 912, 1, 700, 300):
        data = fs.readdir_packed(handle, start, 2048)
        assert data is not None
        found = unpack(data)
        assert found[0] == whole[start]
        if ahead:
            fs.look_ahead(handle)
        following = fs.readdir_packed(handle, found[-1].offset, 2048)
        assert following is not None
        position = found[-1].offset & (1 << 40) - 1  # Above that it names the tree.
        assert unpack(following)[:1] == whole[position:][:1]
    assert fs.readdir_packed(handle, len(whole), 4096) == b""
    assert fs.readdir_packed(handle, 5, 10) == b""  # no room for any
    assert os.fsencode("f0000") in [entry.name for entry in whole]


def decoded(store: Store) -> int:
    return store.trees.statistics().nodes_decoded


def test_what_comes_next_is_read_before_it_is_asked_for(tmp_path):
    """The next leaf of a folder, and the next folder of a walk."""
    settings = settings_at(tmp_path / "home")
    with Store.create(settings) as store:
        commit(store, {b"d%02d/f%04d" % (i // 900, i): file(b"%d" % i) for i in range(9000)})
    with Store.open(settings) as store:
        fs = FileSystem(store, parse_spec("photos/main@~0"), Owner(0, 0))
        waited, names = [], []
        for name in sorted(b"d%02d" % i for i in range(10)):
            top = fs.lookup(ROOT, name).attributes
            assert top is not None
            handle = fs.opendir(top.number)
            start, before = 0, decoded(store)
            while data := fs.readdir_packed(handle, start, 8192):
                waited.append(decoded(store) - before)
                found = unpack(data)
                names += [entry.name for entry in found if entry.name[0] != 46]
                start = found[-1].offset
                fs.look_ahead(handle)
                fs.look_ahead(handle)  # Twice is as good as once.
                before = decoded(store)
            fs.releasedir(handle)
            fs.look_ahead(handle)  # A listing that is closed is none.
        assert names == [b"f%04d" % i for i in range(9000)]
        # Only of the first two folders something has to be read when it is asked for.
        assert sum(waited) <= 8
        assert len(waited) > 100
        assert store.trees.statistics().folders_ahead == 8
        assert fs.statistics().inodes == 9000


def test_to_look_ahead_in_what_is_closed_is_nothing_to_report(tmp_path, caplog):
    """A client may close a folder before the loop comes to it."""
    with Store.create(settings_at(tmp_path / "home")) as store:
        commit(store, {b"d/f%04d" % i: file(b"%d" % i) for i in range(900)})
        fs = FileSystem(store, None, Owner(os.getuid(), os.getgid()), writable=True)
        assert fs.branches is not None
        answer = answers(fs, BranchRequests(fs))
        number = ROOT
        for name in (b"photos", b"main", b"d"):
            prepare = fs.preparation(number, name)
            if prepare is not None:
                prepare()
            number = answer["lookup"](number, name)[0].number
        handle = answer["opendir"](number)[0]
        assert fs.branches.has(handle)
        assert answer["readdir"](handle, 0, 4096)
        assert answer["look_ahead"]() == 0
        answer["releasedir"](handle)
        assert answer["look_ahead"]() < 0
        assert not caplog.records
        fs.branches.close()
