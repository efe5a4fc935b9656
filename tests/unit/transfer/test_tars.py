"""Tars, from a file or as a stream: good, odd and damaged ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.folders import describe, fill
from tests.support.stores import LONG_AGO_NS, at, bring, content, head, names, tar_of
from versionfs.errors import InvalidInputError, SourceError
from versionfs.repo import Store
from versionfs.transfer import ImportResult, export
from versionfs.types import NO_ID, Kind


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def pipe(store: Store, data: bytes, **options: Any) -> ImportResult:
    """Imports from a stream that cannot seek."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.rest = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece = self.rest.read(min(len(buffer), 7001))
            buffer[: len(piece)] = piece
            return len(piece)

    return bring(store, "-", stdin=Pipe(), **options)


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("a.tar", bytes),
        ("a.tar.gz", gzip.compress),
        ("a.tgz", gzip.compress),
        ("a.tar.bz2", bz2.compress),
        ("a.tar.xz", lzma.compress),
        ("no suffix", gzip.compress),
    ],
)
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_a_tar_is_a_folder(
    store: Store, source: Path, name: str, compress: Callable[[bytes], bytes], way: str
) -> None:
    data = compress(tar_of(("a", b"1"), ("d/b", Random(1).randbytes(100_000))))
    (source / name).write_bytes(data)
    result = bring(store, source / name) if way == "file" else pipe(store, data)
    assert names(store, head(store).root) == [b"a", b"d", b"d/b"]
    assert content(store, b"d/b") == Random(1).randbytes(100_000)
    assert (result.files, result.size_bytes) == (2, 100_001)
    again = bring(store, source / name) if way == "file" else pipe(store, data)
    assert again.commit is None


def test_a_gzip_of_several_members_is_read_to_its_end(store: Store) -> None:
    data = tar_of(("a", bytes(1000)), ("b", Random(1).randbytes(30_000)))
    pipe(store, gzip.compress(data[:9000]) + gzip.compress(data[9000:]))
    assert names(store, head(store).root) == [b"a", b"b"]


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_gnu_tar_writes_comes_back(
    store: Store, source: Path, tmp_path: Path, format_: int
) -> None:
    fill(source, {"a": b"1", "d/b": b"2", "d/e/empty": b"", "long" * 60: b"3", "void": None})
    (source / "link").symlink_to("a")
    (source / "dangling").symlink_to("x" * 300)
    (source / "a").chmod(0o4750)
    (source / "d").chmod(0o1777)
    os.utime(source / "d", ns=(LONG_AGO_NS, LONG_AGO_NS))
    os.link(source / "a", source / "z hard link")
    odd = os.fsencode(source) + b"/\xff\xfe\nx"
    with open(odd, "wb") as file:
        file.write(b"odd")
    os.setxattr(source / "a", "user.k", b"v\xff\0=\n")
    os.utime(source / "d" / "b", ns=(-1_500_000_000, -1_500_000_000))
    pax = format_ == tarfile.PAX_FORMAT
    options = ["--format=pax", "--xattrs"] if pax else ["--format=gnu"]
    archive = tmp_path / "a.tar"
    subprocess.run(["tar", *options, "-C", str(source), "-cf", str(archive), "."], check=True)
    bring(store, archive)
    export(store, head(store).root, tmp_path / "out")
    before, after = describe(source, mtimes=pax), describe(tmp_path / "out", mtimes=pax)
    if not pax:
        before = {path: seen._replace(xattrs=()) for path, seen in before.items()}
    assert after == before


def test_times_before_1970_and_fractions(store: Store) -> None:
    members = []
    expected = {}
    for number, (text, ns) in enumerate(
        {
            "0": 0,
            "1.5": 1_500_000_000,
            "-1.5": -1_500_000_000,
            "-0.25": -250_000_000,
            "1234567890.123456789": 1_234_567_890_123_456_789,
            "7.1234567891": 7_123_456_789,
            "8.": 8_000_000_000,
        }.items()
    ):
        members.append(member(f"f{number}", pax_headers={"mtime": text}))
        expected[b"f%d" % number] = ns
    pipe(store, tar_of(*members, format=tarfile.PAX_FORMAT))
    for name, ns in expected.items():
        entry = at(store, name)
        assert entry is not None
        assert entry.mtime_ns == ns, name


