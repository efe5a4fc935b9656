"""Settings: where each comes from, and what bad ones are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from versionfs.config import Settings, load_settings, with_store
from versionfs.errors import InvalidInputError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def load(home: Path, config: str | None = None, **environ: str) -> Settings:
    if config is not None:
        (home / "config.toml").write_text(config, encoding="utf-8")
    return load_settings({"VERSIONFS_HOME": str(home), "LOGNAME": "ada", **environ})


def test_home_moves_everything(home: Path) -> None:
    settings = load(home)
    assert settings.home == home
    assert settings.store == str(home / "store")
    assert settings.cache_dir == home / "cache"
    assert settings.state_dir == home / "state"
    assert settings.config_file == home / "config.toml"
    assert settings.default_store
    assert not any(home.iterdir())


def test_without_home_the_platform_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("DATA", "CACHE", "STATE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    settings = load_settings({})
    assert settings.home is None
    assert settings.store == str(tmp_path / "DATA" / "versionfs" / "store")
    assert settings.cache_dir == tmp_path / "CACHE" / "versionfs"
    assert settings.state_dir == tmp_path / "STATE" / "versionfs"
    assert settings.config_file == tmp_path / "CONFIG" / "versionfs" / "config.toml"


def test_flag_over_environment_over_file_over_default(home: Path) -> None:
    environ = {"VERSIONFS_HOME": str(home)}
    assert load_settings(environ).store == str(home / "store")
    (home / "config.toml").write_text('store = "/from/file"')
    assert load_settings(environ).store == "/from/file"
    environ["VERSIONFS_STORE"] = "/from/environment"
    assert load_settings(environ).store == "/from/environment"
    assert load_settings(environ, store="/from/flag").store == "/from/flag"


def test_the_home_flag_goes_over_the_environment(home: Path, tmp_path: Path) -> None:
    settings = load_settings({"VERSIONFS_HOME": str(home)}, home=str(tmp_path / "other"))
    assert settings.store == str(tmp_path / "other" / "store")


def test_empty_values_count_as_not_given(home: Path) -> None:
    settings = load_settings(
        {"VERSIONFS_HOME": str(home), "VERSIONFS_STORE": ""}, store="", home=""
    )
    assert settings.store == str(home / "store")
    assert settings.default_store


@pytest.mark.parametrize("where", ["flag", "environment", "file", "with_store"])
def test_a_named_store_is_not_the_default_store(home: Path, where: str) -> None:
    store = str(home / "store")
    settings = {
        "flag": lambda: load_settings({"VERSIONFS_HOME": str(home)}, store=store),
        "environment": lambda: load(home, VERSIONFS_STORE=store),
        "file": lambda: load(home, f'store = "{store}"'),
        "with_store": lambda: with_store(load(home), store),
    }[where]()
    assert settings.store == store
    assert not settings.default_store


def test_relative_paths_are_relative_to_where_they_are_written(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(home, VERSIONFS_STORE="s").store == str(tmp_path / "s")
    assert with_store(load(home), "../s").store == str(tmp_path.parent / "s")
    assert load(home, 'store = "s"\ncache_dir = "c/../d"').store == str(home / "s")
    assert load(home).cache_dir == home / "d"
    assert load_settings({"VERSIONFS_HOME": "home"}).home == home


def test_a_tilde_is_the_users_home_directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert load(home, 'store = "~/data"').store == "/home/ada/data"
    with pytest.raises(InvalidInputError, match="no-such-user"):
        load(home, VERSIONFS_STORE="~no-such-user/data")


def test_urls_are_left_alone(home: Path) -> None:
    assert load(home, VERSIONFS_STORE="file:///data/x").store == "file:///data/x"
    assert load(home, VERSIONFS_STORE="s3://bucket/x").store == "s3://bucket/x"


def test_the_file_sets_the_rest(home: Path) -> None:
    settings = load(
        home,
        'author = "Ada <ada@example.org>"\n'
        "compression_level = 9\n"
        "node_cache_bytes = 1048576\n"
        "block_cache_bytes = 2097152\n"
        'state_dir = "/var/lib/versionfs"\n',
    )
    assert settings.author == "Ada <ada@example.org>"
    assert settings.compression_level == 9
    assert settings.node_cache_bytes == 1048576
    assert settings.block_cache_bytes == 2097152
    assert settings.state_dir == Path("/var/lib/versionfs")


def test_the_author_is_the_user_at_this_host_unless_set(home: Path) -> None:
    assert load(home).author.startswith("ada@")
    assert "@" in load_settings({"VERSIONFS_HOME": str(home)}).author


def test_the_file_sets_what_remote_stores_need(home: Path) -> None:
    settings = load(home)
    assert settings.cache_bytes is None
    assert (settings.timeout_seconds, settings.refresh_seconds) == (60, 5)
    assert (settings.s3_endpoint, settings.s3_connections) == (None, 16)
    settings = load(
        home,
        'cache_size = "20GiB"\n'
        "timeout = 30\n"
        "refresh = 0.5\n"
        's3_endpoint = "http://localhost:8333"\n'
        "s3_connections = 32\n",
    )
    assert settings.cache_bytes == 20 << 30
    assert (settings.timeout_seconds, settings.refresh_seconds) == (30, 0.5)
    assert (settings.s3_endpoint, settings.s3_connections) == ("http://localhost:8333", 32)


def test_what_remote_stores_need_has_flags_and_variables(home: Path) -> None:
    (home / "config.toml").write_text('timeout = 1\ncache_size = "1GB"\ns3_endpoint = "http://f"')
    environ = {"VERSIONFS_HOME": str(home)}
    settings = load_settings(environ)
    assert (settings.timeout_seconds, settings.cache_bytes) == (1, 10**9)
    assert settings.s3_endpoint == "http://f"
    environ |= {
        "VERSIONFS_TIMEOUT": "2",
        "VERSIONFS_CACHE_SIZE": "2 GiB",
        "VERSIONFS_S3_ENDPOINT": "http://e",
    }
    settings = load_settings(environ)
    assert (settings.timeout_seconds, settings.cache_bytes) == (2, 2 << 30)
    assert settings.s3_endpoint == "http://e"
    flags = {"timeout": "3.5", "cache_size": "3G", "s3_endpoint": "http://g"}
    settings = load_settings(environ, flags=flags)
    assert (settings.timeout_seconds, settings.cache_bytes) == (3.5, 3 << 30)
    assert settings.s3_endpoint == "http://g"
    assert load_settings(environ, flags=dict.fromkeys(flags, "")).timeout_seconds == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("1048576B", 1 << 20),
        ("1.5GiB", 3 << 29),
        ("2M", 2 << 20),
        ("2MB", 2_000_000),
        (" 1 T ", 1 << 40),
    ],
)
def test_a_size_may_have_a_unit(home: Path, text: str, size: int) -> None:
    assert load(home, VERSIONFS_CACHE_SIZE=text).cache_bytes == size


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *[("timeout", text) for text in ("0", "-1", "nan", "inf", "1m", "true")],
        *[("cache_size", text) for text in ("1", "512K", "-1G", "1GiBB", "G", "1e9", "²G")],
        ("s3_endpoint", "http://x\n"),
    ],
)
def test_a_bad_flag_or_variable_is_named(home: Path, key: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"--{key.replace('_', '-')} must be"):
        load_settings({"VERSIONFS_HOME": str(home)}, flags={key: text})
    variable = f"VERSIONFS_{key.upper()}"
    with pytest.raises(InvalidInputError, match=f"^{variable} must be"):
        load(home, **{variable: text})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("stroe = '/x'", "no setting 'stroe'"),
        ("[cache]\nsize = 1", "no setting 'cache'"),
        ("store = 5", "store must be text"),
        ("store = ''", "store must be text"),
        ('author = "a\\nb"', "author must be text on one line"),
        ("compression_level = 'high'", "compression_level must be a whole number from -7 to 22"),
        ("compression_level = true", "compression_level must be a whole number"),
        ("compression_level = 3.5", "compression_level must be a whole number"),
        ("compression_level = 23", "compression_level must be a whole number from -7 to 22"),
        ("node_cache_bytes = 0", "node_cache_bytes must be a whole number from 1048576"),
        ("timeout = true", "timeout must be a number of seconds"),
        ("timeout = '5'", "timeout must be a number of seconds"),
        ("refresh = 0", "refresh must be a number of seconds from 0.1"),
        ("cache_size = 1.5", "cache_size must be a size"),
        ("s3_connections = 0", "s3_connections must be a whole number from 1"),
        ("store = ", "not a TOML file"),
        ('store = "a\\u0000b"', "store must be text"),
    ],
)
def test_a_bad_file_is_named_with_the_key(home: Path, config: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load(home, config)
    assert says in caught.value.message
    assert str(home / "config.toml") in caught.value.message


def test_an_unknown_key_is_told_the_known_ones(home: Path) -> None:
    with pytest.raises(InvalidInputError, match="compression_level"):
        load(home, "compresion_level = 3")


def test_a_file_that_is_no_text_is_named(home: Path) -> None:
    (home / "config.toml").write_bytes(b"store = '\xff'")
    with pytest.raises(InvalidInputError, match=r"config\.toml is not a TOML file"):
        load(home)


def test_a_folder_in_place_of_the_file_is_named(home: Path) -> None:
    (home / "config.toml").mkdir()
    with pytest.raises(InvalidInputError, match=r"config\.toml cannot be read"):
        load(home)
