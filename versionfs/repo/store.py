"""An open store: what all else is reached through."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from versionfs import chunkstore
from versionfs.chunking import DEFAULT_CHUNKING, BlockCodec, ChunkingParameters
from versionfs.chunkstore import (
    DirectSource,
    MetadataReader,
    MetadataWriter,
    OpenPackSource,
    PackReader,
    PackSource,
    SegmentWriter,
    in_order,
    sync_index,
)
from versionfs.config import Settings
from versionfs.digests import blake2b
from versionfs.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    StorageTransientError,
    UnsupportedFormatError,
    VersionFSError,
)
from versionfs.index import ChunkIndex, Environment, KnownRefs, NodePlaces, SourceCache
from versionfs.objectstore import (
    LocalStore,
    ObjectStore,
    is_scratch,
    open_object_store,
    probe_conditional_writes,
)
from versionfs.objectstore.naming import new_ulid
from versionfs.repo.commits import CommitReader
from versionfs.repo.format import FORMAT_KEY, StoreFormat
from versionfs.repo.history import ancestors
from versionfs.repo.keys import KINDS, ROOT, marker_of
from versionfs.repo.refcache import RefCache
from versionfs.repo.refs import Refs
from versionfs.repo.repository import Repository
from versionfs.repo.revisions import suggest
from versionfs.repo.spec import validate_name
from versionfs.repo.statistics import StoreStatistics, TransferStatistics
from versionfs.tree import Contents, Trees
from versionfs.types import PackId

log = logging.getLogger(__name__)

_METADATA_BLOCKS_BYTES: Final = 4 * 1024 * 1024
_AT_ONCE: Final = 8
"""Requests that remove refs at the same time."""


class Store:
    """An open store with its index and readers. Thread-safe, except ``close``."""

    def __init__(self, settings: Settings, objects: ObjectStore, store_format: StoreFormat) -> None:
        self.settings = settings
        self.objects = objects
        self.format = store_format
        self.environment = Environment(
            settings.cache_dir / "index" / _index_name(objects, store_format)
        )
        self.index = ChunkIndex(self.environment)
        self.node_places = NodePlaces(self.index)
        self.sources = SourceCache(self.environment)
        self.source = _pack_source(settings, objects)
        self.packs = PackReader(self.source, settings.block_cache_bytes)
        # Of its own, and small: decoded nodes are cached above it, and a walk over a million
        # folders must not fill the cache of file data with their blocks.
        self.metadata = MetadataReader(PackReader(self.source, _METADATA_BLOCKS_BYTES))
        self.trees = Trees(self.metadata, settings.node_cache_bytes)
        self.contents = Contents(self.metadata, self.packs)
        self.commits = CommitReader(self.metadata)
        self.refcache = RefCache(objects, KnownRefs(self.environment))
        self.refs = Refs(self.refcache)
        self.codec = BlockCodec(settings.compression_level)

    @property
    def id(self) -> str:
        """The store's id, made when it was created."""
        return self.format.store_id

    @property
    def url(self) -> str:
        """Where the store is, for messages."""
        return self.objects.url

    @property
    def chunking(self) -> ChunkingParameters:
        """The chunk sizes of the store."""
        return self.format.chunking

    @classmethod
    def open(cls, settings: Settings) -> Store:
        """Opens an existing store.

        Raises:
            NotFoundError: there is nothing at that place.
            UnsupportedFormatError: what is there is not a store, or a newer one.
            CorruptionError: its format file is damaged.
        """
        objects = open_object_store(settings)
        try:
            data = _read_format(settings, objects)
        except NotFoundError as error:
            if not _is_taken(objects):
                raise NotFoundError(
                    f"there is no store at {settings.store}",
                    hint=f"make one with `versionfs --store {settings.store} init`",
                ) from error
            try:
                data = _read_format(settings, objects)  # somebody may have made it just now
            except NotFoundError:
                raise UnsupportedFormatError(
                    f"{settings.store} is not a versionfs store",
                    hint="name another place with --store or VERSIONFS_STORE",
                ) from error
        return cls(settings, objects, StoreFormat.decode(data, settings.store))

    @classmethod
    def create(cls, settings: Settings, chunking: ChunkingParameters | None = None) -> Store:
        """Makes a new store and opens it.

        Raises:
            AlreadyExistsError: there is one, or other files are in the way.
            StoragePermanentError: the server lacks conditional writes.
        """
        objects = open_object_store(settings)
        if _is_taken(objects):
            with contextlib.suppress(NotFoundError):
                objects.size(FORMAT_KEY)
                raise AlreadyExistsError(f"there is a store at {settings.store} already")
            raise AlreadyExistsError(
                f"{settings.store} is not empty", hint="name a new or empty place"
            )
        if not objects.is_local:
            probe_conditional_writes(objects)
        store_format = StoreFormat(new_ulid(), chunking or DEFAULT_CHUNKING)
        try:
            objects.replace(FORMAT_KEY, store_format.encode(), None)
        except ConflictError as error:
            raise AlreadyExistsError(f"there is a store at {settings.store} already") from error
        return cls(settings, objects, store_format)

    @classmethod
    def open_or_create(cls, settings: Settings) -> Store:
        """Opens the store, making it first when there is none."""
        try:
            return cls.open(settings)
        except NotFoundError:
            with contextlib.suppress(AlreadyExistsError):
                return cls.create(settings)
            return cls.open(settings)

    def close(self) -> None:
        """Ends what is being fetched and closes the index; idempotent."""
        try:
            self.source.close()
            with contextlib.suppress(VersionFSError):
                self.index.flush()
        finally:
            self.environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def segment_writer(self) -> SegmentWriter:
        """Returns a new collector of pack indexes, to be published before the ref that needs them.

        Writers of chunks and of metadata fill it.
        """
        return SegmentWriter(self.objects, self.index)

    def metadata_writer(
        self, *, uploads: Executor | None = None, segments: SegmentWriter | None = None
    ) -> MetadataWriter:
        """Returns a new writer of trees and commits; see :class:`MetadataWriter`."""
        source = self.source
        return MetadataWriter(
            self.objects,
            self.index,
            self.node_places,
            self.codec,
            uploads=uploads,
            segments=segments,
            adopt=_adopt_into(source),
        )

    def sync_index(self, *, quick: bool = False, ahead: bool = False) -> int:
        """Brings the index in line with the packs in the store; returns how many were added.

        ``quick`` leaves what is as it was within the last hour, by its folder, where it is;
        ``ahead`` does nothing where that would take long all the same.
        """
        connections = self.settings.s3_connections
        return sync_index(
            self.objects, self.index, connections=connections, quick=quick, ahead=ahead
        )

    # Repositories

    def repositories(self) -> list[str]:
        """Returns the names of all repositories, sorted."""
        return self.refcache.repositories()

    def _exists(self, name: str) -> bool:
        return self.refcache.exists(marker_of(name))

    def repository(self, name: str) -> Repository:
        """Returns a repository.

        Raises:
            NotFoundError: there is none of that name; the hint says which there are.
        """
        validate_name("repository", name)
        if not self._exists(name):
            raise NotFoundError(
                f"there is no repository {name!r} in {self.settings.store}",
                hint=suggest("repository", name, self.repositories()),
            )
        return Repository(self, name)

    def create_repository(self, name: str) -> Repository:
        """Makes an empty repository.

        Raises:
            AlreadyExistsError: the name is taken.
            InvalidInputError: it is not a repository name.
        """
        validate_name("repository", name)
        value = {"created_ns": time.time_ns(), "nonce": new_ulid(), "version": 1}
        try:
            self.refcache.replace(marker_of(name), json.dumps(value).encode() + b"\n", None)
        except ConflictError as error:
            raise AlreadyExistsError(f"there is a repository {name!r} already") from error
        return Repository(self, name)

    def ensure_repository(self, name: str) -> None:
        """Makes a repository unless there is one; any number of writers may at once."""
        try:
            self.refcache.read(marker_of(name), fresh=True)
        except NotFoundError:
            with contextlib.suppress(AlreadyExistsError):
                self.create_repository(name)

    def delete_repository(self, name: str) -> None:
        """Removes a repository with its branches, tags and reflog.

        The marker goes last, when no branch and no tag is left: a crash, or who commits meanwhile,
        leaves a repository that can be deleted again, never old branches that come back with a new
        repository of the same name. Refs that were made just before it went are removed after it.

        Raises:
            NotFoundError: there is none of that name.
        """
        self.repository(name)
        marker = marker_of(name)
        keys = [
            info.key for info in self.objects.list(f"{ROOT}{name}/") if info.key != marker
        ] or self._ref_keys(name)
        while keys:
            for _ in in_order(self._remove_ref, keys, 1 if self.objects.is_local else _AT_ONCE):
                pass
            keys = self._ref_keys(name)
        self.refcache.remove(marker)
        for key in self._ref_keys(name):
            with contextlib.suppress(NotFoundError, ConflictError):
                _, version = self.refcache.read(key, fresh=True)
                if self.refcache.has_marker(name):
                    break  # It was made anew; what is there now may be of the new one.
                self.refcache.remove(key, version)

    def _remove_ref(self, key: str) -> None:
        with contextlib.suppress(NotFoundError):
            self.refcache.remove(key)

    def _ref_keys(self, name: str) -> list[str]:
        """Returns the keys of the branches and tags that a repository has now."""
        folders = [f"{ROOT}{name}/{kind}/" for kind in KINDS]
        return [info.key for folder in folders for info in self.objects.list(folder)]

    def transfers(self) -> TransferStatistics:
        """Returns what was asked of the store's server since it was opened; any thread."""
        return _transfers(self.objects, self.source)

    def statistics(self) -> StoreStatistics:
        """Returns what the store holds; reads all commits and the index."""
        self.sync_index()
        heads = []
        repositories = [self.repository(name) for name in self.repositories()]
        branches = tags = 0
        for repository in repositories:
            found, tagged = repository.branches(), repository.tags()
            branches += len(found)
            tags += len(tagged)
            heads += [ref.commit for ref in (*found.values(), *tagged.values())]
        commits = files = logical = 0
        for commit in ancestors(self.commits, heads):
            commits += 1
            files += commit.root.files
            logical += commit.root.size
        chunks, unique, metadata_packs = self.index.totals()
        sizes = {info.key.rsplit("/", 1)[-1]: info.size for info in self.objects.list("packs/")}
        return StoreStatistics(
            repositories=len(repositories),
            branches=branches,
            tags=tags,
            commits=commits,
            files=files,
            logical_bytes=logical,
            unique_bytes=unique,
            stored_bytes=sum(sizes.values()),
            metadata_bytes=sum(sizes.get(pack.hex(), 0) for pack in metadata_packs),
            chunks=chunks,
            packs=len(sizes),
        )