def test_members_out_of_order_twice_and_without_folders(store: Store) -> None:
    pipe(
        store,
        tar_of(
            ("z/y/x", b"1"),
            ("a", b"old"),
            ("z/b", b"2"),
            member("z", tarfile.DIRTYPE, mode=0o700),
            ("a", b"new"),
            ("./z/./c", b"3"),
            ("/absolute", b"4"),
            member("was a folder/", tarfile.DIRTYPE),
            ("was a folder/gone", b"5"),
            ("was a folder", b"6"),
            ("was a file", b"7"),
            member("was a file", tarfile.DIRTYPE),
            ("was a file/in", b"8"),
        ),
        warn=[].append,
    )
    assert names(store, head(store).root) == [
        b"a",
        b"absolute",
        b"was a file",
        b"was a file/in",
        b"was a folder",
        b"z",
        b"z/b",
        b"z/c",
        b"z/y",
        b"z/y/x",
    ]
    assert content(store, b"a") == b"new"
    assert content(store, b"was a folder") == b"6"
    folder = at(store, b"z")
    assert folder is not None
    assert folder.mode == 0o700


def test_hard_links_are_the_file_they_name(store: Store) -> None:
    result = pipe(
        store,
        tar_of(
            ("data", b"content"),
            member("one", tarfile.LNKTYPE, linkname="data"),
            member("d/two", tarfile.LNKTYPE, linkname="./one"),
            member("soft", tarfile.SYMTYPE, linkname="data"),
            member("three", tarfile.LNKTYPE, linkname="soft"),
            ("later", b"first"),
            member("later", tarfile.LNKTYPE, linkname="data"),
            member("again", tarfile.LNKTYPE, linkname="data"),
            ("again", b"last"),
        ),
    )
    for name in (b"one", b"d/two", b"later"):
        assert content(store, name) == b"content"
    assert content(store, b"again") == b"last"
    three = at(store, b"three")
    assert three is not None
    assert (three.kind, three.target) == (Kind.SYMLINK, b"data")
    assert result.commit is not None
    assert result.commit.root.files == 7


@pytest.mark.parametrize("target", ["nothing", "folder", "../data", "/etc/passwd"])
def test_a_hard_link_to_what_is_not_in_the_tar_is_named(store: Store, target: str) -> None:
    data = tar_of(
        ("data", b"x"),
        member("folder", tarfile.DIRTYPE),
        member("bad", tarfile.LNKTYPE, linkname=target),
    )
    with pytest.raises(SourceError) as caught:
        pipe(store, data)
    assert [path for path, _ in caught.value.problems] == [b"bad"]
    assert store.repository("photos").branches() == {}
    pipe(store, data, skip_errors=True, warn=lambda _: None)
    assert names(store, head(store).root) == [b"data", b"folder"]


@pytest.mark.parametrize("name", ["../up", "a/../../up", "..", "d/.."])
def test_a_member_that_leads_out_of_the_tar_is_named(store: Store, name: str) -> None:
    with pytest.raises(SourceError) as caught:
        pipe(store, tar_of((name, b"x"), ("fine", b"y")))
    assert [path for path, _ in caught.value.problems] == [name.encode()]
    assert store.repository("photos").branches() == {}


def test_a_link_that_leads_out_is_only_a_link(store: Store) -> None:
    pipe(store, tar_of(member("l", tarfile.SYMTYPE, linkname="../../etc/passwd")))
    entry = at(store, b"l")
    assert entry is not None
    assert entry.target == b"../../etc/passwd"


