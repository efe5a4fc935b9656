"""``versionfs status``, ``commit`` and ``restore``: what is changed in a branch folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from versionfs.cli.command import command, metadata_option
from versionfs.cli.formats import quote, text_of
from versionfs.cli.session import Session
from versionfs.errors import InvalidInputError, NotFoundError
from versionfs.readable import count
from versionfs.types import short

if TYPE_CHECKING:
    from versionfs.cli.targets import Target
    from versionfs.fuse.access import WorkspaceAccess
    from versionfs.repo import Store
    from versionfs.repo.spec import Spec
    from versionfs.tree.diffing import Change
    from versionfs.types import Commit

T = TypeVar("T")

_SHOWN = 1_000
"""Changed paths that a terminal shows."""


@command(
    "status",
    example="""
        cd ~/data/photos/main && versionfs status
        versionfs status photos/dev --json
    """,
)
@click.argument("spec", metavar="[REPO[/BRANCH]]", required=False)
@click.pass_obj
def status_command(session: Session, spec: str | None) -> None:
    """Shows what is changed in a branch folder and not committed, without looking at the rest.

    Plain lines, as NAME<TAB>VALUE: branch; base (the commit that was changed); behind (how many
    commits the branch has on top of that; - if it went another way, or is gone); folder (where it
    is mounted). Then, if anything is changed, an empty line, and letter (A, D, M, T as in diff) and
    path of each. A folder's path ends in a slash; one that was removed or renamed is one line.
    """
    from versionfs.cli.targets import read_branch
    from versionfs.fuse.access import with_workspace
    from versionfs.fuse.client import folder_of_branch

    target = read_branch(session, spec, "versionfs status [REPO[/BRANCH]]")
    assert target.spec is not None
    repository, branch = target.spec.repository, target.spec.branch or ""
    with session.open_store(target.store, target.state) as store:
        state = _State(store, target.spec)

        def write(workspace: WorkspaceAccess) -> None:
            changes = workspace.changes(full=False)
            first = next(changes, None)  # From here on the mount has answered.
            state.base = store.commits.read(workspace.status())
            state.folder = folder_of_branch(store.settings, store.id, repository, branch)
            found = [] if first is None else [first, *changes]
            _write_status(session, state, found)

        with_workspace(store, repository, branch, write)


class _State:
    """Where a workspace stands."""

    base: Commit
    folder: os.PathLike[str] | None

    def __init__(self, store: Store, spec: Spec) -> None:
        self.name = f"{spec.repository}/{spec.branch}"
        self._repository = store.repository(spec.repository)
        try:
            ref = self._repository.branch(spec.branch or "")
            self.head: Commit | None = self._repository.commit(ref.commit)
        except NotFoundError:
            self.head = None  # Perhaps there are changes of it all the same.

    @property
    def behind(self) -> int | None:
        """How many commits the branch has on top of the base; None if it does not come from it."""
        if self.head is None:
            return None
        for number, commit in enumerate(self._repository.history(self.head)):
            if commit.id == self.base.id:
                return number
            if commit.number <= self.base.number:
                return None
        return None


def _write_status(session: Session, state: _State, changes: list[Change]) -> None:
    from versionfs.cli.changes import letter
    from versionfs.cli.comparing import letter_cell, shown_path
    from versionfs.cli.output import Column
    from versionfs.cli.versions import entry_json

    out, behind = session.output, state.behind
    if out.json:
        out.document(
            {
                "branch": state.name,
                "base": state.base.id.hex(),
                "head": state.head.id.hex() if state.head else None,
                "behind": behind,
                "folder": os.fspath(state.folder) if state.folder else None,
                "clean": not changes,
                "changes": [
                    {
                        "status": letter(change),
                        "path": text_of(change.path),
                        "old": entry_json(change.old) if change.old else None,
                        "new": entry_json(change.new) if change.new else None,
                    }
                    for change in changes
                ],
            }
        )
        return
    folder = "" if state.folder is None else quote(os.fsencode(state.folder))
    if not out.terminal:
        out.pairs(
            [
                ("branch", state.name),
                ("base", short(state.base.id)),
                ("behind", "-" if behind is None else str(behind)),
                ("folder", folder),
            ]
        )
        if changes:
            out.line()
        for change in changes:
            out.line(f"{letter(change)}\t{shown_path(change)}")
        return
    at = f"{state.name} at {short(state.base.id)}"
    out.line(f"{at}, in {folder}" if folder else f"{at}, not mounted")
    if state.head is None:
        out.line("The branch was deleted; `versionfs branch NAME --from-workspace` keeps the work.")
    elif behind is None:
        out.line("The branch went another way meanwhile; a commit goes on top of what it is now.")
    elif behind:
        ahead = f"The branch has {count(behind, 'new commit')}"
        out.line(f"{ahead} ({count(behind, 'commit')} behind); a commit goes on top of them.")
    if not changes:
        out.line("Nothing is changed.")
        return
    out.line()
    shown = changes[:_SHOWN]
    out.table([Column(""), Column("")], ([letter_cell(c), shown_path(c)] for c in shown))
    if len(changes) > _SHOWN:
        out.line(f"... and {len(changes) - _SHOWN:,} more; --json lists all")


@command(
    "commit",
    example="""
        cd ~/data/photos/main && versionfs commit -m "sorted by year"
        versionfs commit photos/dev -m "new labels" --metadata run=7
    """,
)
@click.argument("spec", metavar="[REPO[/BRANCH]]", required=False)
@click.option("-m", "--message", required=True, help="The commit message.")
@click.option("--author", help="Who made the commit; USER@HOST without it.")
@metadata_option
@click.pass_obj
def commit_command(
    session: Session,
    spec: str | None,
    message: str,
    author: str | None,
    metadata: Mapping[str, str],
) -> None:
    """Makes a new version of all that is changed in a branch folder.

    It holds the state of one moment; programs may go on writing meanwhile, for the next commit.
    What others committed to the branch meanwhile stays: changes of other paths are joined, and
    where both changed a path, nothing is committed and those paths are listed.

    Fifos, sockets and devices are left out, and hard links become files of equal content.

    Prints one line: files with changes, bytes that were new, bytes stored for them (compressed).
    """
    from versionfs.cli.targets import read_branch

    target = read_branch(session, spec, "versionfs commit [REPO[/BRANCH]] -m MESSAGE")
    commit_target(session, target, message, author, metadata)


def commit_target(
    session: Session,
    target: Target,
    message: str,
    author: str | None,
    metadata: Mapping[str, str],
) -> None:
    """Commits a branch, and says what came of it."""

    def work(workspace: WorkspaceAccess) -> dict[str, Any]:
        workspace.flush()
        return workspace.commit(message, author or session.settings.author, metadata)

    # A commit of nothing, too, may have moved the folder to what others committed meanwhile.
    result = _in_workspace(session, target, work, moves=True)
    note_skipped(session, result["skipped"])
    _write_commit(session, target, result)


def note_skipped(session: Session, skipped: Sequence[Sequence[str]]) -> None:
    """Names what a commit could not hold, as (path, what it is)."""
    for path, kind in skipped:
        session.note(f"left out: {quote(os.fsencode(path))} is {kind}")


def _in_workspace(
    session: Session,
    target: Target,
    work: Callable[[WorkspaceAccess], T],
    *,
    moves: bool,
) -> T:
    """Returns what ``work`` made of a branch's workspace; ``moves`` lets mounts look at the branch.

    Where a mount has the workspace its daemon does the work, and no store is opened here.
    """
    from versionfs.fuse.client import NotOwnerError, workspace_in_mount

    assert target.spec is not None
    repository, branch = target.spec.repository, target.spec.branch or ""
    settings = session.settings_for(target.store, target.state)
    mounted = workspace_in_mount(settings, repository, branch)
    if mounted is not None:
        with suppress(NotOwnerError):
            result = work(mounted)
            if moves:
                session.announce_in(settings, mounted.store_id, repository)
            return result

    from versionfs.fuse.access import with_workspace

    with session.open_store(target.store, target.state) as store:
        result = with_workspace(store, repository, branch, work)
        if moves:
            session.announce(store, repository)
        return result


def _write_commit(session: Session, target: Target, result: dict[str, Any]) -> None:
    assert target.spec is not None
    branch = f"{target.spec.repository}/{target.spec.branch}"
    changed = result["commit"] is not None
    if not changed:
        session.note(f"nothing to commit in {branch}")
    if session.output.json:
        from versionfs.cli.versions import commit_json
        from versionfs.workspace import decode_base

        with session.open_store(target.store, target.state) as store:
            made = store.commits.read(decode_base(bytes.fromhex(result["ref"])))
        value: dict[str, Any] = {
            "branch": branch,
            "changed": changed,
            "commit": commit_json(made),
            "merged": result["merged"],
            "files": result["files"],
            "new_bytes": result["new_bytes"],
            "stored_bytes": result["stored_bytes"],
            "read_bytes": result["read_bytes"],
            "skipped": [{"path": path, "reason": kind} for path, kind in result["skipped"]],
            "seconds": round(result["seconds"], 3),
        }
        session.output.document(value)
    elif changed:
        # A daemon that was there before an upgrade has no summary.
        told = result.get("summary") or short(bytes.fromhex(result["commit"]))
        session.output.line(f"{branch} {told}")


@command(
    "restore",
    example="""
        cd ~/data/photos/main && versionfs restore 2026/a.jpg notes
        versionfs restore photos/dev:labels.csv
        versionfs restore photos/dev --all
    """,
)
@click.argument("paths", metavar="PATH...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Discard all changes of the branch.")
@click.pass_obj
def restore_command(session: Session, paths: tuple[str, ...], everything: bool) -> None:
    """Discards what is changed at and below PATHs: they are as in the last commit again.

    This cannot be undone. A PATH is one in a branch folder, there or not any more, or
    REPO[/BRANCH]:PATH. With --all no PATH is given, but perhaps a branch, REPO[/BRANCH].
    """
    from versionfs.cli.targets import read_branch, read_path

    if everything and len(paths) < 2:
        first = read_branch(
            session, paths[0] if paths else None, "versionfs restore [REPO[/BRANCH]] --all"
        )
        chosen = [b""]
    elif everything or not paths:
        raise click.UsageError(
            "--all goes with one branch at most" if everything else "say which PATHs, or --all"
        )
    else:
        targets = [read_path(session, path) for path in paths]
        first = targets[0]
        specs = [target.spec for target in targets if target.spec is not None]
        if (
            len(
                {
                    (target.store, s.repository, s.branch)
                    for target, s in zip(targets, specs, strict=True)
                }
            )
            > 1
        ):
            raise InvalidInputError(
                "the PATHs are in several branches", hint="restore each by itself"
            )
        chosen = [spec.path for spec in specs]

    def work(workspace: WorkspaceAccess) -> int:
        workspace.flush()
        return workspace.restore(chosen)

    restored = _in_workspace(session, first, work, moves=False)
    assert first.spec is not None
    name = f"{first.spec.repository}/{first.spec.branch}"
    if session.output.json:
        session.output.document({"branch": name, "restored": restored})
    elif restored:
        session.output.line(f"restored {count(restored, 'name')} in {name}")
    else:
        session.note(f"nothing to restore in {name}")
