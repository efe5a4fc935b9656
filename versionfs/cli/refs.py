"""``versionfs branch`` and ``versionfs tag``: names for commits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from versionfs.cli.command import command
from versionfs.cli.formats import local_time, one_line, screen_time
from versionfs.cli.output import Column
from versionfs.cli.session import Session
from versionfs.errors import InvalidInputError
from versionfs.types import short

if TYPE_CHECKING:
    from versionfs.objectstore import Version
    from versionfs.repo import Repository, Store
    from versionfs.repo.spec import Spec
    from versionfs.types import Commit, NodeRef

RefKind = Literal["branch", "tag"]


class NamedCommit(NamedTuple):
    """A branch or tag with the commit that it points at."""

    kind: RefKind
    name: str
    commit: Commit

    @property
    def folder(self) -> str:
        """The name of its folder in a mount."""
        return self.name if self.kind == "branch" else f"@{self.name}"

    def json(self) -> dict[str, Any]:
        """Returns it for --json."""
        return {
            "kind": self.kind,
            "name": self.name,
            "commit": self.commit.id.hex(),
            "number": self.commit.number,
            "time": local_time(self.commit.time_ns),
            "time_ns": self.commit.time_ns,
            "author": self.commit.author,
            "subject": self.commit.subject,
            "files": self.commit.root.files,
            "bytes": self.commit.root.size,
        }


def named_commits(repository: Repository, kind: RefKind) -> Iterator[NamedCommit]:
    """Yields the branches or the tags of a repository by name, reading their commits."""
    refs = repository.branches() if kind == "branch" else repository.tags()
    for name, ref in refs.items():
        yield NamedCommit(kind, name, repository.commit(ref.commit))


@command(
    "branch",
    example="""
        versionfs branch photos
        versionfs branch photos/dev
        versionfs branch photos/fix main@~3
        versionfs branch -d photos/dev
        cd ~/data/photos/main && versionfs branch try --from-workspace
    """,
)
@click.argument("name", metavar="REPO[/NAME]", required=False)
@click.argument("start", required=False)
@click.option("-d", "--delete", is_flag=True, help="Delete the branch.")
@click.option(
    "--force",
    is_flag=True,
    help="Delete it even if it has uncommitted changes, or nothing else holds its commits.",
)
@click.option(
    "--from-workspace",
    is_flag=True,
    help="Move uncommitted changes to the new branch: those of the current folder, or of START.",
)
@click.pass_obj
def branch_command(
    session: Session,
    name: str | None,
    start: str | None,
    delete: bool,
    force: bool,
    from_workspace: bool,
) -> None:
    """Lists the branches of REPO, or creates or deletes the branch REPO/NAME.

    A new branch is at START, which is a SPEC of the same repository, short (@REV, BRANCH[@REV]) or
    whole; without it, at main. Creating takes the same time whatever the size of the data.

    With --from-workspace the new branch is at the commit that was changed, and has the changes; the
    branch that they were made on is as it is without them. In a branch folder NAME will do. What
    programs have open stays open, and is in the new branch's folder.

    Plain lines have the fields: name, commit, time, subject.
    """
    from versionfs.cli.targets import format_spec, read_name, required

    if from_workspace:
        _move_workspace(session, name, start, delete)
        return
    target = read_name(session, name)
    spec = required(target, "versionfs branch REPO[/NAME]")
    if (spec.revision is not None or spec.path) and name is not None:
        raise InvalidInputError(
            f"{format_spec(spec)} is not the name of a branch", hint="a branch is REPO/NAME"
        )
    if name is None or spec.branch is None:
        _refuse(delete or start is not None, "branch", "REPO/NAME")
        with session.open_store(target.store) as store:
            _list(session, store.repository(spec.repository), "branch")
        return
    with session.open_store(target.store, target.state) as store:
        repository = store.repository(spec.repository)
        if delete:
            _refuse(start is not None, "branch to delete", "REPO/NAME alone")
            repository.branch(spec.branch)
            checked = None
            if not force:
                _require_clean(store, spec.repository, spec.branch)
                checked = _require_held(repository, "branch", spec.branch)
            repository.delete_branch(spec.branch, checked)
            _discard(store, spec.repository, spec.branch)
            _done(session, store, repository, "deleted", "branch", spec.branch, None)
            return
        commit = _start(store, spec, start)
        repository.create_branch(spec.branch, commit)
        _done(session, store, repository, "created", "branch", spec.branch, commit)


@command(
    "tag",
    example="""
        versionfs tag photos
        versionfs tag photos@v1.0
        versionfs tag photos@v0.9 main@~3
        versionfs tag -d photos@v0.9
    """,
)
@click.argument("name", metavar="REPO[/BRANCH][@NAME]", required=False)
@click.argument("start", required=False)
@click.option("-d", "--delete", is_flag=True, help="Delete the tag.")
@click.option("--force", is_flag=True, help="Delete it even if nothing else holds its commits.")
@click.pass_obj
def tag_command(
    session: Session, name: str | None, start: str | None, delete: bool, force: bool
) -> None:
    """Lists the tags of REPO, or creates or deletes the tag REPO@NAME.

    A new tag is at START, which is a SPEC of the same repository, short (@REV, BRANCH[@REV]) or
    whole; without it, at the head of BRANCH (main). A tag never moves; REPO@NAME then is the SPEC
    of what it names.

    Plain lines have the fields: name, commit, time, subject.
    """
    from versionfs.cli.targets import format_spec, read_name, required

    target = read_name(session, name)
    spec = required(target, "versionfs tag REPO[@NAME]")
    if spec.path and name is not None:
        raise InvalidInputError(
            f"{format_spec(spec)} is not the name of a tag", hint="a tag is REPO@NAME"
        )
    if name is None or spec.revision is None:
        _refuse(delete or start is not None, "tag", "REPO@NAME")
        with session.open_store(target.store) as store:
            _list(session, store.repository(spec.repository), "tag")
        return
    with session.open_store(target.store) as store:
        repository = store.repository(spec.repository)
        if delete:
            _refuse(start is not None, "tag to delete", "REPO@NAME alone")
            repository.tag(spec.revision)
            checked = None if force else _require_held(repository, "tag", spec.revision)
            repository.delete_tag(spec.revision, checked)
            _done(session, store, repository, "deleted", "tag", spec.revision, None)
            return
        commit = _start(store, spec, start)
        repository.create_tag(spec.revision, commit)
        _done(session, store, repository, "created", "tag", spec.revision, commit)


def _move_workspace(session: Session, name: str | None, start: str | None, delete: bool) -> None:
    """Makes a branch and moves uncommitted changes to it."""
    from versionfs.cli.targets import read_branch
    from versionfs.fuse.access import WorkspaceAccess, with_workspace
    from versionfs.repo.spec import DEFAULT_BRANCH, parse_spec

    if name is None or delete:
        raise click.UsageError("--from-workspace goes with the NAME of a new branch")
    repository, slash, new = name.rpartition("/")
    usage = "versionfs branch REPO/NAME [REPO/BRANCH] --from-workspace"
    if not slash:
        target = read_branch(session, start, "versionfs branch NAME --from-workspace")
    else:
        if parse_spec(name).revision is not None or parse_spec(name).path:
            raise InvalidInputError(f"{name} is not the name of a branch", hint=usage)
        if start is None:
            from versionfs.cli.targets import read_target

            here = read_target(session, None)
            if not here.is_workspace:
                start = f"{repository}/{DEFAULT_BRANCH}"
        elif "/" not in start and not start.startswith((".", "/")):
            start = f"{repository}/{start}"
        target = read_branch(session, start, usage)
    assert target.spec is not None
    spec, source = target.spec, target.spec.branch or ""
    if slash and spec.repository != repository:
        raise InvalidInputError(
            f"the changes are of {spec.repository}, not of {repository}", hint=usage
        )
    with session.open_store(target.store, target.state) as store:

        def work(workspace: WorkspaceAccess) -> NodeRef:
            workspace.flush()
            base = workspace.status()
            workspace.move(new)
            return base

        base = with_workspace(store, spec.repository, source, work).id
        session.announce(store, spec.repository)
        if session.output.json:
            session.output.document(
                {
                    "action": "moved",
                    "kind": "branch",
                    "repository": spec.repository,
                    "name": new,
                    "commit": base.hex(),
                    "from": source,
                }
            )
            return
        moved = f"the uncommitted changes of {source} to it"
        session.output.line(
            f"created branch {new} of {spec.repository} at {short(base)}, and moved {moved}"
        )


def _require_clean(store: Store, repository: str, branch: str) -> None:
    """Refuses to delete a branch with uncommitted changes on this machine.

    Raises:
        InvalidInputError: as said; the hint names --force.
    """
    from versionfs.workspace import folder_of

    if not (folder_of(store, repository, branch) / "table").is_dir():
        return
    from versionfs.fuse.access import with_workspace

    if with_workspace(
        store, repository, branch, lambda w: next(w.changes(full=False), None) is not None
    ):
        raise InvalidInputError(
            f"{repository}/{branch} has uncommitted changes",
            hint="commit them, keep them with `versionfs branch NAME --from-workspace`, or --force "
            "discards them",
        )


def _discard(store: Store, repository: str, branch: str) -> None:
    """Throws away what is left of a deleted branch's workspace on this machine."""
    from versionfs.workspace import folder_of, owner_of, remove

    folder = folder_of(store, repository, branch)
    if not (folder / "table").is_dir():
        return
    from versionfs.fuse.access import with_workspace

    with_workspace(store, repository, branch, lambda workspace: workspace.restore([b""]))
    if owner_of(folder) is None:
        remove(folder)