@pytest.mark.parametrize(
    "bad",
    [
        member("a\0b", pax_headers={"path": "a\0b"}),
        member("d/" + "x" * 256),
        member("l", tarfile.SYMTYPE, pax_headers={"linkpath": "to\0there"}),
        member(".", tarfile.LNKTYPE, linkname="fine"),
        member("."),
        member("./", tarfile.SYMTYPE, linkname="fine"),
    ],
    ids=[
        "NUL in name",
        "name too long",
        "NUL in target",
        "link at root",
        "file at root",
        "symlink",
    ],
)
def test_members_that_no_file_system_can_hold_are_named(store: Store, bad: tarfile.TarInfo) -> None:
    data = tar_of(("fine", b"x"), bad, format=tarfile.PAX_FORMAT)
    with pytest.raises(SourceError):
        pipe(store, data)
    pipe(store, data, skip_errors=True, warn=lambda _: None)
    assert names(store, head(store).root) == [b"fine"]
    assert head(store).root.files == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"pax_headers": {"mtime": "99999999999999999999"}},
        {"pax_headers": {"mtime": "-99999999999999999999.5"}},
        {"pax_headers": {"mtime": "1e5"}},
        {"pax_headers": {"uid": "5000000000", "gid": "99999999999"}},
        {"pax_headers": {"uid": "-1"}},
        {"mtime": 2**62},
        {"uid": 2**40, "gid": 2**55},
        {"mode": 0o7777777},
        {"pax_headers": {"SCHILY.xattr.user.": "x"}},
        {"pax_headers": {"SCHILY.xattr.user." + "k" * 70_000: "x"}},
    ],
    ids=str,
)
def test_numbers_out_of_range_never_stop_an_import(store: Store, fields: dict[str, Any]) -> None:
    form = tarfile.PAX_FORMAT if "pax_headers" in fields else tarfile.GNU_FORMAT
    try:
        pipe(store, tar_of(("a", b"1"), member("odd", **fields), format=form))
    except (InvalidInputError, SourceError):
        assert store.repository("photos").branches() == {}
    else:
        assert names(store, head(store).root) == [b"a", b"odd"]


