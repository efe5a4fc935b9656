"""Packages whose names are imported when they are asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

LAZY = ("fuse", "repo", "transfer", "tree", "workspace")


@pytest.mark.parametrize("package", LAZY)
def test_every_name_of_a_package_is_found(package):
    module = importlib.import_module(f"versionfs.{package}")
    for name in module.__all__:
        assert getattr(module, name) is not None
        # A module of the same name would be found instead, once it was imported.
        assert find_spec(f"versionfs.{package}.{name}") is None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("versionfs.cli.main", ["versionfs.repo", "lmdb", "rich", "trio"]),
        # The commit of a mounted branch is the daemon's work.
        ("versionfs.fuse.client", ["versionfs.repo.store", "versionfs.tree", "lmdb", "zstandard"]),
        ("versionfs.cli.workspaces", ["versionfs.repo", "versionfs.workspace", "lmdb"]),
    ],
)
def test_what_a_command_does_not_need_is_not_imported(module, without):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(without) & set(done.stdout.split())
