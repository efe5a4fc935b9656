"""The shape that all commands share: --json, the global options after the command, one example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import click

from versionfs.cli.output import Color
from versionfs.cli.session import Session


def _setter(attribute: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def store(context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        # The command's own option is parsed after the group's: not given, it changes nothing.
        if value is not None and value is not False:
            setattr(context.ensure_object(Session), attribute, value)
        return value

    return store


def global_options(*, hidden: bool) -> list[click.Option]:
    """Returns the options that the group shows and every command accepts (hidden) too."""
    return [
        click.Option(
            ["--store"],
            metavar="STORE",
            help="The store: a folder or s3://bucket/prefix. Over VERSIONFS_STORE and config.toml.",
            callback=_setter("store_flag"),
            expose_value=False,
            hidden=hidden,
        ),
        click.Option(
            ["--home"],
            metavar="FOLDER",
            help="Where store, state, cache and config.toml are. Over VERSIONFS_HOME.",
            callback=_setter("home_flag"),
            expose_value=False,
            hidden=hidden,
        ),
        click.Option(
            ["--s3-endpoint"],
            metavar="URL",
            help="The S3 server, if it is not Amazon's. Over VERSIONFS_S3_ENDPOINT and boto3's.",
            callback=_setter("s3_endpoint"),
            expose_value=False,
            hidden=hidden,
        ),
        click.Option(
            ["--timeout"],
            metavar="SECONDS",
            help="How long to try to reach a remote store; 60 if not given.",
            callback=_setter("timeout"),
            expose_value=False,
            hidden=hidden,
        ),
        click.Option(
            ["--cache-size"],
            metavar="SIZE",
            help="What may be kept on disk of remote stores, such as 50GiB.",
            callback=_setter("cache_size"),
            expose_value=False,
            hidden=hidden,
        ),
        click.Option(
            ["--color"],
            type=click.Choice(get_args(Color)),
            help="Colours and tables: on a terminal (auto), always or never.",
            callback=_setter("color"),
            expose_value=False,
            hidden=hidden,
        ),
    ]


def json_option() -> click.Option:
    """Returns the option that turns a command's result into JSON."""
    return click.Option(
        ["--json"],
        is_flag=True,
        help="Write one JSON document instead.",
        callback=_setter("json"),
        expose_value=False,
    )


def _parse_metadata(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Returns what --metadata KEY=VALUE options say."""
    pairs: dict[str, str] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        pairs[key] = value
    return pairs


metadata_option = click.option(
    "--metadata",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_parse_metadata,
    help="A value to keep with the commit; may be repeated.",
)
"""--metadata of the commands that make commits: a dictionary."""


class Command(click.Command):
    """A command that ends its help with an example, and takes --json and the global options."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.params = [*self.params, json_option(), *global_options(hidden=True)]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the examples below the options."""
        _write_example(formatter, self.example)


class Group(click.Group):
    """A group of commands below a command, with an example."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the examples below the commands."""
        _write_example(formatter, self.example)


def _write_example(formatter: click.HelpFormatter, example: str) -> None:
    lines = example.strip().splitlines()
    formatter.write_paragraph()
    formatter.write("Example:\n" if len(lines) == 1 else "Examples:\n")
    for line in lines:
        formatter.write(f"  {line.strip()}\n")


def command(name: str, *, example: str, **attributes: Any) -> Callable[..., Command]:
    """Makes a function a ``Command``; ``example`` holds one command line per line."""
    return click.command(name, cls=Command, example=example, **attributes)


def group(name: str, *, example: str, **attributes: Any) -> Callable[..., Group]:
    """Makes a function a ``Group``; ``example`` holds one command line per line."""
    return click.group(name, cls=Group, example=example, **attributes)