def test_devices_and_fifos_are_left_out_with_a_warning(store: Store) -> None:
    warnings: list[str] = []
    result = pipe(
        store,
        tar_of(
            ("a", b"1"),
            member("fifo", tarfile.FIFOTYPE),
            member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        ),
        warn=warnings.append,
    )
    assert names(store, head(store).root) == [b"a"]
    assert [path for path, _ in result.skipped] == [b"fifo", b"null"]
    assert len(warnings) == 2


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=pax", "--sparse-version=1.0"]])
def test_a_sparse_tar_gives_a_sparse_file(
    store: Store, source: Path, tmp_path: Path, options: list[str]
) -> None:
    with (source / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(40 << 20)
        file.write(b"middle" * 1000)
        file.truncate(64 << 20)
    (source / "after").write_bytes(b"after")
    archive = tmp_path / "a.tar"
    subprocess.run(["tar", "-S", *options, "-C", str(source), "-cf", str(archive), "."], check=True)
    assert archive.stat().st_size < 1 << 20
    bring(store, archive)
    entry = at(store, b"sparse")
    assert entry is not None
    assert entry.size == 64 << 20
    extents = [extent for _, extent in store.contents.open(entry).extents()]
    assert sum(extent.length for extent in extents if extent.chunk == NO_ID) > 60 << 20
    export(store, head(store).root, tmp_path / "out")
    assert describe(tmp_path / "out", mtimes=False) == describe(source, mtimes=False)


# -- damage ----------------------------------------------------------------------------------------

WHOLE = tar_of(("a", b"1"), ("b", Random(1).randbytes(5000)), ("c", Random(2).randbytes(3000)))
# Each member is a header of 512 bytes and its data in blocks of 512.
CUTS = [1, 511, 512, 700, 1024, 1100, 1536, 2000, 6143, 6656, 6660, 7168, 9000, 10239]


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["tar", "gz"])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("way", ["file", "pipe"])
def test_a_truncated_tar_is_refused_and_nothing_is_published(
    store: Store, source: Path, cut: int, compress: Callable[[bytes], bytes], way: str
) -> None:
    whole = compress(WHOLE)
    data = whole[: cut * len(whole) // len(WHOLE)]
    (source / "a.tar").write_bytes(data)
    with pytest.raises(InvalidInputError):
        # What has no whole header is a file, and no file is a root.
        bring(store, source / "a.tar") if way == "file" else pipe(store, data)
    assert store.repository("photos").branches() == {}


@pytest.mark.parametrize("at_", [1024, 1124, 1024 + 150])
def test_a_damaged_header_in_the_middle_is_not_the_end(store: Store, at_: int) -> None:
    data = bytearray(WHOLE)
    data[at_] ^= 0xFF
    with pytest.raises(InvalidInputError, match="as a tar"):
        pipe(store, bytes(data))
    assert store.repository("photos").branches() == {}


def test_a_damaged_gzip_is_noticed(store: Store) -> None:
    """Its checksum comes last, behind the end of the tar."""
    incompressible = tar_of(("a", Random(3).randbytes(50_000)))
    data = bytearray(gzip.compress(incompressible))
    at_ = data.index(Random(3).randbytes(30_000)[20_000:20_100])
    data[at_] ^= 1
    with pytest.raises(InvalidInputError):
        pipe(store, bytes(data))
    assert store.repository("photos").branches() == {}


@pytest.mark.parametrize(
    "data", [b"", b"not a tar", bytes(100), b"x" * 5000, b"\x1f\x8b", b"\x1f\x8bjunk"]
)
def test_what_is_not_a_tar_is_refused_on_standard_input(store: Store, data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        pipe(store, data)
    assert store.repository("photos").branches() == {}


def test_an_empty_tar_is_an_empty_folder(store: Store) -> None:
    pipe(store, tar_of())
    assert names(store, head(store).root) == []


def test_there_must_be_a_standard_input(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="standard input"):
        bring(store, "-")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("size", [512, 10_240, 3 << 20])
def test_a_file_of_zeros_is_a_file(
    store: Store, source: Path, size: int, compress: Callable[[bytes], bytes]
) -> None:
    data = compress(bytes(size))  # Once: gzip writes the time of day into it.
    (source / "zeros").write_bytes(data)
    bring(store, source / "zeros", path=b"z")
    assert content(store, b"z") == data


def test_a_tar_replaces_what_is_at_its_path(store: Store, source: Path) -> None:
    fill(source, {"a": b"1", "p/old": b"2"})
    bring(store, source)
    pipe(store, tar_of(("new", b"3")), path=b"p")
    assert names(store, head(store).root) == [b"a", b"p", b"p/new"]
    pipe(store, tar_of(("newer", b"4")), path=b"p", keep=True)
    assert names(store, head(store).root) == [b"a", b"p", b"p/new", b"p/newer"]


def test_a_large_member_is_a_stream(store: Store) -> None:
    data = Random(9).randbytes(9_000_000)
    pipe(store, tar_of(("big", data), ("small", b"s")))
    assert content(store, b"big") == data
    with pytest.raises(InvalidInputError):
        pipe(store, tar_of(("big", data), ("small", b"s"))[:5_000_000])


def test_more_members_than_are_sorted_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("versionfs.transfer.tarball._SORTED_AT_ONCE", 50)
    members = [(f"d{i % 9}/f{i}", b"%d" % i) for i in range(400)]
    pipe(store, tar_of(*members, *[(f"d1/f{i}", b"last") for i in (1, 10)]))
    assert head(store).root.files == 400
    assert content(store, b"d1/f10") == b"last"
    assert content(store, b"d2/f11") == b"11"


def test_what_lies_below_a_file_of_the_same_tar_is_named(store: Store) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("a", "a/b"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    archive.seek(0)
    warnings: list[str] = []
    result = bring(store, "-", stdin=archive, warn=warnings.append)
    assert [path for path, _ in result.skipped] == [b"a/b"]
    assert any("a/b" in warning for warning in warnings)
    assert at(store, b"a") is not None


@pytest.mark.parametrize("size", [1, 65_537, 150_000, 196_607, 196_608, 300_000, 5_000_000])
def test_a_file_is_cut_alike_wherever_it_comes_from(
    store: Store, source: Path, tmp_path: Path, size: int
) -> None:
    (source / "f").write_bytes(Random(size).randbytes(size))
    os.utime(source / "f", ns=(LONG_AGO_NS, LONG_AGO_NS))
    bring(store, source, branch="folder")
    found = at(store, b"f", "folder")
    assert found is not None
    assert found.kind == (Kind.FILE if size < 196_608 else Kind.LARGE)
    data = tar_of(("f", (source / "f").read_bytes()))
    (tmp_path / "a.tar").write_bytes(data)
    bring(store, tmp_path / "a.tar", branch="tar")
    pipe(store, data, branch="pipe")
    for branch in ("tar", "pipe"):
        other = at(store, b"f", branch)
        assert other is not None
        assert (other.kind, other.content) == (found.kind, found.content)
