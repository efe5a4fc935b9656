"""The object store below a prefix of an S3 bucket.

Atomicity and durability are the server's: a PUT is all there or not at all, and durable when it is
acknowledged. Compare-and-swap is a PUT with ``If-Match`` or ``If-None-Match``; the version of a
mutable object is its ETag. Not every server honours conditions on DELETE, so a conditional removal
is a conditional PUT of *no bytes*, a tombstone. An empty object is therefore no object, to every
method; nothing empty is ever stored.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from versionfs.config import Settings
from versionfs.errors import (
    ConflictError,
    NotFoundError,
    StoragePermanentError,
    StorageTransientError,
)
from versionfs.objectstore.protocol import (
    COMPONENT,
    KEY,
    ObjectInfo,
    RequestStatistics,
    Version,
    validate_key,
    validate_prefix,
)
from versionfs.objectstore.retry import AttemptFailedError, Retries
from versionfs.objectstore.s3body import check_range, read_body, read_body_into
from versionfs.objectstore.s3client import S3Requests
from versionfs.objectstore.s3errors import (
    ConditionFailedError,
    NotModifiedError,
    OutOfRangeError,
)
from versionfs.objectstore.s3upload import PART_BYTES, upload_parts
from versionfs.objectstore.temporary import clean_temporary

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

MULTIPART_BYTES: Final = 4 * PART_BYTES
_ROUNDS: Final = 10


class S3Store:
    """Objects in ``bucket`` whose keys begin with ``prefix`` and a slash, if there is a prefix.

    Finished files wait in ``cache_dir/tmp``. No request is sent before the first method is called.
    """

    def __init__(
        self, bucket: str, prefix: str, settings: Settings, *, retries: Retries | None = None
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._settings = settings
        self._requests = S3Requests(self.url, bucket, settings)
        self._retries = retries or Retries(self.url, settings.timeout_seconds)

    @property
    def is_local(self) -> bool:
        """See ``ObjectStore.is_local``."""
        return False

    @property
    def url(self) -> str:
        """The bucket and prefix as an ``s3://`` URL."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def __repr__(self) -> str:
        return f"S3Store({self.url!r})"

    def statistics(self) -> RequestStatistics:
        """See ``ObjectStore.statistics``."""
        requests, received, sent = self._requests.counts()
        return RequestStatistics(
            requests, received, sent, self._retries.retries, self._retries.failures
        )

    # -- reading ---------------------------------------------------------------------------------

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """See ``ObjectStore.get``."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"negative range: start {start}, length {length}")
        if length == 0:
            self.size(key)
            return b""
        try:
            if start == 0 and length is None:
                return self._read(key)[0]
            data = self._get_range(key, start, length)
        except OutOfRangeError:
            self.size(key)  # a range of a tombstone is out of range as well
            return b""
        assert isinstance(data, bytes)
        return data

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """See ``ReadsInto.read_into``."""
        if start < 0 or not buffer:
            raise ValueError(f"a range of {len(buffer)} bytes at {start}")
        try:
            count = self._get_range(key, start, len(buffer), buffer)
        except OutOfRangeError:
            self.size(key)
            return 0
        assert isinstance(count, int)
        return count

    def size(self, key: str) -> int:
        """See ``ObjectStore.size``."""
        name = self._name(key)
        found = self._retries.run(
            f"HEAD {key}",
            lambda: self._requests.send(
                "head", key, lambda client: client.head_object(Bucket=self._bucket, Key=name)
            ),
        )
        if not found["ContentLength"]:
            raise self._no_object(key)
        return found["ContentLength"]

    def read(self, key: str) -> tuple[bytes, Version]:
        """See ``ObjectStore.read``."""
        return self._read(key)

    def read_if_changed(self, key: str, known: Version) -> tuple[bytes, Version] | None:
        """See ``ObjectStore.read_if_changed``: one conditional GET."""
        try:
            return self._read(key, IfNoneMatch=known)
        except NotModifiedError:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``; a request for each 1,000 objects, when they are asked for."""
        validate_prefix(prefix)
        return self._list(prefix)

    def folders(self, prefix: str) -> Sequence[str]:
        """See ``ObjectStore.folders``."""
        validate_prefix(prefix)
        below = len(self._prefix + prefix)
        names = [
            found["Prefix"][below:-1]
            for page in self._pages(prefix, Delimiter="/")
            for found in page.get("CommonPrefixes", ())
        ]
        return sorted(name for name in names if COMPONENT.fullmatch(name) is not None)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        for page in self._pages(prefix):
            for found in page.get("Contents", ()):
                key = found["Key"].removeprefix(self._prefix)
                if found["Size"] and KEY.fullmatch(key):
                    written = found["LastModified"]
                    mtime_ns = int(written.timestamp()) * 10**9 + written.microsecond * 1000
                    yield ObjectInfo(key, found["Size"], mtime_ns, found["ETag"])

    def _pages(self, prefix: str, **options: Any) -> Iterator[ListObjectsV2OutputTypeDef]:
        more: dict[str, Any] = {}
        while True:
            asked = options | more
            page = self._retries.run(f"LIST {prefix}", partial(self._page, prefix, asked))
            yield page
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": page.get("NextContinuationToken")}
            if following == more or None in following.values():
                raise StoragePermanentError(f"the server of {self.url} does not go on listing")
            more = following

    def _page(self, prefix: str, more: dict[str, Any]) -> ListObjectsV2OutputTypeDef:
        return self._requests.send(
            "list",
            prefix,
            lambda client: client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix + prefix, **more
            ),
        )

    def _read(self, key: str, **condition: Any) -> tuple[bytes, Version]:
        data, version = self._retries.run(f"GET {key}", lambda: self._read_once(key, **condition))
        if not data:
            raise self._no_object(key)
        return data, version

    def _read_once(self, key: str, **condition: Any) -> tuple[bytes, Version]:
        """Reads an object with one request; a tombstone is empty."""
        name = self._name(key)

        def fetch(client: S3Client) -> tuple[bytes, Version]:
            reply = client.get_object(Bucket=self._bucket, Key=name, **condition)
            return self._body(reply), Version(reply["ETag"])

        return self._requests.send("get", key, fetch)

    def _get_range(
        self, key: str, start: int, length: int | None, buffer: memoryview | None = None
    ) -> bytes | int:
        """Reads a range with one request: the bytes, or into a buffer; then, how many that were."""
        name = self._name(key)
        last = "" if length is None else str(start + length - 1)

        def fetch(client: S3Client) -> bytes | int:
            reply: Any = client.get_object(
                Bucket=self._bucket, Key=name, Range=f"bytes={start}-{last}"
            )
            said = reply.get("ContentRange")
            if said is not None and buffer is not None:
                count = read_body_into(reply, buffer, self._requests.idle_seconds)
                if count is not None:
                    self._requests.received(count)
                    check_range(said, start, length, count)
                    return count
            data = self._body(reply)
            if said is not None:
                check_range(said, start, length, len(data))
            elif not data or start >= len(data):  # the server knows no ranges, and sent all
                raise OutOfRangeError
            else:
                data = data[start:] if length is None else data[start : start + length]
            if buffer is None:
                return data
            buffer[: len(data)] = data
            return len(data)

        return self._retries.run(f"GET {key}", lambda: self._requests.send("get", key, fetch))

    def _body(self, reply: Any) -> bytes:
        data = read_body(reply, self._requests.idle_seconds)
        self._requests.received(len(data))
        return data

    # -- writing ---------------------------------------------------------------------------------

    def put(self, key: str, data: bytes | memoryview) -> None:
        """See ``ObjectStore.put``: the object is written, whether it is there or not."""
        body = bytes(data)
        if not body:
            raise ValueError(f"an object is not empty: {key}")
        self._retries.run(f"PUT {key}", lambda: self._put_once(key, body))

    def put_file(self, key: str, path: Path) -> None:
        """See ``ObjectStore.put_file``; streamed, from 64 MiB on in parts that go in parallel."""
        name = self._name(key)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                raise ValueError(f"an object is not empty: {key}")
            if size >= MULTIPART_BYTES:
                upload_parts(self._requests, self._retries, key, name, file.fileno(), size)
            else:
                checksum = _checksum(hashlib.file_digest(file, _md5).digest())

                def attempt(client: S3Client) -> None:
                    file.seek(0)
                    client.put_object(
                        Bucket=self._bucket,
                        Key=name,
                        Body=file,
                        ContentLength=size,
                        ContentMD5=checksum,
                    )

                self._retries.run(
                    f"PUT {key}", lambda: self._requests.send("put", key, attempt, sends=size)
                )
        path.unlink(missing_ok=True)

    def replace(self, key: str, data: bytes, expected: Version | None) -> Version:
        """See ``ObjectStore.replace``.

        A PUT that was tried again may have been done the first time, and then fails because of
        itself. So whoever is told that the race is lost reads what is there: refs hold a nonce,
        and only their own writer can have written the same bytes. Where two requests met (409) and
        nothing has changed, nothing is decided: the other one may be our own, given up and still
        under way.
        """
        if not data:
            raise ValueError(f"an object is not empty: {key}")
        condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": str(expected)}
        maybe_done = False

        def attempt() -> Version:
            nonlocal maybe_done, condition
            for _ in range(_ROUNDS):
                try:
                    return self._put_once(key, data, **condition)
                except AttemptFailedError as failure:
                    maybe_done = maybe_done or failure.maybe_done
                    raise
                except ConditionFailedError as lost:
                    conflict, cause = self._conflict(key, expected), lost
                if expected is not None and not maybe_done and not cause.met:
                    break
                found = self._look(key)
                if found is not None and maybe_done and found[0] == data:
                    return found[1]
                if expected is None:
                    is_as_expected = found is None or not found[0]
                else:
                    is_as_expected = found is not None and found[1] == expected
                if cause.met and is_as_expected:
                    raise _met() from cause
                if expected is not None or found is None or found[0]:
                    break
                condition = {"IfMatch": found[1]}  # a tombstone, which is nothing
            raise conflict from cause

        try:
            return self._retries.run(f"PUT {key}", attempt)
        except StorageTransientError as error:
            if not maybe_done:
                raise
            raise _unknown(error, f"{key} was written") from error

    def remove(self, key: str, expected: Version | None = None) -> None:
        """See ``ObjectStore.remove``; with ``expected`` it leaves a tombstone."""
        if expected is not None:
            self._bury(key, expected)
            return
        name = self._name(key)
        self.size(key)  # DELETE does not tell whether there was anything
        self._retries.run(
            f"DELETE {key}",
            lambda: self._requests.send(
                "delete", key, lambda client: client.delete_object(Bucket=self._bucket, Key=name)
            ),
        )

    def _bury(self, key: str, expected: Version) -> None:
        maybe_done = False

        def attempt() -> None:
            nonlocal maybe_done
            try:
                self._put_once(key, b"", IfMatch=expected)
            except AttemptFailedError as failure:
                maybe_done = maybe_done or failure.maybe_done
                raise
            except ConditionFailedError as error:
                found = self._look(key)
                if found is not None and found[0]:
                    if error.met and found[1] == expected:
                        raise _met() from error
                    raise self._conflict(key, expected) from error
                if not maybe_done:
                    raise self._no_object(key) from error

        try:
            self._retries.run(f"DELETE {key}", attempt)
        except StorageTransientError as error:
            if not maybe_done:
                raise
            raise _unknown(error, f"{key} was removed") from error

    def temporary(self) -> Path:
        """See ``ObjectStore.temporary``; this is ``tmp`` in the cache folder, for all stores."""
        folder = self._settings.cache_dir / "tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(folder, error) from error
        return folder

    def clean_temporary(self) -> int:
        """Removes the temporary files of writers that died; returns how many. Harmless."""
        folder = self._settings.cache_dir / "tmp"
        try:
            return clean_temporary(folder)
        except OSError as error:
            raise _unusable(folder, error) from error

    # -- parts -----------------------------------------------------------------------------------

    def _name(self, key: str) -> str:
        return self._prefix + validate_key(key)

    def _put_once(self, key: str, data: bytes, **condition: str) -> Version:
        name = self._name(key)
        checksum = _checksum(_md5(data).digest())

        def put(client: S3Client) -> str:
            reply = client.put_object(
                Bucket=self._bucket,
                Key=name,
                Body=data,
                ContentMD5=checksum,
                **condition,  # type: ignore[arg-type]
            )
            return reply["ETag"]

        return Version(
            self._requests.send("put", key, put, sends=len(data), conditional=bool(condition))
        )

    def _look(self, key: str) -> tuple[bytes, Version] | None:
        """Returns what is there, with one request; a tombstone is empty, nothing is None."""
        try:
            return self._read_once(key)
        except NotFoundError:
            return None

    def _no_object(self, key: str) -> NotFoundError:
        return NotFoundError(f"the store {self.url} has no object {key}")

    def _conflict(self, key: str, expected: Version | None) -> ConflictError:
        if expected is None:
            return ConflictError(f"{key} exists already: someone else made it")
        return ConflictError(f"{key} was changed by someone else")


def _md5(data: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)


def _checksum(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def _met() -> AttemptFailedError:
    return AttemptFailedError("another request came in between", reached=True, maybe_done=False)


def _unknown(error: StorageTransientError, what: str) -> StorageTransientError:
    """Returns an error that does not let people believe that nothing happened."""
    return StorageTransientError(
        f"{error.message}; it is not known whether {what}",
        hint=f"look when the server answers again; {error.hint}",
    )


def _unusable(folder: Path, error: OSError) -> StoragePermanentError:
    reason = (error.strerror or str(error)).lower()
    return StoragePermanentError(
        f"the folder for files on their way to the store, {folder}, cannot be used: {reason}",
        hint="cache_dir in config.toml says where it is",
    )
