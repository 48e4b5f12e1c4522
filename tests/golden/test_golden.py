"""The text of every stage of every program is kept in this folder; `make golden` rewrites it after a change."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tpc
from tpc.emit import STAGES
from tpc.errors import UsageError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDED = ("limit", "numpy")
KERNEL_STAGES = tuple(stage for stage in STAGES if stage not in ("program", "update", "cuda"))
KERNELS = (("mlp", "ntk"), ("mlp", "nngp"), ("resmlp", "ntk"))
PROGRAMS = sorted(p.stem for p in (ROOT / "programs").glob("*.py") if not p.stem.startswith("_"))
PROGRAMS.remove("cnn")  # without golden texts until every stage has positions


@pytest.fixture(scope="module")
def limits():
    return {name: tpc.compile(tpc.load(ROOT / "programs" / f"{name}.py")) for name in PROGRAMS}


def compare(text, name, what, update):
    file = HERE / name / f"{what}.txt"
    if update:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.is_file(), f"no golden text for {what} of {name}: run `make golden` and read what it writes"
    assert text == file.read_text(encoding="utf-8"), f"{what} of {name} changed: if that is intended, run `make golden`"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_stage(limits, name, stage, update_golden):
    compare(limits[name].emit(stage), name, stage, update_golden)


@pytest.mark.parametrize("stage", FOLDED)
def test_folded_stage(limits, stage, update_golden):
    compare(limits["mlp"].emit(stage, 2), "mlp", f"folded-{stage}", update_golden)


@pytest.fixture(scope="module")
def kernel_limits():
    return {(n, kind): tpc.compile(tpc.load(ROOT / "programs" / f"{n}.py"), limit=kind) for n, kind in KERNELS}


@pytest.mark.parametrize("stage", [*KERNEL_STAGES, "summary"])
@pytest.mark.parametrize(("name", "kind"), KERNELS)
def test_kernel_stage(kernel_limits, name, kind, stage, update_golden):
    limit = kernel_limits[name, kind]
    text = limit.summary() if stage == "summary" else limit.emit(stage)
    assert str(ROOT) not in text
    compare(text, name, f"{kind}-{stage}", update_golden)


@pytest.mark.parametrize("name", PROGRAMS)
def test_summary(limits, name, update_golden):
    compare(limits[name].summary(), name, "summary", update_golden)


def test_no_golden_text_is_left_over():
    kept = {str(f.relative_to(HERE)) for f in HERE.rglob("*.txt")}
    wanted = {f"{name}/{what}.txt" for name in PROGRAMS for what in (*STAGES, "summary")}
    wanted |= {f"mlp/folded-{stage}.txt" for stage in FOLDED}
    assert kept == wanted | {f"{n}/{kind}-{stage}.txt" for n, kind in KERNELS for stage in (*KERNEL_STAGES, "summary")}


def test_texts_hold_no_path_of_this_machine(limits):
    for name, limit in limits.items():
        for stage in STAGES:
            text = limit.emit(stage)
            assert str(ROOT) not in text, (name, stage)
            assert text.endswith("\n"), (name, stage)


def test_texts_do_not_depend_on_the_order_of_hashes():
    code = (
        "import sys, hashlib, tpc\n"
        "from tpc.emit import STAGES\n"
        "for path in sys.argv[1:]:\n"
        "    limit = tpc.compile(tpc.load(path))\n"
        "    for stage in STAGES:\n"
        "        print(stage, hashlib.sha256(limit.emit(stage).encode()).hexdigest())\n"
        "    if 'maml' not in path:\n"
        "        kernels = tpc.compile(tpc.load(path), limit='ntk')\n"
        "        print('ntk', hashlib.sha256((kernels.emit('limit') + kernels.emit('c')).encode()).hexdigest())\n"
    )
    paths = [str(ROOT / "programs" / f"{name}.py") for name in PROGRAMS]
    seen = {
        subprocess.run(
            [sys.executable, "-c", code, *paths],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
    assert len(seen.pop().splitlines()) == len(PROGRAMS) * (len(STAGES) + 1) - 1  # maml.py has no kernel limit


def test_an_unknown_stage(limits):
    with pytest.raises(UsageError, match=r"expected a stage among program, backward, limit.*, got 'assembly'"):
        limits["mlp"].emit("assembly")
