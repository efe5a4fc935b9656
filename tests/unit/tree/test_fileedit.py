"""An edited file gets the entry that importing the whole new file gives."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.folders import write
from tests.support.stores import at, bring
from versionfs.chunking import DEFAULT_CHUNKING, chunk_id
from versionfs.repo import Store
from versionfs.tree import FileEditor, Kept, StoredFile, recut
from versionfs.types import NO_ID, Extent, Kind

MIB = 1 << 20
HOLE = DEFAULT_CHUNKING.max_bytes
WHOLE = DEFAULT_CHUNKING.whole_bytes
NOISE = random.Random(9).randbytes(3 * MIB)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        pytest.param(b"", b"", Kind.FILE, id="empty"),
        pytest.param(b"", b"x", Kind.FILE, id="first byte"),
        pytest.param(b"x", b"", Kind.FILE, id="emptied"),
        pytest.param(NOISE, b"", Kind.FILE, id="large, emptied"),
        pytest.param(NOISE, NOISE[:65536], Kind.FILE, id="cut to the minimum"),
        pytest.param(NOISE, NOISE[:100], Kind.FILE, id="cut to less"),
        pytest.param(NOISE[:100], NOISE, Kind.LARGE, id="grown"),
        pytest.param(NOISE, NOISE[: WHOLE - 1], Kind.FILE, id="cut to one chunk"),
        pytest.param(NOISE, NOISE[:WHOLE], Kind.LARGE, id="cut to more than one"),
        pytest.param(NOISE[:150_000], b"x" + NOISE[1:150_000], Kind.FILE, id="one chunk"),
        pytest.param(NOISE[: WHOLE - 1], NOISE[:WHOLE], Kind.LARGE, id="more than one chunk"),
        pytest.param(bytes(WHOLE - 1), bytes(WHOLE - 2), Kind.FILE, id="fewer zeros"),
        pytest.param(NOISE, NOISE[:MIB] + b"x" + NOISE[MIB + 1 :], Kind.LARGE, id="one byte"),
        pytest.param(NOISE, NOISE[: 2 * MIB], Kind.LARGE, id="cut short"),
        pytest.param(NOISE, bytes(HOLE), Kind.LARGE, id="one hole"),
        pytest.param(NOISE, bytes(HOLE - 1), Kind.FILE, id="zeros, too few for a hole"),
        pytest.param(bytes(HOLE), bytes(HOLE) + b"x", Kind.LARGE, id="a hole and a byte"),
        pytest.param(bytes(HOLE), b"x" + bytes(HOLE - 1), Kind.FILE, id="a hole that was"),
    ],
)
def test_an_edited_file_has_the_entry_that_an_import_gives(
    store: Store, source: Path, before: bytes, after: bytes, kind: Kind
) -> None:
    write(source / "f", before, mtime_ns=1)
    bring(store, source)
    old = at(store, b"f")
    assert old is not None
    differing = [i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]
    dirty = [(differing[0], differing[-1] + 1)] if differing else []
    writer = store.metadata_writer()
    editor = FileEditor(store.metadata, writer, store.contents, old)
    for piece in recut(
        store.chunking,
        store.contents.open(old),
        len(after),
        dirty,
        lambda offset, length: after[offset : offset + length],
    ):
        if isinstance(piece, Kept):
            editor.keep(piece.start, piece.end)
        else:
            chunk = NO_ID if piece.data is None else chunk_id(piece.data)
            editor.add(Extent(piece.length, chunk, None))
    found = editor.finish()
    writer.abort()

    write(source / "f", after, mtime_ns=2)
    bring(store, source, path=b"again")
    entry = at(store, b"again/f")
    assert entry is not None
    assert found._replace(location=None) == StoredFile.of(entry)._replace(location=None)
    assert found.kind == kind
