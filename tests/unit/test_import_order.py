"""The house rules that a reader relies on: imports run one way, and the symbolic half knows no arrays."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = [
    "errors", "private", "available", "program", "passes", "gaussian", "limits", "lower", "compiler", "runtime", "draw",
    "data", "tasks", "report",
]  # fmt: skip
# the front doors of the package: they may use everything in it, and only at call time where a layer calls them back
ENTRANCES = {"__init__", "emit", "cli"}
# where Gaussian expectations become numbers: quadrature, and the tables built by it
NUMERIC = {"evaluate", "fitting", "kept", "near_zero", "numeric", "remainder", "smoothing", "table"}
ARRAYS = {"numpy", "scipy", "mpmath", "cupy", "sklearn", "matplotlib"}
FILES = sorted(p for folder in ("tpc", "programs", "backends") for p in (ROOT / folder).rglob("*.py"))


def imported(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def layer(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "tpc" and len(parts) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    own = path.relative_to(ROOT).with_suffix("").parts
    if own[0] == "programs":
        assert {m.split(".")[0] for m in imported(path)} <= {"tpc"}
    elif own[0] == "backends":
        assert all(m.split(".")[0] != "cli" for m in imported(path))
    elif own[1] not in ENTRANCES:
        place = ORDER.index(own[1])
        for module in imported(path, top_level_only=True):
            assert module.split(".")[0] not in ("backends", "cli"), module
            target = layer(module)
            if target is not None:
                assert target in ORDER, f"{module} is an entrance"
                assert ORDER.index(target) <= place, module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_symbolic_half_knows_no_arrays(path):
    own = path.relative_to(ROOT).with_suffix("").parts
    if own[0] == "tpc" and own[1] in ("program", "passes", "gaussian", "limits") and own[-1] not in NUMERIC:
        assert not {m.split(".")[0] for m in imported(path)} & ARRAYS


def test_the_rules_are_about_files_that_exist():
    names = {p.relative_to(ROOT).with_suffix("").parts[1] for p in FILES if p.relative_to(ROOT).parts[0] == "tpc"}
    assert set(ORDER) <= names
    assert names >= ENTRANCES
    assert {p.stem for p in (ROOT / "tpc" / "gaussian").glob("*.py")} >= NUMERIC
