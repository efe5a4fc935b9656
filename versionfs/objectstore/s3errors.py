"""The one table from what boto3 raises to versionfs's error tree.

Messages never repeat what boto3 says of credentials or of requests: only codes, and what a server
says of permissions. Endpoints in them were checked to hold no password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from versionfs.errors import (
    InvalidInputError,
    NotFoundError,
    ReadOnlyError,
    StorageAuthError,
    StorageMissingError,
    StoragePermanentError,
)
from versionfs.objectstore.retry import AttemptFailedError, UnusualAnswerError


class ConditionFailedError(UnusualAnswerError):
    """The object is not what If-Match or If-None-Match asked for: somebody else was faster.

    ``met`` tells that two requests met (409), and the other one may have come to nothing.
    """

    def __init__(self, *, met: bool = False) -> None:
        super().__init__()
        self.met = met


class NotModifiedError(UnusualAnswerError):
    """The object is still the one that the reader has."""


class OutOfRangeError(UnusualAnswerError):
    """The range lies behind the end of the object, or the object is empty."""


class CredentialsRefusedError(StorageAuthError):
    """The credentials themselves are wrong or too old; newer ones may be at hand."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of the server, for messages, and how refusals of it are to be read."""

    url: str
    bucket: str
    endpoint: str
    key: str
    writing: bool
    conditional: bool


_PASSING: Final = frozenset(
    {
        "BadDigest",
        "BandwidthLimitExceeded",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_NOT_DONE: Final = frozenset({"BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch"})
_BAD_CREDENTIALS: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "InvalidClientTokenId",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
_WRONG_REGION: Final = frozenset(
    {"PermanentRedirect", "IllegalLocationConstraintException", "AuthorizationHeaderMalformed"}
)
# The server was not asked: nothing can have been done.
_NOT_CONNECTED: Final = (
    boto.EndpointConnectionError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
)
_NO_CREDENTIALS: Final = (
    boto.NoCredentialsError,
    boto.NoAuthTokenError,
    boto.PartialCredentialsError,
)
_UNUSABLE_CREDENTIALS: Final = (
    boto.CredentialRetrievalError,
    boto.LoginError,
    boto.MetadataRetrievalError,
    boto.SSOError,
    boto.TokenRetrievalError,
)
_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}")


def translate(error: Exception, asked: Asked) -> Exception | None:
    """Returns what a failed request means; None for what is a fault of versionfs itself."""
    if isinstance(error, boto.ClientError):
        return _from_reply(error, asked)
    if isinstance(error, boto.SSLError):
        return StoragePermanentError(
            f"the server of {asked.url} at {asked.endpoint} cannot prove who it is: "
            f"{_system_reason(error) or 'its certificate is not accepted'}",
            hint="AWS_CA_BUNDLE names the file with the certificates to accept",
        )
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError | HTTPError | OSError):
        return AttemptFailedError(
            f"{_transport_reason(error)} at {asked.endpoint}",
            reached=isinstance(error, boto.ResponseStreamingError),
            maybe_done=not isinstance(error, _NOT_CONNECTED),
        )
    if isinstance(error, boto.IncompleteReadError | ResponseParserError):
        return AttemptFailedError("the reply was cut short", reached=True, maybe_done=True)
    return from_configuration(error, asked.url)


def from_configuration(error: Exception, url: str) -> Exception | None:
    """Returns what an error means that came before any request was sent."""
    if isinstance(error, _NO_CREDENTIALS):
        return StorageAuthError(
            f"there are no credentials for {url}",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run "
            "`aws configure`",
        )
    if isinstance(error, _UNUSABLE_CREDENTIALS):
        return StorageAuthError(
            f"the credentials for {url} cannot be had: {type(error).__name__}",
            hint="log in again (`aws sso login`), or look at ~/.aws/config",
        )
    if isinstance(error, boto.ProfileNotFound):
        return StorageAuthError(
            f"the AWS profile asked for is not configured, so {url} cannot be opened",
            hint="check AWS_PROFILE and ~/.aws/config",
        )
    if isinstance(error, boto.BotoCoreError):
        return InvalidInputError(
            f"boto3 does not accept its settings for {url}: {type(error).__name__}",
            hint="check --s3-endpoint, the AWS_… variables and ~/.aws/config",
        )
    return None


