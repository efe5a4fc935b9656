"""What a SPEC argument stands for: a SPEC as written, a short one, or a path inside a mount.

A mount answers extended attributes on each directory: ``user.versionfs.ref``, the SPEC that the
directory shows (empty at a root that shows all repositories), ``user.versionfs.store``, the store
it is of, and in a branch folder that can be written ``user.versionfs.state``, where its changes are
kept. That is all the command line needs to know where it stands; no registry is read.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from versionfs.errors import InvalidInputError, MountError, NotFoundError, ReadOnlyError
from versionfs.repo.spec import (
    DEFAULT_BRANCH,
    TIME,
    Spec,
    parse_revision,
    parse_spec,
    split_component,
)

if TYPE_CHECKING:
    from versionfs.cli.session import Session
    from versionfs.repo import Repository, Store
    from versionfs.types import Commit, Entry

REF_ATTRIBUTE: Final = "user.versionfs.ref"
STORE_ATTRIBUTE: Final = "user.versionfs.store"
STATE_ATTRIBUTE: Final = "user.versionfs.state"


class Target(NamedTuple):
    """What an argument names. ``spec`` None is the whole store.

    ``store`` is the store of the mount that said so; None means the session's. ``state`` likewise
    is where that keeps the changes of its branches. ``is_workspace`` says that it was named by a
    path in a branch folder that can be written, or is the current directory and such a one.
    """

    spec: Spec | None
    store: str | None = None
    state: str | None = None
    is_workspace: bool = False


def read_target(session: Session, text: str | None) -> Target:
    """Returns what a SPEC argument names; None stands for the current directory.

    An existing path inside a mount comes first, then a short SPEC (``@REV``, ``:PATH``) relative to
    the current directory, then a SPEC. Outside a mount None is the whole store.

    Raises:
        InvalidInputError: not a SPEC; a path that is in no mount; a short SPEC outside a mount.
        MountError: the path is in a mount whose daemon is dead.
    """
    if text is None:
        _raise_if_dead(".")
        return _shown_by(".") or Target(None)
    shown = _shown_by(text) if text else None
    if shown is not None:
        return shown
    if _is_path(text):
        _raise_if_dead(text)
        if not os.path.lexists(text):
            raise NotFoundError(
                f"{text} does not exist", hint="in a SPEC, a path comes after a colon: REPO:PATH"
            )
        raise InvalidInputError(
            f"{text} is not inside a versionfs mount", hint="`versionfs mounts` lists the mounts"
        )
    if is_short(text):
        here = _shown_by(".")
        if here is None or here.spec is None:
            raise InvalidInputError(
                f"{text!r} names no repository, and the current directory is not one in a mount",
                hint=f"write REPO{text}",
            )
        return here._replace(spec=relative_spec(text, here.spec), is_workspace=False)
    return _named(session, text)


def read_name(session: Session, text: str | None) -> Target:
    """Returns what a name to make or delete says: as ``read_target``, but never an existing path.

    Raises:
        InvalidInputError: not a SPEC; a short one outside a mount.
    """
    if text is None or is_short(text) or _is_path(text):
        return read_target(session, text)
    return _named(session, text)


def read_branch(session: Session, text: str | None, usage: str) -> Target:
    """Returns the branch that an argument names, for what changes its workspace.

    A path in the branch is left out where the current directory or a path says it.

    Raises:
        ReadOnlyError: it is a version of the past.
        InvalidInputError: it is no branch, or a SPEC with a path.
    """
    target = read_target(session, text)
    spec = required(target, usage)
    if spec.revision is not None:
        raise ReadOnlyError(
            f"{format_spec(spec)} is a version of the past, which never changes",
            hint="go to a branch folder, or name a branch: REPO[/BRANCH]",
        )
    named = text is not None and _shown_by(text) is None
    if named and spec.path:
        raise InvalidInputError(
            f"{format_spec(spec)} is not a branch", hint=f"leave out the :PATH; {usage}"
        )
    if not named and spec.branch is None:
        raise InvalidInputError(
            f"{text or 'the current directory'} is the repository {spec.repository}, not a branch",
            hint=f"name the branch: {spec.repository}/BRANCH",
        )
    branch = spec.branch or DEFAULT_BRANCH
    return target._replace(spec=spec._replace(branch=branch))


def read_path(session: Session, text: str) -> Target:
    """Returns what a PATH to restore says; nothing needs to be there any more.

    In a branch folder that can be written it is a path of that, but for ``:PATH`` (from the top of
    the branch), and for a SPEC with a colon that is not the name of anything.

    Raises:
        InvalidInputError: it is none, or in no branch.
        ReadOnlyError: it is of a version of the past.
    """
    usage = "versionfs restore PATH..., in a branch folder, or REPO[/BRANCH]:PATH..."
    if text.startswith(":"):
        target = read_target(session, text)
    elif ":" in text and not _is_path(text) and not os.path.lexists(text):
        target = _named(session, text)
    else:
        target = _lost_path(text) or _named(session, text)
    spec = required(target, usage)
    if spec.revision is not None:
        raise ReadOnlyError(f"{format_spec(spec)} is a version of the past, which never changes")
    if not spec.path and not target.is_workspace:
        raise InvalidInputError(f"{text} names no path", hint=f"{usage}; or --all of a branch")
    return target._replace(spec=spec._replace(branch=spec.branch or DEFAULT_BRANCH))


def _lost_path(text: str) -> Target | None:
    """Returns what a path in a mount shows or showed: it ends in names that may be gone."""
    shown = _shown_by(text)
    if shown is not None:
        return shown
    parent, lost = os.path.normpath(text), []
    while True:
        parent, name = os.path.split(parent)
        lost.append(name)
        found = _shown_by_directory(parent or ".")
        if found is not None and found.spec is not None:
            spec = found.spec
            if spec.branch is None and spec.revision is None:
                return None
            path = b"/".join(filter(None, (spec.path, *map(os.fsencode, reversed(lost)))))
            return found._replace(spec=spec._replace(path=path))
        if parent in ("", "/") or os.path.isdir(parent):
            return None


def _named(session: Session, text: str) -> Target:
    """Returns what a whole SPEC names: in the store of the current directory's mount, if any."""
    if session.explicit_store:
        return Target(parse_spec(text))
    here = _shown_by(".")
    if here is None:
        return Target(parse_spec(text))
    return here._replace(spec=parse_spec(text), is_workspace=False)