def _transfers(objects: ObjectStore, source: PackSource) -> TransferStatistics:
    asked = objects.statistics()
    sums = TransferStatistics(
        dict(asked.requests),
        asked.retries,
        asked.failures,
        asked.received_bytes,
        asked.sent_bytes,
    )
    if not source.is_cached:
        return sums
    assert isinstance(source, chunkstore.FetchingSource)
    found, usage = source.statistics(), source.cache.usage()
    return sums._replace(
        memory_hits=found.memory_hits,
        disk_hits=found.disk_hits,
        misses=found.misses,
        prefetched_bytes=found.prefetched_bytes,
        damaged=found.damaged,
        cache_bytes=usage.held_bytes,
        cache_bound_bytes=usage.bound_bytes,
    )


def _index_name(objects: ObjectStore, store_format: StoreFormat) -> str:
    """Returns the folder of a store's index: a copy of a store is another store."""
    return f"{store_format.store_id}-{_place(objects)}"


def _pack_source(settings: Settings, objects: ObjectStore) -> PackSource:
    if objects.is_local:
        return OpenPackSource(objects) if isinstance(objects, LocalStore) else DirectSource(objects)
    # What only these stores need is loaded for them alone.
    bound = settings.cache_bytes
    if bound is None:
        bound = chunkstore.default_cache_bytes(settings.cache_dir)
    cache = chunkstore.DiskCache(settings.cache_dir / "packs", bound)
    return chunkstore.FetchingSource(objects, cache, settings.s3_connections)


