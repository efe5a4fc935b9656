"""Importing what has a mount in it, and what a mount shows."""

from __future__ import annotations

from versionfs.transfer import import_source


def bring(photos, source, **options):
    return import_source(
        photos.store, "copies", "main", b"", source, message="m", author="ada", **options
    )


def names(photos):
    store = photos.store
    root = store.repository("copies").resolve("main", None).root
    return [entry.name for entry in store.trees.entries(root.node)]


def test_a_mount_in_a_source_is_left_out(photos, tmp_path):
    """Or each version would hold all versions before it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(b"x")
    photos.folder = source
    data = photos.mount(name="data")
    assert (data / "photos/main/a.txt").exists()
    warnings: list[str] = []
    result = bring(photos, source, warn=warnings.append)
    assert names(photos) == [b"file"]
    assert result.files == 1
    (warning,) = warnings
    assert "a mount of versionfs" in warning


def test_a_snapshot_in_a_mount_may_be_the_source(photos):
    data = photos.mount()
    result = bring(photos, data / "photos" / "main@v1.0")
    original = photos.photos.resolve(None, "v1.0")
    assert result.commit is not None
    assert result.commit.root.content == original.root.content
    assert result.new_bytes == 0
