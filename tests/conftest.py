"""What all tests share: a home of their own, hypothesis profiles, and when mounts are skipped."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.s3 import machines
from tests.support.seaweed import s3_server

__all__ = ["machines", "s3_server"]

# VERSIONFS_PROFILE chooses: "ci" repeats itself exactly, "nightly" looks longest.
settings.register_profile("default", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "nightly", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("VERSIONFS_PROFILE", "default"))

# A shell has what it runs in the background ignore it, and so would the commands that are tested.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Who ends the tests so would else leave their mounts and processes behind.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def home_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps every test, and every process it starts, away from the real home, store and config."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERSIONFS_HOME", str(home))
        patch.delenv("VERSIONFS_STORE", raising=False)
        yield home


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = _why_no_mounts()
    for item in items:
        if "mount" in item.path.relative_to(Path(__file__).parent).parts:
            item.add_marker("mount")
        if missing and item.get_closest_marker("mount"):
            item.add_marker(pytest.mark.skip(reason=missing))


def _why_no_mounts() -> str | None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "no access to /dev/fuse"
    if shutil.which("fusermount3") is None:
        return "no fusermount3"
    return None