def _from_reply(error: boto.ClientError, asked: Asked) -> Exception:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code", ""))
    if _CODE.fullmatch(code) is None:
        code = "no code"
    if status == 304:
        return NotModifiedError()
    if status == 416:
        return OutOfRangeError()
    if code == "NoSuchBucket":
        return StorageMissingError(
            f"there is no bucket {asked.bucket!r} at {asked.endpoint}",
            hint="make it first, or check the name and --s3-endpoint",
        )
    if asked.conditional and status in (404, 409, 412):
        return ConditionFailedError(met=status == 409)
    if status in (500, 502, 503, 504, 408, 409, 429) or code in _PASSING:
        return AttemptFailedError(
            f"the server answered {status} {code}", reached=True, maybe_done=code not in _NOT_DONE
        )
    if status == 404:
        return NotFoundError(f"the store {asked.url} has no object {asked.key}")
    if code in _BAD_CREDENTIALS:
        return CredentialsRefusedError(
            f"the server of {asked.url} refused the credentials: {code}",
            hint="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or "
            "AWS_PROFILE",
        )
    if status in (301, 307) or code in _WRONG_REGION:
        return _wrong_region(error, asked)
    if code == "RequestTimeTooSkewed":
        return StorageAuthError(
            f"the server of {asked.url} refused the request: the clock of this machine is wrong",
            hint="set the clock",
        )
    if code in ("400", "403"):  # a HEAD, whose reply has no body: nobody says what is wrong
        return CredentialsRefusedError(
            f"the store {asked.url} refused a request: {code} ({asked.key})",
            hint="check the credentials: AWS_ACCESS_KEY_ID and the like, or AWS_PROFILE",
        )
    if status in (401, 403):
        return _forbidden(code, asked)
    return StoragePermanentError(
        f"the server of {asked.url} refused a request: {status} {code} ({asked.key})",
        hint="a server that lacks part of the S3 protocol cannot hold a store"
        if status in (405, 501)
        else "check the bucket, and the rights of the credentials",
    )


def _forbidden(code: str, asked: Asked) -> Exception:
    rights = "s3:GetObject and s3:ListBucket"
    if asked.writing:
        return ReadOnlyError(
            f"the store {asked.url} cannot be written with these credentials: {code} ({asked.key})",
            hint=f"they need {rights}, and s3:PutObject and s3:DeleteObject to write",
        )
    return StorageAuthError(
        f"the store {asked.url} cannot be read with these credentials: {code} ({asked.key})",
        hint=f"they need {rights}",
    )


def _wrong_region(error: boto.ClientError, asked: Asked) -> Exception:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    known = isinstance(region, str) and _CODE.fullmatch(region.replace("-", "")) is not None
    return StoragePermanentError(
        f"the bucket {asked.bucket!r} is in another region" + (f": {region}" if known else ""),
        hint=f"set AWS_DEFAULT_REGION{f'={region}' if known else ''}",
    )


def _transport_reason(error: Exception) -> str:
    if isinstance(error, boto.ConnectTimeoutError):
        return "no connection in time"
    if isinstance(error, boto.ReadTimeoutError):
        return "no answer in time"
    if isinstance(error, boto.ResponseStreamingError):
        return "the reply was cut short"
    return _system_reason(error) or "the connection was lost"


def _system_reason(error: BaseException) -> str | None:
    """Returns what the operating system said, from the errors that led to this one."""
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        found = pending.pop()
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, OSError) and found.strerror and not isinstance(found, boto.SSLError):
            return found.strerror.lower()
        inner = getattr(found, "kwargs", {}).get("error")
        pending += [found.__context__, found.__cause__, inner, *found.args]
    return None
