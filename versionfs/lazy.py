"""Packages whose names are imported when they are asked for (PEP 562).

The command line starts a process for each command, and most commands need little of the library:
importing all of a package's modules for one of them takes longer than many commands do.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence


def names_of(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Returns the ``__getattr__`` of a package: it imports the module that has a name.

    ``modules`` has the names that the package offers, by the module below it that defines them. A
    module may not have the name of something that it offers: importing it would hide that.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> object:
        module = homes.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(f"{package}.{module}"), name)
        setattr(sys.modules[package], name, found)
        return found

    return find
