"""Reads the bodies of replies, into memory that the caller has where that is possible.

urllib3 and botocore read a body into pages that are new each time, or copy it. What they read from
is a reply of ``http.client``, which reads straight from the socket into a buffer. That takes
attributes that are not part of their promise; where they are not as expected, the body is read in
the ordinary way and copied.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.client import HTTPResponse
from typing import Any, Final

from botocore.exceptions import ReadTimeoutError, ResponseStreamingError
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import ReadTimeoutError as Urllib3TimeoutError

from versionfs.objectstore.retry import AttemptFailedError

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")


def read_body(reply: Any) -> bytes:
    """Returns the body of a reply to GET.

    Raises:
        AttemptFailedError: it ended early.
        Exception: whatever botocore raises when the connection breaks.
    """
    body = reply["Body"]
    try:
        data: bytes = body.read()
    finally:
        body.close()
    _check_length(reply, len(data))
    return data


def read_body_into(reply: Any, buffer: memoryview) -> int | None:
    """Reads the body of a reply to GET into a buffer; returns its length.

    None if this cannot be done: nothing is read then, and :func:`read_body` will do.

    Raises:
        AttemptFailedError, Exception: as :func:`read_body`.
    """
    body = reply["Body"]
    raw: Any = getattr(body, "_raw_stream", None)
    source: Any = getattr(raw, "_fp", None)
    catching: Callable[[], AbstractContextManager[None]] | None
    catching = getattr(raw, "_error_catcher", None)
    length = reply.get("ContentLength")
    if (
        not isinstance(source, HTTPResponse)
        or source.length is None
        or source.length != length
        or length > len(buffer)
        or reply.get("ContentEncoding")
        or catching is None
    ):
        return None
    done = 0
    try:
        with catching():  # gives the connection back, or ends it
            while done < length:
                count = source.readinto(buffer[done:length])
                if not count:
                    break
                done += count
    except Urllib3TimeoutError as error:
        raise ReadTimeoutError(endpoint_url=error.url or "", error=error) from error
    except ProtocolError as error:
        raise ResponseStreamingError(error=error) from error
    finally:
        body.close()
    _check_length(reply, done)
    return done


def check_range(said: str, start: int, length: int | None, received: int) -> None:
    """Checks a Content-Range against what was asked for and what came.

    Raises:
        AttemptFailedError: it is another range, or a part of it.
    """
    match = _CONTENT_RANGE.fullmatch(said)
    if match is not None:
        first, last = int(match[1]), int(match[2])
        ends = [] if match[3] == "*" else [int(match[3]) - 1]
        if length is not None:
            ends.append(start + length - 1)
        if first == start and last - first + 1 == received and last == min(ends, default=last):
            return
    raise AttemptFailedError("the reply is of another range", reached=True, maybe_done=True)


def _check_length(reply: Any, length: int) -> None:
    if length != reply.get("ContentLength", length):
        raise AttemptFailedError("the reply was cut short", reached=True, maybe_done=True)
