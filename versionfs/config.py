"""Settings: where things are and how large they may grow.

Each setting comes from the first of: a flag, the environment (``VERSIONFS_STORE``,
``VERSIONFS_HOME`` and others), ``config.toml``, the platform's default. ``VERSIONFS_HOME`` moves
everything.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from versionfs.author import default_author
from versionfs.errors import InvalidInputError

_APPLICATION: Final = "versionfs"
_MIB: Final = 1 << 20


class Settings(NamedTuple):
    """What one run of versionfs works with; every path is absolute.

    ``store`` is a path or a URL. ``home`` is the folder that moves everything, when one is set.
    ``default_store`` says that nobody named a store: only such a one may come into being by
    itself. ``node_cache_bytes`` and ``block_cache_bytes`` bound the memory of readers,
    ``workspace_bytes`` the disk that the changes of one branch may take (None: no bound).

    The rest is for stores behind a network: ``cache_bytes`` bounds the disk cache (None: 20 GiB or
    a tenth of the disk, whichever is less), ``timeout_seconds`` all attempts at one operation,
    ``refresh_seconds`` is how often a mount looks for moved refs; ``s3_endpoint`` is the URL of an
    S3 server that is not Amazon's, ``s3_connections`` how many requests go out at once.
    """

    store: str
    home: Path | None
    cache_dir: Path
    state_dir: Path
    config_file: Path
    author: str
    compression_level: int = 2
    node_cache_bytes: int = 32 * _MIB
    block_cache_bytes: int = 96 * _MIB
    workspace_bytes: int | None = None
    cache_bytes: int | None = None
    timeout_seconds: float = 60.0
    refresh_seconds: float = 5.0
    s3_endpoint: str | None = None
    s3_connections: int = 16
    default_store: bool = False


_RANGES: Final = {
    # From zstd's fast modes (negative) to its strongest; 0 is zstd's own default.
    "compression_level": (-7, 22),
    "node_cache_bytes": (_MIB, 1 << 40),
    "block_cache_bytes": (_MIB, 1 << 40),
    "s3_connections": (1, 256),
}
_SECONDS: Final = {"timeout": (0.1, 86_400), "refresh": (0.1, 86_400)}
_SIZES: Final = {"cache_size": _MIB, "workspace_bytes": _MIB}
_TEXTS: Final = ("store", "cache_dir", "state_dir", "author", "s3_endpoint")
_VARIABLES: Final = {
    "s3_endpoint": "VERSIONFS_S3_ENDPOINT",
    "timeout": "VERSIONFS_TIMEOUT",
    "cache_size": "VERSIONFS_CACHE_SIZE",
}

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(?:([KMGT])(iB|B)?|B)?", re.ASCII)
_UNITS: Final = "KMGT"


def load_settings(
    environ: Mapping[str, str],
    *,
    store: str | None = None,
    home: str | None = None,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    """Returns the settings of this run; reads ``config.toml`` if there is one, makes nothing.

    ``store`` and ``home`` are the flags, ``flags`` those that are keys of ``config.toml`` too
    (``s3_endpoint``, ``timeout``, ``cache_size``), as texts. Empty values count as not given.
    Relative paths are relative to the current folder, in ``config.toml`` to the folder it is in;
    ``~`` is the home directory of the user. The platform's defaults follow the XDG variables of the
    process itself.

    Raises:
        InvalidInputError: a path that cannot be, an unknown key, a value of the wrong type or out
            of range, or a ``config.toml`` that is no TOML; the message names where it was given.
    """
    home_text = home or environ.get("VERSIONFS_HOME") or ""
    home_path = _path(home_text, Path.cwd()) if home_text else None
    if home_path is not None:
        folders = (home_path / "store", home_path / "cache", home_path / "state", home_path)
    else:
        import xdg_base_dirs

        try:
            folders = (
                xdg_base_dirs.xdg_data_home() / _APPLICATION / "store",
                xdg_base_dirs.xdg_cache_home() / _APPLICATION,
                xdg_base_dirs.xdg_state_home() / _APPLICATION,
                xdg_base_dirs.xdg_config_home() / _APPLICATION,
            )
        except RuntimeError as error:  # a user whom the system does not know
            raise InvalidInputError(
                "there is no home directory", hint="set HOME, or VERSIONFS_HOME to a folder"
            ) from error
    default_store, cache, state, config = folders
    config_file = config / "config.toml"
    values = _read_config(config_file) | _given(environ, flags or {})

    named = store or environ.get("VERSIONFS_STORE")
    if named:
        chosen = _store(named, Path.cwd())
    elif "store" in values:
        chosen = _store(values["store"], config)
    else:
        chosen = str(default_store)
    numbers: dict[str, Any] = {key: values[key] for key in _RANGES if key in values}
    numbers |= {f"{key}_seconds": float(values[key]) for key in _SECONDS if key in values}
    if "cache_size" in values:
        numbers["cache_bytes"] = _bytes(values["cache_size"])
    if "workspace_bytes" in values:
        numbers["workspace_bytes"] = _bytes(values["workspace_bytes"])
    return Settings(
        store=chosen,
        home=home_path,
        cache_dir=_path(values["cache_dir"], config) if "cache_dir" in values else cache,
        state_dir=_path(values["state_dir"], config) if "state_dir" in values else state,
        config_file=config_file,
        author=values.get("author") or default_author(environ),
        s3_endpoint=values.get("s3_endpoint"),
        default_store=not named and "store" not in values,
        **numbers,
    )


def with_store(settings: Settings, store: str) -> Settings:
    """Returns the settings with another store, named by a path or URL as a flag would."""
    return settings._replace(store=_store(store, Path.cwd()), default_store=False)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file} is not a TOML file: not UTF-8") from error
    import tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{file} is not a TOML file: {error}") from error
    for key, value in values.items():
        _check(f"{file}: {key}", key, value)
    return values


def _given(environ: Mapping[str, str], flags: Mapping[str, str]) -> dict[str, Any]:
    """Returns what flags and the environment say of keys of ``config.toml``."""
    values: dict[str, Any] = {}
    for key, variable in _VARIABLES.items():
        text, source = flags.get(key), f"--{key.replace('_', '-')}"
        if not text:
            text, source = environ.get(variable), variable
        if not text:
            continue
        value: Any = text
        if key in _SECONDS:
            with contextlib.suppress(ValueError):
                value = float(text)
        _check(source, key, value)
        values[key] = value
    return values


def _check(source: str, key: str, value: object) -> None:
    """Refuses what a setting cannot be; ``source`` is where it was given."""
    if key in _TEXTS:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise InvalidInputError(f"{source} must be text on one line, not {value!r}")
    elif key in _RANGES:
        low, high = _RANGES[key]
        # bool is an int to Python, but not to people.
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidInputError(
                f"{source} must be a whole number from {low} to {high}, not {value!r}"
            )
    elif key in _SECONDS:
        least, most = _SECONDS[key]
        number = float(value) if isinstance(value, int | float) else 0
        if isinstance(value, bool) or not least <= number <= most:
            raise InvalidInputError(
                f"{source} must be a number of seconds from {least:g} to {most:g}, not {value!r}"
            )
    elif key in _SIZES:
        size = _bytes(value)
        if size is None or size < _SIZES[key]:
            raise InvalidInputError(
                f"{source} must be a size of at least 1 MiB, such as 20GiB, not {value!r}"
            )
    else:
        file = source.removesuffix(f": {key}")
        known = ", ".join(sorted((*_TEXTS, *_RANGES, *_SECONDS, *_SIZES)))
        raise InvalidInputError(f"{file}: there is no setting {key!r}", hint=f"there are: {known}")


def _bytes(value: object) -> int | None:
    """Returns a size in bytes; None for what is no size.

    That is a number of bytes, or a text: a number and perhaps a unit. As most tools for disks have
    it, ``K``, ``KiB`` and so on are powers of 1024, ``KB`` of 1000.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    number, unit, suffix = match.groups()
    base = 1000 if suffix == "B" else 1024
    return int(float(number) * base ** (_UNITS.index(unit) + 1 if unit else 0))


def _store(text: str, base: Path) -> str:
    return text if "://" in text else str(_path(text, base))


def _path(text: str, base: Path) -> Path:
    if "\0" in text:
        raise InvalidInputError(f"{text!r} is not a path")
    try:
        expanded = Path(text).expanduser()
    except RuntimeError as error:
        raise InvalidInputError(f"{text!r} is not a path: {error}") from error
    return Path(os.path.abspath(base / expanded))
