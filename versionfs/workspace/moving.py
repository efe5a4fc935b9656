"""Moves uncommitted work to a new branch."""

from __future__ import annotations

from pathlib import Path

from versionfs.errors import AlreadyExistsError, ConflictError, InvalidInputError
from versionfs.repo import Store, validate_name
from versionfs.types import Commit
from versionfs.workspace.places import folder_of
from versionfs.workspace.records import clear
from versionfs.workspace.workspace import Workspace


def prepare_move(store: Store, repository: str, name: str, base: Commit) -> Path:
    """Makes a branch at the base of a workspace, and returns the folder that this can go to.

    A branch of that name that is gone may have left a workspace here: it is in the way if it has
    changes. Blocks.

    Raises:
        AlreadyExistsError: there is such a branch, or there are changes that a former one left.
        InvalidInputError: it is not the name of a branch.
    """
    validate_name("branch", name)
    folder = folder_of(store, repository, name)
    in_use = AlreadyExistsError(
        f"another process still has a workspace of {repository}/{name}",
        hint="choose another name, or unmount it",
    )
    changed = AlreadyExistsError(
        f"there are uncommitted changes of a former branch {repository}/{name} in {folder}",
        hint="choose another name",
    )
    if (folder / "table").is_dir():
        try:
            left = Workspace(store, folder, base)
        except ConflictError as error:
            raise in_use from error
        clean = left.is_clean
        left.close()
        if not clean:
            raise changed
    # Before there is a branch: else one that nobody asked for would be left if this fails.
    try:
        if not clear(folder):
            raise changed
    except ConflictError as error:
        raise in_use from error
    store.repository(repository).create_branch(name, base)
    return folder


def nothing_to_move(repository: str, name: str) -> InvalidInputError:
    """Returns the error for a workspace without changes that is to go to branch ``name``."""
    return InvalidInputError(
        "there are no uncommitted changes to move",
        hint=f"`versionfs branch {repository}/{name}` makes a branch",
    )


def move(workspace: Workspace, repository: str, name: str) -> None:
    """Moves a workspace that nobody else works in to a new branch at its base.

    Raises:
        what :func:`prepare_move` raises.
        OSError: the folder cannot be renamed; the branch is there, the work where it was.
    """
    if workspace.is_clean:
        raise nothing_to_move(repository, name)
    workspace.moved(prepare_move(workspace.store, repository, name, workspace.base))()
