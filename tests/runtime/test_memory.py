"""Memory of a training: predicted before it starts, against what it really takes; refused with advice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import cli
import tpc
from tpc.available import Available, available
from tpc.errors import UserError
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.memory import LIBRARIES, PLOTS, Training, gigabytes, predict_peak, require_memory
from tpc.tasks import run as runs

ROOT = Path(__file__).parents[2]
MLP = ROOT / "programs" / "mlp.py"
CIFAR = {"input_dim": 3072, "samples": 50_000, "batch": 8, "epochs": 50, "data_bytes": 60_000 * 3072 * 4}
TANH = """import tpc


def net(x, *, classes: int = 10):
    h = tpc.dense(x, name="embed")
    return tpc.readout(tpc.tanh(tpc.dense(tpc.tanh(h), name="hidden1")), classes, name="readout")
"""
GATE = """import tpc


def net(x, *, classes: int = 10):
    a, b = (tpc.dense(x, name=name, space="inner") for name in ("gate", "value"))
    return tpc.readout(tpc.relu(tpc.dense(tpc.erf(a) * b, name="hidden1")), classes, name="readout")
"""
MEASURE = """
import json, resource, sys
import numpy as np
import sklearn.datasets
import tpc
from tpc.runtime.training.evaluation import evaluate
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.memory import Training, predict_peak

given = json.loads(sys.argv[1])
steps, fold, program = given.pop("steps"), given.pop("fold", None), given.pop("program")
limit = tpc.compile(tpc.load(program))
rng = np.random.default_rng(0)
x = 0.3 * rng.standard_normal((given["samples"], given["input_dim"]), dtype=np.float32)
y = rng.integers(0, 10, len(x))
options = {k: given[k] for k in ("input_dim", "rank", "backend", "mode", "storage") if k in given}
if fold:
    options["fold"] = given["fold"] = FoldOptions(**fold)
model = limit.build(**options)
for k in range(steps):
    rows = slice(k * given["batch"], (k + 1) * given["batch"])
    model.step(x[rows], y[rows], lr=0.01, momentum=given.get("momentum", 0.0))
evaluate(model, x[:300], y[:300])
try:  # of this program alone: ru_maxrss counts the process it was forked from
    lines = open("/proc/self/status").read().splitlines()
    peak = 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([peak, predict_peak(limit, Training(**given, data_bytes=x.nbytes + y.nbytes)).peak]))
"""
MEASURE_FEW = """
import json, resource, sys
import numpy as np
import sklearn.datasets
import tpc
from tpc.data.classes import ClassTable
from tpc.data.episodes import episodes
from tpc.runtime.training.episodic import answer, batch_of
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.memory import Training, predict_peak

given, job = json.loads(sys.argv[1]), json.loads(sys.argv[2])
if "fold" in given:
    given["fold"] = FoldOptions(**given["fold"])
limit = tpc.compile(tpc.load(job["program"], classes=job["ways"], **job.get("settings", {})))
pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 784), dtype=np.uint8)
table = ClassTable(pixels, tuple(f"Greek/character{k}/rot000" for k in range(30)))

def draw(tasks, index):
    each = {name: job[name] for name in ("ways", "shots", "queries")}
    return episodes(table, **each, tasks=tasks, seed=0, index=index)

options = {k: given[k] for k in ("rank", "backend", "mode", "storage", "fold") if k in given}
model = limit.build(784, **options)
for k in range(job["steps"]):
    batch = batch_of(draw(job["tasks"], k))
    model.step(batch.x, batch.y, lr=1e-4, clip=0.1 if given.get("clip") else None, **batch.options)
answer(model, draw, 150, table.alphabets)
lines = open("/proc/self/status").read().splitlines()
peak = 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
queries, support = (job["tasks"] * job["ways"] * job[name] for name in ("queries", "shots"))
training = Training(784, samples=queries * job["steps"], batch=queries, support=support, tasks=job["tasks"],
                    data_bytes=pixels.nbytes, **given)
