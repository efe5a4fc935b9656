"""What a daemon is asked to mount, and how it tells that it could not; lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from versionfs import errors
from versionfs.config import Settings
from versionfs.errors import MountError, OverlapError, SourceError, VersionFSError
from versionfs.repo.spec import Spec, parse_spec

ON_UNMOUNT: Final = "on-unmount"


class MountRequest(NamedTuple):
    """What to mount where."""

    settings: Settings
    mountpoint: Path
    spec: Spec | None
    allow_other: bool
    read_only: bool = False
    auto_commit: str | None = None
    """When workspaces are committed: ``on-unmount``; every so many seconds, and then as well; or
    only when somebody says so (None)."""

    def encode(self) -> bytes:
        """Returns the request as a daemon reads it."""
        settings = {
            name: os.fspath(value) if isinstance(value, Path) else value
            for name, value in self.settings._asdict().items()
        }
        value = {
            "settings": settings,
            "mountpoint": os.fspath(self.mountpoint),
            "spec": None if self.spec is None else str(self.spec),
            "allow_other": self.allow_other,
            "read_only": self.read_only,
            "auto_commit": self.auto_commit,
        }
        return json.dumps(value).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> MountRequest:
        """Returns the request that was encoded."""
        value: dict[str, Any] = json.loads(data)
        settings: dict[str, Any] = value["settings"]
        for name, kind in Settings.__annotations__.items():
            if "Path" in str(kind) and settings[name] is not None:
                settings[name] = Path(settings[name])
        return cls(
            Settings(**settings),
            Path(value["mountpoint"]),
            None if value["spec"] is None else parse_spec(value["spec"]),
            bool(value["allow_other"]),
            bool(value["read_only"]),
            value["auto_commit"],
        )


def encode_error(error: BaseException) -> dict[str, Any]:
    """Returns an error as the daemon tells it."""
    if isinstance(error, VersionFSError):
        # Those that a part keeps to itself are told as what it derived them from.
        kinds = (
            kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__
        )
        value = {
            "ok": False,
            "kind": next(kinds),
            "message": error.message,
            "hint": error.hint,
        }
        if isinstance(error, (SourceError, OverlapError)):
            value["problems"] = [[os.fsdecode(path), why] for path, why in error.problems]
        return value
    text = f"the mount failed unexpectedly: {type(error).__name__}: {error}"
    return {"ok": False, "kind": "MountError", "message": text, "hint": None}


def decode_error(value: Mapping[str, Any]) -> VersionFSError:
    """Returns the error that a daemon told of."""
    kind = getattr(errors, str(value.get("kind")), MountError)
    message, hint = str(value["message"]), value.get("hint")
    if not (isinstance(kind, type) and issubclass(kind, VersionFSError)):
        kind = MountError
    if issubclass(kind, (SourceError, OverlapError)):
        problems = [(os.fsencode(path), str(why)) for path, why in value.get("problems", [])]
        return kind(message, problems, hint=str(hint))
    return kind(message, hint=hint)
