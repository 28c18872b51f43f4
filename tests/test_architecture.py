"""No module imports itself through others. Which room may use which, the contracts of import-linter say."""

from __future__ import annotations

import graphlib
import importlib
import pkgutil

import grimp
import pytest

import animagic


def test_no_module_imports_itself_through_others():
    """Imports inside functions count, those for type checkers do not."""
    graph = grimp.build_graph("animagic", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 50
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_room_says_what_it_is_for():
    rooms = [module.name for module in pkgutil.walk_packages(animagic.__path__, "animagic.") if module.ispkg]
    assert len(rooms) > 5
    assert [room for room in rooms if not importlib.import_module(room).__doc__] == []