print(json.dumps([peak, predict_peak(limit, training).peak]))
"""


@pytest.fixture(scope="module")
def limit():
    return tpc.compile(tpc.load(str(MLP)))


def fitting(limit, gigabytes_free, **changes):
    """The message of a refusal."""
    with pytest.raises(UserError) as refused:
        require_memory(limit, Training(**{**CIFAR, "rank": 400, **changes}), lambda: free(gigabytes_free))
    assert refused.value.exit_code == 1
    return str(refused.value)


def free(gigabytes):
    return Available(int(gigabytes * 1e9), "free memory of the machine")


@pytest.mark.parametrize(
    "given",
    [
        {"input_dim": 64, "rank": 600, "batch": 512, "steps": 10},
        {"input_dim": 64, "rank": 600, "batch": 512, "steps": 10, "backend": "native", "storage": "bfloat16"},
        {"input_dim": 64, "rank": 100, "batch": 32, "steps": 40, "backend": "native"},
        {"input_dim": 64, "rank": 400, "batch": 64, "steps": 12, "mode": "folded", "fold": {"window": 256}},
        {"input_dim": 64, "rank": 100, "batch": 16, "steps": 18, "mode": "folded", "program": "tanh",
         "fold": {"window": 64, "degree": 3}, "momentum": 0.3},
        {"input_dim": 64, "rank": 300, "batch": 64, "steps": 12, "mode": "folded", "program": "gate",
         "fold": {"window": 256, "degree": 2}, "backend": "native"},
        {"input_dim": 64, "rank": 100, "batch": 16, "steps": 18, "mode": "folded", "program": "gate",
         "fold": {"window": 64, "degree": 3}},
        {"input_dim": 64, "rank": 400, "batch": 16, "steps": 40, "mode": "folded", "fold": {"window": 256},
         "backend": "native", "storage": "bfloat16"},
        {"input_dim": 64, "rank": 200, "batch": 64, "steps": 16, "mode": "folded",
         "fold": {"window": 256, "points": 12_000}},
    ],
    ids=["exact", "16 bits", "native", "folded", "degree 3", "gate", "gate of degree 3", "folded, 16 bits", "sampled"],
)  # fmt: skip
def test_the_prediction_is_a_close_bound_of_what_training_takes(given, tmp_path):
    program = str(MLP)
    if "program" in given:
        program = str(tmp_path / "net.py")
        Path(program).write_text({"tanh": TANH, "gate": GATE}[given["program"]])
    given = {**given, "program": program, "samples": given["batch"] * given["steps"]}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(given)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "TPC_THREADS": "1"},
    )
    measured, predicted = json.loads(done.stdout)
    assert measured <= predicted <= 1.15 * measured + PLOTS  # no plots were drawn


@pytest.mark.parametrize(
    ("given", "job"),
    [
        ({"rank": 300, "clip": True}, {"tasks": 40, "steps": 4}),
        ({"rank": 300, "backend": "native", "storage": "bfloat16"}, {"tasks": 40, "steps": 10, "shots": 5}),
        ({"rank": 400, "mode": "folded", "clip": True, "fold": {"window": 256}}, {"tasks": 8, "steps": 12}),
        ({"rank": 300, "mode": "folded", "backend": "native", "fold": {"window": 256}}, {"tasks": 8, "steps": 12}),
        ({"rank": 200}, {"tasks": 20, "steps": 3, "queries": 12, "shots": 6}),
    ],
    ids=["exact", "16 bits", "folded", "native folded", "sample pairs"],
)
def test_the_prediction_is_a_close_bound_of_few_shot_training(given, job):
    job = {"ways": 5, "shots": 1, "queries": 1, **job, "program": str(ROOT / "programs" / "maml.py")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_FEW, json.dumps(given), json.dumps(job)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "TPC_THREADS": "1"},
    )
    measured, predicted = json.loads(done.stdout)
    print(measured, predicted)
    assert measured <= predicted <= 1.15 * measured + PLOTS  # no plots were drawn


def test_exact_atoms_are_counted_to_the_end_of_the_run(limit):
    parts = predict_peak(limit, Training(**CIFAR, rank=400)).parts
    atoms = 400 + 50 * 50_000
    assert parts["atoms of hidden1"] == pytest.approx(atoms * 800 * 4, rel=1e-3)
    assert parts["atoms of readout"] == pytest.approx(atoms * 410 * 4, rel=2e-3)
    narrow = predict_peak(limit, Training(**CIFAR, rank=400, backend="native", storage="bfloat16")).parts
    assert narrow["atoms of hidden1"] == pytest.approx(atoms * 800 * 2, rel=1e-2)
    momentum = predict_peak(limit, Training(**CIFAR, rank=400, momentum=0.9)).parts
    assert momentum["atoms of hidden1"] - parts["atoms of hidden1"] == 16 * atoms


def test_atoms_are_those_a_model_has(limit):
    x = np.random.default_rng(0).standard_normal((40, 8))
    model = limit.build(input_dim=8, rank=6)
    for _ in range(3):
        model.step(x, np.arange(40) % 10, lr=0.1)
    parts = predict_peak(limit, Training(input_dim=8, rank=6, samples=40, batch=40, epochs=3)).parts
    rows = {name: 4 * (6 + width) for name, width in (("hidden1", 6), ("readout", 10))}
    for name, bytes_of_one in rows.items():
        assert model.atoms[name] * bytes_of_one <= parts[f"atoms of {name}"] <= 2 * model.atoms[name] * bytes_of_one


def test_folded_memory_does_not_grow_with_the_run(limit):
    def peak(epochs, **more):
        return predict_peak(limit, Training(**{**CIFAR, "epochs": epochs}, rank=400, mode="folded", **more)).peak

    assert peak(1) == peak(50)
    tensors = 400 * (1 + 400 + 400 * 401 // 2) * 4
    parts = predict_peak(limit, Training(**CIFAR, rank=400, mode="folded")).parts
    assert parts["folded atoms of hidden1"] == tensors
    assert peak(50, momentum=0.99) > peak(50)  # atoms wait until their momentum has died out


def test_a_folded_model_of_many_gigabytes_is_predicted_without_being_built(tmp_path):
    (tmp_path / "tanh.py").write_text(TANH)
    limit = tpc.compile(tpc.load(str(tmp_path / "tanh.py")))
    cubic = FoldOptions(degree=3)
    message = fitting(limit, 8, mode="folded", fold=cubic)
    assert "17.2 GB folded atoms of hidden1" in message
    assert "--fold-degree 2 (about" in message
    assert "--rank" in message


def test_a_refusal_says_numbers_and_what_would_fit(limit):
    message = fitting(limit, 8)
    assert "needs about 13.9 GB" in message
    assert "8.01 GB atoms of hidden1, 4.10 GB atoms of readout" in message
    assert f"It can have {gigabytes(8e9 + LIBRARIES + CIFAR['data_bytes'])} (free memory of the machine)" in message
    advice = message.partition("What would fit: ")[2]
    order = ["--mode folded (about 1", "--backend native --storage bfloat16 (about 7", "--rank ", "--epochs "]
    assert [advice.index(option) for option in order] == sorted(advice.index(option) for option in order)
    assert "\n" not in message


@pytest.mark.parametrize("space", [3, 8])
def test_advice_fits(limit, space):
    advice = fitting(limit, space).partition("What would fit: ")[2].rstrip(".").split("; ")
    fields = {"rank": int, "epochs": int, "mode": str, "storage": str, "backend": str}
    for option in advice:
        words = option.partition(" (")[0].split()
        changes = {w[2:]: fields[w[2:]](value) for w, value in zip(words[::2], words[1::2])}
        require_memory(limit, Training(**{**CIFAR, "rank": 400, **changes}), lambda: free(space))


def test_where_folding_alone_does_not_fit_a_smaller_rank_is_told_with_it(limit):
    assert "What would fit: --mode folded --rank 2" in fitting(limit, 0.2)
    assert "No change of one option makes it fit" in fitting(limit, -1)


def test_a_resumed_run_can_only_be_shortened(limit):
    message = fitting(limit, 8, done=1_000_000)
    assert "--epochs" in message
    assert not any(option in message for option in ("--rank", "--mode", "--storage"))


def test_reading_a_checkpoint_takes_more_than_the_little_that_is_left(limit):
    whole = {**CIFAR, "rank": 400}
    assert predict_peak(limit, Training(**whole, done=2_500_000)).peak > predict_peak(limit, Training(**whole)).peak
    assert predict_peak(limit, Training(**whole, done=1000)).peak == predict_peak(limit, Training(**whole)).peak


def test_nothing_is_refused_where_nothing_is_known(limit):
    assert require_memory(limit, Training(**CIFAR, rank=4000), lambda: None).peak > 1e11


# --- what is available -----------------------------------------------------------------------------------------------


def written(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = "MemTotal:       24684312 kB\nMemFree:        20000000 kB\nMemAvailable:   23000000 kB\n"


def test_free_memory_of_the_machine(tmp_path):
    found = available(written(tmp_path, {"proc/meminfo": MEMINFO}))
    assert found == Available(23_000_000 * 1024, "free memory of the machine")


def test_a_control_group_and_those_around_it_set_limits(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/inner/memory.max": "max\n",
        "sys/fs/cgroup/outer/inner/memory.current": "1000\n",
        "sys/fs/cgroup/outer/memory.max": "5000000\n",
        "sys/fs/cgroup/outer/memory.current": "3000000\n",
        "sys/fs/cgroup/outer/memory.stat": "anon 7\nactive_file 400000\ninactive_file 600000\n",
    }
    found = available(written(tmp_path, files))
    assert found == Available(3_000_000, "memory limit of the control group")


def test_version_1_of_control_groups(tmp_path):
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "11:cpu,cpuacct:/\n4:memory:/job\n",
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "8000000\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "3000000\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000000\n",
    }
    assert available(written(tmp_path, files)) == Available(5_000_000, "memory limit of the control group")


def test_no_limit_is_known_without_files(tmp_path):
    assert available(tmp_path) is None


# --- the command line ------------------------------------------------------------------------------------------------


def train(*arguments):
    return CliRunner().invoke(cli.main, ["train", *map(str, arguments), "--no-report"], prog_name="tpc")


def test_the_first_line_says_the_prediction_and_a_refusal_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = (MLP, "--rank", 8, "--epochs", 1, "--limit-train-size", 64)
    result = train(*options, "--out", "run")
    assert result.exit_code == 0, result.output
    assert "memory at most about 0.2" in result.output.splitlines()[0]
    monkeypatch.setattr(runs, "require_memory", lambda limit, t: require_memory(limit, t, lambda: free(0.12)))
    refused = train(*options[:1], "--rank", 100, "--epochs", 2000, "--out", "other")
    assert refused.exit_code == 1
    assert refused.output.startswith("error: this training needs about")
    assert not Path("other").exists()
    before = {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()}
    again = train("--resume", "run", "--epochs", 1_000_000)
    assert again.exit_code == 1
    assert "--epochs" in again.output
    assert {p: p.read_bytes() for p in Path("run").rglob("*") if p.is_file()} == before
