"""The names of diffusers under `animagic`: what this library has not of its own is looked up there when it is used, so
that the word can be replaced in any script. Nothing is listed, and nothing is imported before."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_OURS = "animagic"


def names_of(module: str) -> Callable[[str], Any]:
    """`__getattr__` of a module of ours: its further names are those of this module of diffusers."""

    def __getattr__(name: str) -> Any:
        if name.startswith("_"):  # which Python and its tools ask every module for
            raise AttributeError(f"module {module.replace('diffusers', _OURS, 1)!r} has no attribute {name!r}")
        top = sys.modules[_OURS]
        if name in top.__all__ and name[0].isupper():  # a class of ours is meant wherever it is looked for
            return getattr(top, name)
        try:
            return getattr(importlib.import_module(module), name)
        except AttributeError as error:
            raise AttributeError(f"neither {_OURS} nor {module} has the name {name!r}") from error

    return __getattr__


class _Finder:
    """Makes `animagic.models.unets` and the like, where this library has no such module, from those of diffusers."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        theirs = f"diffusers.{rest}"
        if package != _OURS or not rest or importlib.util.find_spec(theirs) is None:
            return None
        return ModuleSpec(name, _Loader(theirs), is_package=True)  # type: ignore[arg-type]


class _Loader:
    def __init__(self, theirs: str):
        self.theirs = theirs

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = f"The names of {self.theirs}."
        vars(module)["__getattr__"] = names_of(self.theirs)


def install() -> None:
    """Let Python find the modules of diffusers under our name, after all that are really there."""
    if _Finder not in sys.meta_path:
        sys.meta_path.append(_Finder)
