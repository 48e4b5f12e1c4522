"""Texts of passes and stages are kept in this folder; `make golden` rewrites them after a change.

Every pass is kept as what it changes of a small network, every stage of one program, the short stages of the others.
"""

import os
import subprocess
import sys
from difflib import unified_diff
from pathlib import Path

import pytest

import tpc
from tpc.derivation import Derivation
from tpc.emit import STAGES
from tpc.errors import UsageError
from tpc.limits.kinds import LIMITS
from tpc.program.text import listing

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = sorted(p.stem for p in (ROOT / "programs").glob("*.py") if not p.stem.startswith("_"))
SHORT = ("program", "backward", "limit", "update", "kernels", "numpy")  # of all programs; of the first every stage
STAGED = {name: tuple(STAGES) if name == "mlp" else SHORT for name in PROGRAMS}
FOLDED = ("limit", "numpy")
KERNELS = {
    ("mlp", "ntk"): tuple(stage for stage in STAGES if stage not in ("program", "update", "cuda")),
    ("mlp", "nngp"): ("limit", "numpy", "c"),
    ("resmlp", "ntk"): ("backward", "limit", "kernels"),
}
HEADERS = {
    file.read_text(encoding="utf-8").strip(): file.name
    for file in (*(ROOT / "tpc" / "lower").glob("*.h"), *(ROOT / "backends").glob("*.h"))
}


def network(x, *, classes=3):
    """Small enough to read what every pass does to it."""
    h = tpc.dense(x, name="embed") + tpc.bias("embed")
    return tpc.readout(tpc.erf(tpc.dense(tpc.relu(tpc.rms_norm(h)), name="hidden")), classes)


def without_headers(text):
    """Generated C and CUDA with the name of every header of the project in place of its text."""
    for header, name in HEADERS.items():
        text = text.replace(header, f"// {name}")
    return text


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


@pytest.mark.parametrize("kind", LIMITS)
def test_every_pass_of_a_small_network(kind, update_golden):
    program = tpc.trace(network)
    before = listing(program)
    for k, (name, made) in enumerate(Derivation.of(program, kind).stages("mse"), 1):
        text = listing(made)
        compare("".join(unified_diff(before.splitlines(True), text.splitlines(True), "before", name, n=1)),
                "passes", f"{kind}-{k}-{name}", update_golden)  # fmt: skip
        before = text
    compare(listing(program), "passes", "program", update_golden)


@pytest.mark.parametrize(("name", "stage"), [(name, stage) for name, stages in STAGED.items() for stage in stages])
def test_stage(limits, name, stage, update_golden):
    compare(without_headers(limits[name].emit(stage)), name, stage, update_golden)


@pytest.mark.parametrize("stage", FOLDED)
def test_folded_stage(limits, stage, update_golden):
    compare(limits["mlp"].emit(stage, 2), "mlp", f"folded-{stage}", update_golden)


@pytest.fixture(scope="module")
def kernel_limits():
    return {(n, kind): tpc.compile(tpc.load(ROOT / "programs" / f"{n}.py"), limit=kind) for n, kind in KERNELS}


@pytest.mark.parametrize(("key", "stage"), [(key, s) for key, stages in KERNELS.items() for s in (*stages, "summary")])
def test_kernel_stage(kernel_limits, key, stage, update_golden):
    limit, (name, kind) = kernel_limits[key], key
    text = limit.summary() if stage == "summary" else limit.emit(stage)
    assert str(ROOT) not in text
    compare(without_headers(text), name, f"{kind}-{stage}", update_golden)


@pytest.mark.parametrize("name", PROGRAMS)
def test_summary(limits, name, update_golden):
    compare(limits[name].summary(), name, "summary", update_golden)


def test_no_golden_text_is_left_over():
    kept = {str(f.relative_to(HERE)) for f in HERE.rglob("*.txt")}
    wanted = {f"{name}/{what}.txt" for name, stages in STAGED.items() for what in (*stages, "summary")}
    wanted |= {f"mlp/folded-{stage}.txt" for stage in FOLDED}
    wanted |= {f"{n}/{kind}-{s}.txt" for (n, kind), stages in KERNELS.items() for s in (*stages, "summary")}
    wanted |= {"passes/program.txt"}
    for kind in LIMITS:
        stages = Derivation.of(tpc.trace(network), kind).stages("mse")
        wanted |= {f"passes/{kind}-{k}-{name}.txt" for k, (name, _) in enumerate(stages, 1)}
    assert kept == wanted


def test_headers_are_found_in_generated_code(limits):
    text = limits["mlp"].emit("c")
    shown = without_headers(text)
    assert [name for name in HEADERS.values() if f"// {name}" in shown]
    assert len(shown) < len(text) / 2


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
