"""The house rules that a reader relies on: imports run one way, and the symbolic half knows no arrays.

Every import counts, within functions and for annotations, too.
"""

import ast
from pathlib import Path

import networkx as nx
import pytest

ROOT = Path(__file__).parents[2]
ORDER = [
    "version", "errors", "private", "available", "words", "program", "passes", "gaussian", "limits", "lower",
    "backends", "derivation", "runtime", "draw", "summary", "emit", "notebook", "compiler", "data", "tasks", "report",
    "cli",
]  # fmt: skip
# the front doors: what is imported when a name is first asked for, which keeps the start-up short
EXEMPT = {"tpc", "tpc.gaussian", "cli"}
# where Gaussian expectations become numbers: quadrature, and the tables built by it
NUMERIC = {"evaluate", "fitting", "kept", "near_zero", "numeric", "point", "remainder", "smoothing", "table"}
ARRAYS = {"numpy", "scipy", "mpmath", "cupy", "sklearn", "matplotlib"}
FILES = sorted(p for folder in ("tpc", "programs", "backends") for p in (ROOT / folder).rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES if path.parts[-2] != "programs"}


def imported(path):
    """Every module that a file names in an import, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            own = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in own if name in MODULES)
            if any(name not in MODULES for name in own):
                yield node.module


def place(module):
    """The position of a module in the order; None for what is not the project's."""
    top, _, rest = module.partition(".")
    if top == "tpc":
        return ORDER.index(rest.partition(".")[0]) if rest else len(ORDER)
    return ORDER.index(top) if top in ("backends", "cli") else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    if path.parts[-2] == "programs":
        assert {m.split(".")[0] for m in imported(path)} <= {"tpc"}
    elif name_of(path) not in EXEMPT:
        own = place(name_of(path))
        for module in imported(path):
            target = place(module)
            assert target is None or target <= own, f"{module} comes after {name_of(path)}"


def test_nothing_goes_in_circles():
    edges = [(name, m) for name, path in MODULES.items() for m in imported(path) if m in MODULES and m != name]
    graph = nx.DiGraph(edges)
    graph.remove_nodes_from(EXEMPT)
    circles = [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]
    assert not circles


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_symbolic_half_knows_no_arrays(path):
    own = path.relative_to(ROOT).with_suffix("").parts
    if own[0] == "tpc" and own[1] in ("program", "passes", "gaussian", "limits") and own[-1] not in NUMERIC:
        assert not {m.split(".")[0] for m in imported(path)} & ARRAYS


def test_the_rules_are_about_files_that_exist():
    names = {
        path.relative_to(ROOT).with_suffix("").parts[1] for path in FILES if path.relative_to(ROOT).parts[0] == "tpc"
    }
    assert {*ORDER, "__init__"} == names | {"backends"}
    assert {p.stem for p in (ROOT / "tpc" / "gaussian").glob("*.py")} >= NUMERIC