def here_store(session: Session) -> str | None:
    """Returns the store of the mount that holds the current directory, unless one was named."""
    if session.explicit_store:
        return None
    here = _shown_by(".")
    return here.store if here is not None else None


def read_start(repository: Repository, text: str) -> Spec:
    """Returns the START of a new branch or tag: ``@REV``, ``BRANCH[@REV]``, or a whole SPEC.

    Raises:
        InvalidInputError: not a SPEC, or one with a path.
    """
    spec: Spec | None = None
    if "/" not in text and ":" not in text:
        branch, revision = split_component(text)
        if branch is None or branch in repository.branches():
            spec = Spec(repository.name, branch, revision, b"")
    spec = spec or parse_spec(text)
    if spec.path:
        raise InvalidInputError(f"{text} is a path, not a commit", hint="leave out the :PATH")
    return spec


def required(target: Target, usage: str) -> Spec:
    """Returns the SPEC of a target that may not be the whole store.

    Raises:
        InvalidInputError: it is; ``usage`` is the command line to show.
    """
    if target.spec is None:
        raise InvalidInputError(
            "no SPEC is given, and the current directory is not in a repository of a mount",
            hint=usage,
        )
    return target.spec


def relative_spec(text: str, base: Spec) -> Spec:
    """Returns ``[@REV][:PATH]`` or ``BRANCH[@REV][:PATH]``, of the repository of ``base``.

    Without a branch it is of the branch of ``base``; without a path it is the path of ``base``.
    """
    parsed = parse_spec(base.repository + ("" if is_short(text) else "/") + text)
    path = parsed.path if parsed.path or text.endswith((":", "/")) else base.path
    if text.startswith(":"):
        return base._replace(path=path)
    return parsed._replace(branch=parsed.branch or base.branch, path=path)