def _adopt_into(source: PackSource) -> Callable[[PackId, Path], None] | None:
    """Returns what takes a pack that was written here into the disk cache, if there is one."""
    if not source.is_cached:
        return None
    assert isinstance(source, chunkstore.FetchingSource)
    return source.cache.adopt


def _place(objects: ObjectStore) -> str:
    return blake2b(objects.url.encode(), digest_size=6).hexdigest()


def _read_format(settings: Settings, objects: ObjectStore) -> bytes:
    """Returns the format file; the copy of one, when the store cannot be reached."""
    if objects.is_local:
        return objects.get(FORMAT_KEY)
    copy = settings.cache_dir / "index" / f"{_place(objects)}.json"
    try:
        data = objects.get(FORMAT_KEY)
    except StorageTransientError as error:
        try:
            data = copy.read_bytes()
        except OSError:
            raise error from None
        log.warning("%s cannot be reached; showing what was last seen (%s)", objects.url, error)
        return data
    # A cache: that it cannot be written is no reason to fail.
    with contextlib.suppress(OSError):
        if not copy.exists() or copy.read_bytes() != data:
            copy.parent.mkdir(parents=True, exist_ok=True)
            part = copy.with_suffix(f".{os.getpid()}.part")
            part.write_bytes(data)
            part.replace(copy)
    return data


def _is_taken(objects: ObjectStore) -> bool:
    """Tells whether a place has anything, beside what whoever made a store there left by dying."""
    if isinstance(objects, LocalStore) and objects.is_used():
        return True
    return any(not is_scratch(info.key) for info in objects.list(""))
