"""``versionfs repo`` and ``versionfs init``: repositories, and the store that holds them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from versionfs.cli.command import command, group
from versionfs.cli.session import Session
from versionfs.errors import InvalidInputError
from versionfs.readable import count

if TYPE_CHECKING:
    from versionfs.repo import Repository


@group("repo", example="versionfs repo create photos")
def repo_group() -> None:
    """Lists, creates or deletes repositories."""


@command("list", example="versionfs repo list")
@click.pass_obj
def list_command(session: Session) -> None:
    """Lists the repositories of the store.

    Plain lines have the fields: name, number of branches, number of tags.
    """
    from versionfs.cli.listing import write_repositories
    from versionfs.cli.targets import here_store

    with session.open_store(here_store(session)) as store:
        repositories: list[Repository] = [store.repository(n) for n in store.repositories()]
        write_repositories(session.output, repositories)


@command("create", example="versionfs repo create photos")
@click.argument("name")
@click.pass_obj
def create_command(session: Session, name: str) -> None:
    """Creates a repository; its branches come with their first import."""
    from versionfs.cli.targets import here_store

    with session.open_or_make_store(here_store(session)) as store:
        repository = store.create_repository(name)
        session.announce(store, name)
        if session.output.json:
            session.output.document({"action": "created", "repository": repository.name})
        else:
            session.output.line(f"created repository {repository.name}")


@command("delete", example="versionfs repo delete photos --yes")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete_command(session: Session, name: str, yes: bool) -> None:
    """Deletes a repository with all its branches and tags.

    Asks first on a terminal; anywhere else --yes is needed.
    """
    from versionfs.cli.targets import here_store

    with session.open_store(here_store(session)) as store:
        repository = store.repository(name)
        if not yes:
            _confirm(repository)
        store.delete_repository(name)
        session.announce(store, name)
        if session.output.json:
            session.output.document({"action": "deleted", "repository": name})
        else:
            session.output.line(f"deleted repository {name}")


def _confirm(repository: Repository) -> None:
    if not sys.stdin.isatty():
        raise InvalidInputError(
            f"repository {repository.name} is only deleted after a confirmation",
            hint="--yes confirms it where there is no terminal",
        )
    branches = count(len(repository.branches()), "branch", "branches")
    tags = count(len(repository.tags()), "tag")
    question = f"Delete repository {repository.name} with {branches} and {tags}?"
    if not click.confirm(question, err=True):
        raise click.Abort


@command("init", example="versionfs init /data/versions")
@click.argument("folder", metavar="[STORE]", required=False)
@click.pass_obj
def init_command(session: Session, folder: str | None) -> None:
    """Makes a store: in STORE, or where --store, VERSIONFS_STORE or the default say.

    The default store needs no init: the first import makes it.
    """
    from versionfs.repo import Store

    settings = session.settings_for(folder)
    with Store.create(settings) as store:
        if session.output.json:
            session.output.document({"action": "created", "store": store.url, "store_id": store.id})
        else:
            session.output.line(f"made a store at {store.url}")


for _command in (list_command, create_command, delete_command):
    repo_group.add_command(_command)