def _refuse(wrong: bool, what: str, form: str) -> None:
    if wrong:
        raise InvalidInputError(f"no {what} is named", hint=f"write it as {form}")


def _start(store: Store, spec: Spec, text: str | None) -> Commit:
    """Returns the commit at which a new ref of ``spec``'s repository starts."""
    from versionfs.cli.targets import read_start, resolve
    from versionfs.repo.spec import DEFAULT_BRANCH

    if text is None:
        # For a tag, spec.branch is the branch to tag; for a branch, it is the new name.
        branch = spec.branch if spec.revision is not None else None
        return store.repository(spec.repository).resolve(branch or DEFAULT_BRANCH, None)
    start = read_start(store.repository(spec.repository), text)
    if start.repository != spec.repository:
        raise InvalidInputError(
            f"START {text} is of another repository than {spec.repository}",
            hint="a branch or tag names a commit of its own repository",
        )
    return resolve(store, start)[1]


def _list(session: Session, repository: Repository, kind: RefKind) -> None:
    session.output.records(
        named_commits(repository, kind),
        as_json=NamedCommit.json,
        as_plain=lambda ref: [
            ref.name,
            short(ref.commit.id),
            local_time(ref.commit.time_ns),
            one_line(ref.commit.subject),
        ],
        columns=[
            Column(kind.upper(), "green"),
            Column("COMMIT", "yellow"),
            Column("DATE", right=True),
            Column("SUBJECT"),
        ],
        as_cells=lambda ref: [
            ref.name,
            short(ref.commit.id),
            screen_time(ref.commit.time_ns),
            one_line(ref.commit.subject),
        ],
    )


