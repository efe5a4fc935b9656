"""Reads the bodies of replies, into memory that the caller has where that is possible.

urllib3 and botocore read a body into pages that are new each time, or copy it. What they read from
is a reply of ``http.client``, which reads straight from the socket into a buffer. That takes
attributes that are not part of their promise; where they are not as expected, the body is read in
the ordinary way and copied, and a server that is slow without end is waited for.
"""

from __future__ import annotations

import re
import time
from http.client import HTTPResponse
from typing import Any, Final

from botocore.exceptions import ReadTimeoutError, ResponseStreamingError
from urllib3.exceptions import ProtocolError
from urllib3.exceptions import ReadTimeoutError as Urllib3TimeoutError

from versionfs.objectstore.retry import AttemptFailedError

_LEAST_BYTES: Final = 16 * 1024
"""Of a body, in the time after which a silent server is given up: slower is as good as silent."""
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")


def read_body(reply: Any, window_seconds: float) -> bytes:
    """Returns the body of a reply to GET.

    ``window_seconds`` are the longest that nothing may come; it fails too when almost nothing comes
    in that time.

    Raises:
        AttemptFailedError: it ended early, or comes too slowly.
        Exception: whatever botocore raises when the connection breaks.
    """
    length = reply.get("ContentLength")
    source = _source(reply)
    if source is not None and length:
        buffer = bytearray(length)
        _receive(reply, source, memoryview(buffer), window_seconds)
        return bytes(buffer)
    body = reply["Body"]
    try:
        data: bytes = body.read()
    finally:
        body.close()
    _check_length(reply, len(data))
    return data


def read_body_into(reply: Any, buffer: memoryview, window_seconds: float) -> int | None:
    """Reads the body of a reply to GET into a buffer; returns its length.

    None if this cannot be done: nothing is read then, and :func:`read_body` will do.

    Raises:
        AttemptFailedError, Exception: as :func:`read_body`.
    """
    source = _source(reply)
    if source is None or reply["ContentLength"] > len(buffer):
        return None
    length: int = reply["ContentLength"]
    _receive(reply, source, buffer[:length], window_seconds)
    return length


def _source(reply: Any) -> HTTPResponse | None:
    """Returns what the body comes from; None if it cannot be read from there."""
    raw: Any = getattr(reply["Body"], "_raw_stream", None)
    source: Any = getattr(raw, "_fp", None)
    if (
        not isinstance(source, HTTPResponse)
        or source.length is None
        or source.length != reply.get("ContentLength")
        or reply.get("ContentEncoding")
        or not hasattr(source.fp, "readinto1")
        or not hasattr(raw, "_error_catcher")
    ):
        return None
    return source


def _receive(reply: Any, source: Any, buffer: memoryview, window_seconds: float) -> None:
    """Fills a buffer as long as the body.

    Raises:
        AttemptFailedError, Exception: as :func:`read_body`.
    """
    body = reply["Body"]
    done, length = 0, len(buffer)
    # The time-out of a socket begins anew with each byte: a server could hold us for ever.
    before, until = 0, time.monotonic() + window_seconds
    try:
        with body._raw_stream._error_catcher():  # gives the connection back, or ends it
            while done < length:
                if done < length - 1:
                    # What has come, not all that is to come; the last byte ends the reply.
                    count = source.fp.readinto1(buffer[done : length - 1])
                    source.length -= count
                else:
                    count = source.readinto(buffer[done:])
                if not count:
                    break
                done += count
                now = time.monotonic()
                if now >= until and done < length:
                    if done - before < _LEAST_BYTES:
                        raise AttemptFailedError(
                            "the reply comes too slowly", reached=True, maybe_done=True
                        )
                    before, until = done, now + window_seconds
    except Urllib3TimeoutError as error:
        raise ReadTimeoutError(endpoint_url=error.url or "", error=error) from error
    except ProtocolError as error:
        raise ResponseStreamingError(error=error) from error
    finally:
        body.close()
    _check_length(reply, done)


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