def is_short(text: str) -> bool:
    """Whether a SPEC can only be a short one: it begins with a revision or a path."""
    return text[:1] in ("@", ":")


def resolve(store: Store, spec: Spec) -> tuple[Repository, Commit]:
    """Returns the repository and the commit that a SPEC names.

    Raises:
        NotFoundError: no such repository, branch or revision.
        AmbiguousError: an id prefix that several commits share.
    """
    repository = store.repository(spec.repository)
    return repository, repository.resolve(*version_of(spec))


def version_of(spec: Spec) -> tuple[str | None, str | None]:
    """Returns the branch and revision to resolve: where a SPEC names neither, the default branch.

    A revision that counts or dates (``~3``, ``head``, ``2026-11-01``) needs a branch: the default
    one. Other revisions without a branch are tags and ids of the whole repository.
    """
    if spec.branch is not None:
        return spec.branch, spec.revision
    if spec.revision is None:
        return DEFAULT_BRANCH, None
    base = parse_revision(spec.revision).base
    if base is None or re.fullmatch(TIME, base):
        return DEFAULT_BRANCH, spec.revision
    return None, spec.revision


def find_entry(store: Store, commit: Commit, spec: Spec) -> Entry:
    """Returns the entry at the path of a SPEC: the root directory for an empty path.

    Raises:
        NotFoundError: the commit holds no such path.
    """
    if not spec.path:
        return commit.root
    entry = store.trees.walk_path(commit.root, spec.path)
    if entry is None:
        raise NotFoundError(
            f"{format_spec(spec._replace(path=b''))} has no {os.fsdecode(spec.path)!r}",
            hint=f"`versionfs ls {format_spec(spec._replace(path=b''), branch=True)}` lists it",
        )
    return entry


def format_spec(spec: Spec, *, branch: bool = False) -> str:
    """Returns a SPEC as text; ``branch`` writes out the default branch where none is named."""
    if branch and spec.branch is None and spec.revision is None:
        spec = spec._replace(branch=DEFAULT_BRANCH)
    return str(spec)


def _is_path(text: str) -> bool:
    return text in (".", "..") or text.startswith(("/", "./", "../"))


def _shown_by(path: str) -> Target | None:
    """Returns what a path in a mount shows; None for a path that is in no mount."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        return _shown_by_directory(path)
    parent, name = os.path.split(path)
    shown = _shown_by_directory(parent or ".")
    spec = shown.spec if shown else None
    if shown is not None and spec is not None and (spec.branch or spec.revision):
        inner = b"/".join(filter(None, (spec.path, os.fsencode(name))))
        return shown._replace(spec=spec._replace(path=inner))
    # A link of the mount's own, such as those in .log, stands for the version it leads to.
    return _shown_by_directory(path) if os.path.isdir(path) else None


def _shown_by_directory(path: str) -> Target | None:
    try:
        ref = os.getxattr(path, REF_ATTRIBUTE)
    except OSError:
        return None
    try:
        store = os.fsdecode(os.getxattr(path, STORE_ATTRIBUTE)) or None
    except OSError:
        store = None
    try:
        state = os.fsdecode(os.getxattr(path, STATE_ATTRIBUTE)) or None
    except OSError:
        state = None
    spec = parse_spec(os.fsdecode(ref)) if ref else None
    return Target(spec, store, state, is_workspace=state is not None)


def _raise_if_dead(path: str) -> None:
    try:
        os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            raise MountError(
                f"{path} is in a mount whose daemon is dead",
                hint="`versionfs umount MOUNTPOINT` cleans it up, then mount again",
            ) from error
