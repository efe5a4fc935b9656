"""How the small objects of a store are named: ``repos/<repository>/<kind>/<name>``, and markers."""

from __future__ import annotations

from typing import Final

ROOT: Final = "repos/"
MARKER: Final = "repo.json"
TAGS: Final = "tags"
KINDS: Final = ("branches", TAGS)


def marker_of(repository: str) -> str:
    """Returns the key of the object that makes a repository be there."""
    return f"{ROOT}{repository}/{MARKER}"


def repository_of(key: str) -> str:
    """Returns the repository that an object, or a folder of objects, belongs to."""
    return key.split("/", 2)[1]
