"""What one run of the command line works with: settings, output, and the store when needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from versionfs.cli.formats import one_line
from versionfs.cli.output import Color, Output
from versionfs.errors import NotFoundError, VersionFSError

if TYPE_CHECKING:
    from versionfs.config import Settings
    from versionfs.repo import Store


class Session:
    """One run. The flags are set while click parses; everything else comes from them, lazily."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.store_flag: str | None = None
        self.home_flag: str | None = None
        self.s3_endpoint: str | None = None
        self.timeout: str | None = None
        self.cache_size: str | None = None
        self.color: Color = "auto"
        self.json = False
        self.logged: list[str] = []

    @property
    def debug(self) -> bool:
        """Whether an unexpected error shows its traceback."""
        return self.environ.get("VERSIONFS_DEBUG", "") not in ("", "0")

    @cached_property
    def settings(self) -> Settings:
        """The settings from flags, environment and config.toml.

        Raises:
            InvalidInputError: a flag, variable or config.toml holds a value that it may not.
        """
        from versionfs.config import load_settings

        flags = {
            "s3_endpoint": self.s3_endpoint, "timeout": self.timeout, "cache_size": self.cache_size
        }  # fmt: skip
        return load_settings(
            self.environ,
            store=self.store_flag,
            home=self.home_flag,
            flags={key: text for key, text in flags.items() if text},
        )

    @cached_property
    def output(self) -> Output:
        """Standard output; made after parsing, when --json and --color are known."""
        return Output(as_json=self.json, color=self.color)

    @property
    def explicit_store(self) -> bool:
        """Whether the user named a store, by flag or environment."""
        return bool(self.store_flag or self.environ.get("VERSIONFS_STORE"))

    def settings_for(self, mount_store: str | None, state: str | None = None) -> Settings:
        """Returns the settings for a store that a mount named; the session's own for None.

        ``state`` is where the mount keeps its state: the changes of its branches among it.
        """
        settings = self.settings
        if mount_store is not None:
            from versionfs.config import with_store

            settings = with_store(settings, mount_store)
        return settings if state is None else settings._replace(state_dir=Path(state))

    def open_store(self, mount_store: str | None = None, state: str | None = None) -> Store:
        """Opens an existing store; the caller closes it.

        Raises:
            NotFoundError: there is no store; the hint says what makes one.
        """
        from versionfs.repo import Store

        settings = self.settings_for(mount_store, state)
        try:
            return Store.open(settings)
        except NotFoundError as error:
            if not settings.default_store:
                raise
            raise NotFoundError(
                error.message, hint="`versionfs import SOURCE REPO` makes this default store"
            ) from error

    def open_or_make_store(self, mount_store: str | None = None) -> Store:
        """Opens the store, and makes it when it is the default one and missing.

        Raises:
            NotFoundError: somebody named a store that is not there.
        """
        from versionfs.repo import Store

        settings = self.settings_for(mount_store)
        return Store.open_or_create(settings) if settings.default_store else Store.open(settings)

    def announce(self, store: Store, repository: str | None) -> None:
        """Tells the live mounts of the store that a branch or tag moved, and waits until they know.

        ``repository`` is where, None for any. A mount that cannot be told costs a warning, not the
        command: what it did is done.
        """
        self.announce_in(store.settings, store.id, repository)

    def announce_in(self, settings: Settings, store_id: str, repository: str | None) -> None:
        """Does what :meth:`announce` does, for a store that need not be open."""
        try:
            registered = any(os.scandir(settings.state_dir / "mounts"))
        except OSError:
            return
        if not registered:
            return
        from versionfs.fuse import notify_moved

        try:
            notify_moved(settings, store_id, repository)
        except (VersionFSError, OSError) as error:
            self.warn(f"a mount could not be told of the change: {error}")

    def show_log(self) -> None:
        """Shows what the library logs from here on: warnings at once, errors when they are told.

        The library logs an error that it also raises: only ``tell_errors`` knows whether a line
        says the same.
        """
        logging.getLogger("versionfs").addHandler(_LogLines(self))

    def tell_errors(self, raised: str | None = None) -> None:
        """Writes the errors that were logged, except for what is ``raised`` and told anyway."""
        for message in self.logged:
            if message != raised:
                self.warn(message)
        self.logged.clear()

    def note(self, message: str) -> None:
        """Writes a line on standard error that is neither result nor warning."""
        click.echo(f"versionfs: {one_line(message)}", err=True)

    def warn(self, message: str) -> None:
        """Writes a warning line on standard error."""
        click.echo(f"versionfs: warning: {one_line(message)}", err=True)


class _LogLines(logging.Handler):
    """Turns log records into lines of the command line."""

    def __init__(self, session: Session) -> None:
        super().__init__(logging.WARNING)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self._session.logged.append(record.getMessage())
        else:
            self._session.warn(record.getMessage())
