"""Credentials that are replaced while a mount runs, as short-lived ones are every hour."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.proxied import proxy
from tests.support.proxy import Answer, Plan, Proxy, Request
from tests.support.s3 import Machine, MakeMachine, wait_until
from tests.support.seaweed import ACCESS_KEY, ADMIN_KEY, ADMIN_SECRET, SECRET_KEY

__all__ = ["proxy"]

NEVER = "3600"
OLD = ACCESS_KEY, SECRET_KEY
NEW = ADMIN_KEY, ADMIN_SECRET
BLOB = 6_000_000
"""A pack of its own: what is near to what was read is fetched with it."""

Give = Callable[[tuple[str, str]], None]


def from_file(machine: Machine) -> Give:
    """Lets a machine have its credentials from the file that all tools of AWS share."""
    path = machine.folder / "credentials"
    machine.env |= {"AWS_SHARED_CREDENTIALS_FILE": os.fspath(path)}

    def give(pair: tuple[str, str]) -> None:
        _write(
            path,
            f"[default]\naws_access_key_id = {pair[0]}\naws_secret_access_key = {pair[1]}\n",
        )

    return give


def from_process(machine: Machine) -> Give:
    """Lets a machine have them from a program; they expire soon, so it is asked again and again."""
    given, config = machine.folder / "given.json", machine.folder / "config"
    config.write_text(f"[default]\ncredential_process = cat {given}\n")
    machine.env |= {"AWS_CONFIG_FILE": os.fspath(config)}

    def give(pair: tuple[str, str]) -> None:
        expires = datetime.now(UTC) + timedelta(minutes=9)
        value = {"Version": 1, "AccessKeyId": pair[0], "SecretAccessKey": pair[1]}
        _write(given, json.dumps(value | {"Expiration": expires.isoformat()}))

    return give


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def _is_from(pair: tuple[str, str], request: Request) -> bool:
    return f"Credential={pair[0]}/" in request.headers.get("authorization", "")


def _without(pair: tuple[str, str]) -> Plan:
    """Answers as a server that has removed an identity."""
    return lambda request: Answer(403, "InvalidAccessKeyId") if _is_from(pair, request) else None


def _can_read(path: Path) -> bool:
    try:
        return len(path.read_bytes()) == BLOB
    except OSError:
        return False


@pytest.mark.parametrize("source", [from_file, from_process])
def test_a_mount_goes_on_with_newer_credentials(
    machines: MakeMachine, proxy: Proxy, source: Callable[[Machine], Give]
) -> None:
    ada, bob = machines("ada"), machines("bob", proxy.endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del bob.env[name]
    give = source(bob)
    give(OLD)
    for name in ("first", "second", "third"):
        ada.bring(f"set:{name}", blob=os.urandom(BLOB))
    main = bob.mount("--refresh", NEVER, "--timeout", "20") / "set/main"
    assert _can_read(main / "first/blob")

    # Nobody notices when the newer ones are there in time.
    give(NEW)
    proxy.plan = _without(OLD)
    assert _can_read(main / "second/blob")
    assert any(_is_from(NEW, request) for request in proxy.requests)
    (main / "mine").write_bytes(b"mine")
    bob.ok("commit", "-m", "mine", cwd=main)
    assert ada.ok("cat", "set:mine").raw == b"mine"
    assert "refused" not in bob.log(main.parent.parent)

    # If they come late, reads fail until then, and not for good.
    proxy.plan = _without(NEW)
    assert not _can_read(main / "third/blob")
    give(OLD)
    wait_until(lambda: _can_read(main / "third/blob"))
