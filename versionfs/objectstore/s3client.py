"""Requests to an S3 server by boto3: the client, its settings, what is counted, what errors mean.

boto3 takes a third of a second to import: only who opens an S3 store imports this. Credentials are
boto3's business alone (its whole chain: environment, files, SSO, roles); they are never looked at
here, only compared.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import botocore.session
from boto3.session import Session
from botocore.config import Config
from botocore.utils import parse_timestamp

from versionfs.config import Settings
from versionfs.errors import InvalidInputError, VersionFSError, let_go
from versionfs.objectstore.blocking import may_block
from versionfs.objectstore.retry import AttemptFailedError
from versionfs.objectstore.s3errors import (
    Asked,
    CredentialsRefusedError,
    from_configuration,
    translate,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_CONNECT_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 20.0
_OTHER_CONNECTIONS: Final = 32
"""Connections beside the ``s3_connections`` of bulk reads: uploads, refs, heads."""
_RENEW_SECONDS: Final = 10.0

T = TypeVar("T")


class S3Requests:
    """Sends requests about one bucket, each once. Thread-safe; makes its client when first used."""

    def __init__(self, url: str, bucket: str, settings: Settings) -> None:
        self.url = url
        self.bucket = bucket
        self._settings = settings
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._client: S3Client | None = None
        self._renewed = float("-inf")
        self._counting = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._received = 0
        self._sent = 0

    def send(
        self,
        kind: str,
        key: str,
        call: Callable[[S3Client], T],
        *,
        sends: int = 0,
        conditional: bool = False,
    ) -> T:
        """Returns what the call returns; ``call`` makes one request and reads all of its reply.

        ``kind`` is what the request counts as, ``sends`` its bytes. Credentials that the server
        refuses are looked up anew and tried once more: files may hold newer ones by now.

        Raises:
            AttemptFailedError: another attempt may succeed.
            ConditionFailedError: only if ``conditional``: the server answered 404, 409 or 412.
            NotModifiedError, OutOfRangeError: it answered 304 or 416.
            RuntimeError: this thread may not wait for a server.
        """
        if not may_block():
            raise RuntimeError(f"a request to {self.url} on a thread that must not wait")
        client = self._get_client()
        try:
            return self._send(client, kind, key, call, sends, conditional)
        except CredentialsRefusedError:
            newer = self._renew(client)
            if newer is None:
                raise
            return self._send(newer, kind, key, call, sends, conditional)

    @property
    def idle_seconds(self) -> float:
        """How long a server may send nothing until an attempt has failed."""
        return min(_IDLE_SECONDS, self._settings.timeout_seconds / 3)

    def received(self, size: int) -> None:
        """Counts bytes of a reply's body."""
        with self._counting:
            self._received += size

    def counts(self) -> tuple[dict[str, int], int, int]:
        """Returns the requests by kind, and the bytes of bodies received and sent."""
        with self._counting:
            return dict(self._requests), self._received, self._sent

    def _send(
        self,
        client: S3Client,
        kind: str,
        key: str,
        call: Callable[[S3Client], T],
        sends: int,
        conditional: bool,
    ) -> T:
        with self._counting:
            self._requests[kind] += 1
            self._sent += sends
        try:
            return call(client)
        except (VersionFSError, AttemptFailedError):
            raise
        except Exception as error:
            writing = kind in ("put", "delete")
            asked = Asked(
                self.url, self.bucket, client.meta.endpoint_url, key, writing, conditional
            )
            translated = translate(error, asked)
            if translated is None:
                raise
            let_go(error)
            try:
                raise translated from error
            finally:
                del translated  # It holds this frame.

    def _get_client(self) -> S3Client:
        with self._lock:
            if self._client is None:
                self._session, self._client = self._connect()
            return self._client

    def _renew(self, refused: S3Client) -> S3Client | None:
        """Returns a client with other credentials than those refused, if there are any."""
        with self._lock:
            if self._client is not refused:
                return self._client
            now = time.monotonic()
            if now - self._renewed < _RENEW_SECONDS:
                return None
            self._renewed = now
            session, client = self._connect()
            if self._session is not None and _same_credentials(self._session, session):
                return None
            self._session, self._client = session, client
            return client

    def _connect(self) -> tuple[Session, S3Client]:
        config = Config(
            connect_timeout=min(_CONNECT_SECONDS, self._settings.timeout_seconds / 3),
            read_timeout=self.idle_seconds,
            max_pool_connections=self._settings.s3_connections + _OTHER_CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": 1},
            # Uploads carry a Content-MD5, which every server knows; what is read has its id.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
            user_agent_extra="versionfs",
        )
        try:
            session = _session()
            client: S3Client = session.client(
                "s3", endpoint_url=self._settings.s3_endpoint, config=config
            )
        except ValueError:
            raise InvalidInputError(
                f"the endpoint for {self.url} is not a URL", hint="write http://host:port"
            ) from None  # boto3 repeats it, and it may hold a password
        except Exception as error:
            translated = from_configuration(error, self.url)
            if translated is None:
                raise
            raise translated from error
        parts = urlsplit(client.meta.endpoint_url)
        if parts.username is not None or parts.password is not None:
            raise InvalidInputError(
                f"the endpoint for {self.url} holds a name or password",
                hint="credentials go into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        return session, client


def _session() -> Session:
    """Returns a session of boto3 that parses times fast."""
    core = botocore.session.get_session()
    parsers: Any = core.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_parse_time)
    return Session(botocore_session=core)


def _parse_time(value: Any) -> datetime:
    """Returns a time of a reply. A list holds 1,000; botocore's own way takes 0.15 ms for each."""
    if isinstance(value, str):
        for parse in (datetime.fromisoformat, parsedate_to_datetime):
            with contextlib.suppress(ValueError, TypeError):
                found = parse(value)
                if found.tzinfo is not None:
                    return found
    return parse_timestamp(value)


def _same_credentials(one: Session, other: Session) -> bool:
    with contextlib.suppress(Exception):  # one that cannot be had is not the same
        first, second = one.get_credentials(), other.get_credentials()
        if first is None or second is None:
            return first is second
        return bool(first.get_frozen_credentials() == second.get_frozen_credentials())
    return False
