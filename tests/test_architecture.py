"""The rooms of the house lean on each other in one direction only; import-linter's contracts say which on which."""

from __future__ import annotations

import graphlib

import grimp
import pytest


def test_no_module_imports_itself_through_others():
    graph = grimp.build_graph("animagic", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 50
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