def _done(
    session: Session,
    store: Store,
    repository: Repository,
    action: str,
    kind: RefKind,
    name: str,
    commit: Commit | None,
) -> None:
    session.announce(store, repository.name)
    if session.output.json:
        value: dict[str, Any] = {"action": action, "kind": kind, "repository": repository.name}
        value["name"] = name
        value["commit"] = commit.id.hex() if commit else None
        session.output.document(value)
        return
    at = f" at {short(commit.id)}" if commit else ""
    session.output.line(f"{action} {kind} {name} of {repository.name}{at}")


def _require_held(repository: Repository, kind: RefKind, name: str) -> Version:
    """Refuses to delete the last branch, and a ref that alone holds its commit.

    Asks the store itself, and returns the version of the ref that this is true of: no other may be
    deleted.

    Raises:
        InvalidInputError: as said; the hint names --force.
    """
    from versionfs.repo import RefKind as Folder

    refs = repository.store.refs
    folder = Folder.BRANCH if kind == "branch" else Folder.TAG
    doomed, version = refs.read(repository.name, folder, name, fresh=True)
    branches, tags = (
        refs.read_all(repository.name, each, fresh=True) for each in (Folder.BRANCH, Folder.TAG)
    )
    (branches if kind == "branch" else tags).pop(name, None)
    hint = f"--force deletes the {kind} all the same"
    if kind == "branch" and not branches:
        raise InvalidInputError(f"{name} is the only branch of {repository.name}", hint=hint)
    others = [ref.commit for ref in (*branches.values(), *tags.values())]
    if not _reaches(repository, others, doomed.commit.id):
        raise InvalidInputError(
            f"no other branch or tag of {repository.name} holds the commits of {kind} {name}",
            hint=hint,
        )
    return version


def _reaches(repository: Repository, starts: Sequence[NodeRef], wanted: bytes) -> bool:
    """Whether a commit is one of ``starts`` or an ancestor of one, along any parents."""
    waiting = list(starts)
    seen = {ref.id for ref in waiting}
    if wanted in seen:
        return True
    while waiting:
        for parent in repository.commit(waiting.pop()).parents:
            if parent.id == wanted:
                return True
            if parent.id not in seen:
                seen.add(parent.id)
                waiting.append(parent)
    return False
