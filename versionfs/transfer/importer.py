"""Import: from a source to a commit on a branch."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO, Final, NamedTuple

from versionfs.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SourceError,
)
from versionfs.index import IndexDamagedError
from versionfs.objectstore import Version
from versionfs.repo import RefKind, Repository, Store, validate_name, write_commit
from versionfs.transfer.assembler import Assembler
from versionfs.transfer.folder import FolderWalker
from versionfs.transfer.overlay import overlay
from versionfs.transfer.pipeline import ImportProgress, Pipeline
from versionfs.transfer.remembered import RememberedSource
from versionfs.transfer.source import Source
from versionfs.tree import edit_paths, empty_directory, same_entry
from versionfs.types import NO_STAMP, Commit, Entry

log = logging.getLogger(__name__)

_REBASE_ATTEMPTS: Final = 20


class ImportResult(NamedTuple):
    """What an import did.

    ``commit`` is None when the source has nothing new; ``head`` is the branch's head afterwards
    (None for a branch that is not there). ``size_bytes`` are those of all files of the source,
    ``new_bytes`` of the chunks that the store did not have, ``stored_bytes`` what those take in it.
    ``skipped`` has (path, reason) of what was left out.
    """

    commit: Commit | None
    head: Commit | None
    files: int
    size_bytes: int
    files_read: int
    new_bytes: int
    stored_bytes: int
    seconds: float
    skipped: Sequence[tuple[bytes, str]] = ()


class _Target(NamedTuple):
    """Where an import goes and what its commit says."""

    repository: Repository
    branch: str
    path: bytes
    message: str
    author: str
    metadata: Mapping[str, str]


class _Options(NamedTuple):
    """How an import reads its source."""

    keep: bool
    checksum: bool
    skip_errors: bool


def import_source(
    store: Store,
    repository: str,
    branch: str,
    path: bytes,
    source: str | os.PathLike[str],
    *,
    message: str,
    author: str,
    keep: bool = False,
    checksum: bool = False,
    skip_errors: bool = False,
    metadata: Mapping[str, str] | None = None,
    stdin: BinaryIO | None = None,
    progress: Callable[[ImportProgress], None] | None = None,
    warn: Callable[[str], None] = log.warning,
) -> ImportResult:
    """Makes ``path`` on a branch have exactly the content of a source, as one commit.

    Args:
        store: the store.
        repository: the repository; it is made, when it does not exist, as the commit is published.
        branch: the branch; it is made when it does not exist.
        path: where in the tree, ``b""`` for the root.
        source: a folder, a file, a tar, or ``-`` for a tar on ``stdin``.
        message: the commit's message.
        author: the commit's author.
        keep: whether what is at ``path`` but not in the source stays.
        checksum: whether files are read even if size, mtime and inode are as last time.
        skip_errors: whether files that cannot be read are left out with a warning.
        metadata: the commit's key/value metadata.
        stdin: what ``-`` reads.
        progress: is told how far it is, a few times a second.
        warn: is told what is left out.

    Raises:
        InvalidInputError: the source is missing or of no use, or a name is none.
        SourceError: files cannot be read; nothing was published.
        ConflictError: somebody else changed what is at ``path`` meanwhile; nothing was published.
        StorageError: the store cannot be written; nothing was published.
    """
    options = _Options(keep, checksum, skip_errors)
    validate_name("branch", branch)
    validate_name("repository", repository)
    target = _Target(Repository(store, repository), branch, path, message, author, metadata or {})
    try:
        return _import(store, target, source, options, stdin, progress, warn)
    except IndexDamagedError:
        # The index is empty now, and with it goes what was remembered: this time all is read.
        if os.fspath(source) == "-":
            raise
        return _import(store, target, source, options, stdin, progress, warn)


def _import(
    store: Store,
    target: _Target,
    source: str | os.PathLike[str],
    options: _Options,
    stdin: BinaryIO | None,
    progress: Callable[[ImportProgress], None] | None,
    warn: Callable[[str], None],
) -> ImportResult:
    keep, checksum, skip_errors = options.keep, options.checksum, options.skip_errors
    repository, branch, path = target.repository.name, target.branch, target.path
    started = time.monotonic()
    opened = Source.open(source, stdin)
    problems: list[tuple[bytes, str]] = []
    skipped: list[tuple[bytes, str]] = []

    def failed(where: bytes, reason: str) -> None:
        problems.append((where, reason))
        if skip_errors:
            skipped.append((where, reason))
            warn(f"left out: {_show(where)}: {reason}")

    def left_out(where: bytes, reason: str) -> None:
        skipped.append((where, reason))
        warn(f"left out: {_show(where)} is {reason}")

    store.sync_index()
    with ExitStack() as stack:
        stack.callback(opened.close)
        remembered = RememberedSource(store, opened.identity)
        if opened.kind == "folder":
            stack.enter_context(remembered)
            if checksum:
                remembered.tree = None
        head, expected = _head(target)
        pipeline = stack.enter_context(Pipeline(store, failed, progress))
        if progress is not None and opened.kind == "folder":
            _count_in_background(opened.path, pipeline, stack)
        top = _read(store, pipeline, opened, remembered, failed, left_out)
        if problems and (top is None or not skip_errors):
            raise _unreadable(problems)
        assert top is not None
        if not top.is_dir and not path:
            raise InvalidInputError(
                f"{opened.name} is a file, and the root of a repository is a folder",
                hint=f"name where it goes: {repository}/{branch}:{os.path.basename(opened.name)}",
            )
        if keep:
            # What is laid over must be readable first.
            pipeline.metadata.finish()
            top = _resolved(pipeline, top)
        root = _place(store, pipeline, head, top, path, keep=keep)
        commit = None
        if head is None or not same_entry(head.root, root):
            commit = _publish(store, pipeline, target, head, expected, root, top, keep=keep)
        pipeline.metadata.finish()
        pipeline.segments.publish()
        top = _resolved(pipeline, top)
        if opened.kind == "folder":
            remembered.commit(top._replace(name=b""))
    written = pipeline.chunks.statistics()
    return ImportResult(
        commit=commit,
        head=commit or head,
        files=pipeline.files,
        size_bytes=pipeline.bytes,
        files_read=pipeline.files_read,
        new_bytes=written.bytes_new,
        stored_bytes=written.stored_bytes + pipeline.metadata.stored_bytes,
        seconds=time.monotonic() - started,
        skipped=skipped,
    )


def _read(
    store: Store,
    pipeline: Pipeline,
    source: Source,
    remembered: RememberedSource,
    failed: Callable[[bytes, str], None],
    skipped: Callable[[bytes, str], None],
) -> Entry | None:
    """Stores what the source has, and returns its top entry, which may still hold tickets.

    None stands for a single file that could not be read.
    """
    assembler = Assembler(store.trees, pipeline.metadata)
    if source.kind == "tar":
        from versionfs.transfer.tarball import TarImport  # tarfile takes long to import

        assert source.stream is not None
        return TarImport(store, pipeline, assembler, failed, skipped).run(
            source.stream, source.name
        )
    if source.kind == "folder":
        try:
            FolderWalker(store, pipeline, assembler, remembered, failed, skipped).walk(source.path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.EIO, errno.ENOTDIR):
                raise InvalidInputError(
                    f"cannot read {source.name}: {error.strerror}",
                    hint="check the path and the permissions",
                ) from error
            raise
        pipeline.flush()
        assert assembler.root is not None
        return assembler.root
    found: list[Entry] = []
    size = os.stat(source.path).st_size
    path = os.path.realpath(source.path)
    pipeline.file(b"", path, size, lambda entry, _: found.append(entry), lambda: None)
    pipeline.flush()
    return found[0] if found else None


def _place(
    store: Store, pipeline: Pipeline, head: Commit | None, top: Entry, path: bytes, *, keep: bool
) -> Entry:
    """Returns the root folder that has the top entry at the path."""
    old = None if head is None else store.trees.walk_path(head.root, path)
    if keep and top.is_dir and old is not None and old.is_dir:
        top = overlay(store.trees, pipeline.metadata, old, top)
    if not path:
        return top._replace(name=b"")
    now = time.time_ns()
    root = empty_directory(b"", now) if head is None else head.root
    if old is not None and same_entry(old, top._replace(name=old.name), attributes=True):
        return root
    return edit_paths(store.trees, pipeline.metadata, root, {path: top}, made_ns=now)


def _resolved(pipeline: Pipeline, entry: Entry) -> Entry:
    if not entry.is_dir and entry.location is None:
        return entry
    if entry.stamp == bytes(len(entry.stamp)):
        return entry
    return entry._replace(location=pipeline.metadata.resolve(entry.node).location)


def _head(target: _Target) -> tuple[Commit | None, Version | None]:
    store = target.repository.store
    try:
        ref, version = store.refs.read(
            target.repository.name, RefKind.BRANCH, target.branch, fresh=True
        )
    except NotFoundError:
        return None, None
    return store.commits.read(ref.commit), version


def _publish(
    store: Store,
    pipeline: Pipeline,
    target: _Target,
    head: Commit | None,
    expected: Version | None,
    root: Entry,
    top: Entry,
    *,
    keep: bool,
) -> Commit | None:
    """Commits the root; when the branch moved elsewhere meanwhile, on top of where it is now.

    Raises:
        ConflictError: somebody else changed what is at the path.
    """
    began_at = _at_path(store, head, target.path)
    is_new = head is None
    for _ in range(_REBASE_ATTEMPTS):
        # Two commits of one writer never have the same time, nor go back behind their parent.
        now = max(time.time_ns(), 0 if head is None else head.time_ns + 1)
        ref = write_commit(
            pipeline.metadata,
            root=root,
            parents=[] if head is None else [head],
            author=target.author,
            message=target.message,
            time_ns=now,
            metadata=target.metadata,
        )
        pipeline.metadata.finish()
        pipeline.segments.publish()
        ref = pipeline.metadata.resolve(ref)
        if is_new:
            store.ensure_repository(target.repository.name)
        try:
            target.repository.advance(
                target.branch,
                ref,
                expected,
                old=None if head is None else head.ref,
                reason="import",
            )
        except ConflictError:
            head, expected = _head(target)
        else:
            return store.commits.read(ref)
        if _at_path(store, head, target.path) != began_at:
            raise ConflictError(
                f"{target.repository.name}/{target.branch} was changed by someone else while "
                "this import ran; nothing was published",
                hint="look at `versionfs log`, then run the import again: it reads nothing twice",
            )
        top = _resolved(pipeline, top)
        root = _place(store, pipeline, head, top, target.path, keep=keep)
        if head is not None and same_entry(head.root, root):
            return None
    raise ConflictError(
        f"{target.repository.name}/{target.branch} moves too fast for this import",
        hint="run the import again: it reads nothing twice",
    )


def _at_path(store: Store, head: Commit | None, path: bytes) -> Entry | None:
    """Returns what is at the path, as far as ids cover it."""
    entry = None if head is None else store.trees.walk_path(head.root, path)
    if entry is None:
        return None
    return entry._replace(mtime_ns=0, uid=0, gid=0, stamp=NO_STAMP, location=None)


def _unreadable(problems: list[tuple[bytes, str]]) -> SourceError:
    count = len(problems)
    return SourceError(
        f"{count} file{'s' if count != 1 else ''} of the source cannot be read; "
        "nothing was published",
        problems,
        hint="make them readable, or leave them out with --skip-errors",
    )


def _count_in_background(path: bytes, pipeline: Pipeline, stack: ExitStack) -> None:
    """Counts the source's files in a thread, for the time left; stops with the import."""
    stop = threading.Event()
    thread = threading.Thread(
        target=partial(_count, path, pipeline, stop), name="count", daemon=True
    )
    stack.callback(thread.join)
    stack.callback(stop.set)
    thread.start()


def _count(path: bytes, pipeline: Pipeline, stop: threading.Event) -> None:
    files = size = 0
    folders = [path]
    while folders and not stop.is_set():
        try:
            with os.scandir(folders.pop()) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        files += 1
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    if not stop.is_set():
        pipeline.totals = files, size


def _show(path: bytes) -> str:
    return ascii(os.fsdecode(path))[1:-1]
