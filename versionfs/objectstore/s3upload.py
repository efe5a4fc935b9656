"""Uploads of large files in parts, several at once, each tried again by itself."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from versionfs.errors import NotFoundError, VersionFSError
from versionfs.objectstore.retry import AttemptFailedError, Retries
from versionfs.objectstore.s3client import S3Requests
from versionfs.syscalls import pread_all

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES: Final = 16 * 1024 * 1024
_MOST_PARTS: Final = 10_000
_AT_ONCE: Final = 4


def upload_parts(
    requests: S3Requests, retries: Retries, key: str, name: str, descriptor: int, size: int
) -> None:
    """Uploads the open file of ``size`` bytes as the object ``name``, whole or not at all.

    Holds at most four parts of 16 MiB in memory. What was uploaded of a failed upload is removed,
    as far as the server can be reached; ``key`` is for messages.
    """
    part_bytes = max(PART_BYTES, -(-size // _MOST_PARTS))
    bucket = requests.bucket
    upload = retries.run(
        f"PUT {key}",
        lambda: requests.send(
            "put", key, lambda client: client.create_multipart_upload(Bucket=bucket, Key=name)
        ),
    )["UploadId"]

    def put_part(number: int) -> CompletedPartTypeDef:
        start = (number - 1) * part_bytes
        length = min(part_bytes, size - start)
        data = pread_all(descriptor, length, start)
        if len(data) != length:
            raise ValueError("the file to upload was shortened")
        digest = hashlib.md5(data, usedforsecurity=False).digest()

        def put(client: S3Client) -> str:
            return client.upload_part(
                Bucket=bucket,
                Key=name,
                UploadId=upload,
                PartNumber=number,
                Body=data,
                ContentMD5=base64.b64encode(digest).decode("ascii"),
            )["ETag"]

        etag = retries.run(f"PUT {key}", lambda: requests.send("put", key, put, sends=len(data)))
        return {"PartNumber": number, "ETag": etag}

    try:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="part") as executor:
            try:
                parts = list(executor.map(put_part, range(1, -(-size // part_bytes) + 1)))
            except BaseException:
                executor.shutdown(wait=False, cancel_futures=True)
                raise
        _complete(requests, retries, key, name, upload, parts, size)
    except BaseException:
        with suppress(VersionFSError, AttemptFailedError):
            requests.send(
                "delete",
                key,
                lambda client: client.abort_multipart_upload(
                    Bucket=bucket, Key=name, UploadId=upload
                ),
            )
        raise


def _complete(
    requests: S3Requests,
    retries: Retries,
    key: str,
    name: str,
    upload: str,
    parts: list[CompletedPartTypeDef],
    size: int,
) -> None:
    maybe_done = False

    def attempt() -> None:
        nonlocal maybe_done
        try:
            requests.send(
                "put",
                key,
                lambda client: client.complete_multipart_upload(
                    Bucket=requests.bucket,
                    Key=name,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                ),
            )
        except AttemptFailedError as failure:
            maybe_done = maybe_done or failure.maybe_done
            raise
        except NotFoundError:
            # The upload is over: is it, because only the reply to an attempt was lost?
            if not maybe_done:
                raise
            found = requests.send(
                "head", key, lambda client: client.head_object(Bucket=requests.bucket, Key=name)
            )
            if found["ContentLength"] != size:
                raise

    retries.run(f"PUT {key}", attempt)
