"""Finite networks from the command line: runs, resuming, evaluation, report, few-shot tasks, mistakes."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import cli
import tpc
from tpc.available import Available
from tpc.data.classes import ClassTable
from tpc.errors import UserError
from tpc.runtime.models.memory import LIBRARIES, Training
from tpc.runtime.networks.network import Network
from tpc.runtime.networks.network_memory import predict_network, require_network_memory
from tpc.runtime.training.rundir import RunDir
from tpc.tasks import fewshot

ROOT = Path(__file__).parents[2]
MLP, MAML = ROOT / "programs" / "mlp.py", ROOT / "programs" / "maml.py"
QUICK = ("--width", 48, "--limit-train-size", 200, "--batch-size", 16, "--momentum", 0.5, "--lr", 0.3)
KINDS = {"mup": (), "pi": ("--parametrization", "pi", "--rank", 12)}


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], prog_name="tpc", catch_exceptions=False)


def records(path):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in RunDir(path).read_metrics()]


def network(path):
    return Network.load(RunDir(path).checkpoints.require().model_path)


@pytest.fixture(scope="module", params=KINDS)
def finished(request, tmp_path_factory):
    """An uninterrupted run of two epochs."""
    path = tmp_path_factory.mktemp("runs") / request.param
    result = invoke("train", MLP, *QUICK, *KINDS[request.param], "--epochs", 2, "--out", path)
    assert result.exit_code == 0, result.output
    return request.param, path, result.output


def test_a_run_tells_what_is_trained_and_learns(finished):
    kind, path, output = finished
    size = "width 48, rank 12" if kind == "pi" else "width 48"
    assert output.startswith(f"{kind} network of mlp on digits: 200 training and 297 test samples, {size}, numpy")
    assert "atoms" not in output
    config = tomllib.loads((path / "config.toml").read_text())
    assert config["width"] == 48
    assert config.get("parametrization", "mup") == kind
    assert records(path)[-1]["atoms"] == {}
    assert records(path)[-1]["test_accuracy"] > (0.6 if kind == "mup" else 0.15)
    net = network(path)
    assert net.parametrization == kind
    assert net.state()["hidden1"].shape == (48, 48)


def test_the_report_shows_the_parametrization_and_no_limit(finished):
    kind, path, _ = finished
    page = (path / "report.html").read_text(encoding="utf-8")
    assert f"{kind} network of mlp on digits" in page
    assert 'id="parametrization"' in page
    assert "<td>readout.bias</td><td>finite</td>" in page
    for section in ("graph", "limit", "kernels", "update"):
        assert f'id="{section}"' not in page
        assert f'href="#{section}"' not in page


def test_a_resumed_run_equals_an_uninterrupted_one(finished, tmp_path):
    kind, path, _ = finished
    first = invoke("train", MLP, *QUICK, *KINDS[kind], "--epochs", 1, "--out", tmp_path / "r", "--no-report")
    assert first.exit_code == 0, first.output
    result = invoke("train", "--resume", tmp_path / "r", "--epochs", 2, "--no-report")
    assert result.exit_code == 0, result.output
    assert records(path) == records(tmp_path / "r")
    for name, value in network(path).state().items():
        assert value.tobytes() == network(tmp_path / "r").state()[name].tobytes(), name


def test_eval_agrees_with_the_end_of_training(finished):
    _, path, _ = finished
    found = json.loads(invoke("eval", path, "--json").output)
    assert found["accuracy"] == pytest.approx(records(path)[-1]["test_accuracy"])


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("width = 64", "width = 64 but the checkpoint was trained with 48"),
        ("", "width = its default but the checkpoint was trained with 48"),
    ],
)
def test_a_config_edited_into_another_network_is_refused(finished, tmp_path, entry, told):
    kind, path, _ = finished
    if kind == "pi" and not entry:
        told = "parametrization (--parametrization) is one of finite networks"
    config = path / "config.toml"
    before = config.read_text()
    try:
        config.write_text(before.replace("width = 48", entry))
        result = invoke("train", "--resume", path, "--epochs", 3)
    finally:
        config.write_text(before)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--parametrization", "ntk"), "give --width, too"),
        (("--width", 9, "--mode", "folded"), "stores no atoms: leave out --mode"),
        (("--width", 9, "--storage", "float16"), "stores no atoms: leave out --storage"),
        (("--width", 9, "--backend", "native"), "run on the backends numpy and cupy, got 'native'"),
        (("--width", 9, "--init", "paper"), "expected init among random, zero_readout with mup, got 'paper'"),
        (("--width", 9, "--parametrization", "pi"), "expected a width of at least the rank 100, got 9"),
        (("--width", 9, "--lr-mult", "embd=2"), "there is no parameter called 'embd'"),
    ],
)
def test_options_that_do_not_go_together_are_told(tmp_path, options, told):
    result = invoke("train", MLP, *options, "--out", tmp_path / "r")
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
    assert not (tmp_path / "r").exists()


class _Tables:
    """Class tables in place of Omniglot: every class a point with noise around it."""

    def __init__(self):
        rng = np.random.default_rng(0)
        centres = rng.integers(0, 255, (36, 1, 30))
        images = np.clip(centres + rng.integers(-60, 60, (36, 20, 30)), 0, 255).astype(np.uint8)
        whole = ClassTable(images, tuple(f"alphabet{k % 2}/{k}" for k in range(36)))
        parts = (range(20), range(20, 26), range(26, 36))
        self.train, self.validation, self.test = (whole.take(list(part)) for part in parts)
        self.split = "made"


def test_a_network_that_adapts_learns_tasks(tmp_path, monkeypatch):
    monkeypatch.setattr(fewshot, "load_omniglot", lambda folder, split: _Tables())
    quick = ("--set", "classes=3", "--ways", 3, "--tasks", 4, "--batches", 30, "--episodes", 20, "--epochs", 2)
    out = tmp_path / "r"
    result = invoke("fewshot", MAML, *quick, "--width", 64, "--lr", 8, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("mup network of maml on omniglot: 3-way 1-shot")
    assert "features" not in [p.stem for p in (out / "plots").iterdir()]
    found = json.loads(invoke("eval", out, "--json", "--episodes", 60).output)
    assert found["accuracy"] > 0.55  # by chance: a third


def test_memory_is_predicted_and_refused(tmp_path):
    program = tpc.load(MLP)
    net = Network(program, 4096, 3072)
    training = Training(input_dim=3072, rank=1, samples=1000, batch=8)
    prediction = predict_network(net, training)
    weights = 4 * (4096 * (3072 + 4096 + 10 + 2) + 10)
    assert prediction.parts["weights"] == weights
    assert require_network_memory(net, training, lambda: None) == prediction
    with pytest.raises(UserError, match=r"width 4096 needs about .* 0\.12 GB weights.*Take a smaller --width"):
        require_network_memory(net, training, lambda: Available(10**6, "test"))
    assert require_network_memory(net, training, lambda: Available(prediction.peak - LIBRARIES, "test"))


MEASURE = """
import sys
import numpy as np
import sklearn.datasets
import tpc
from tpc.runtime.training.evaluation import evaluate

width, momentum = int(sys.argv[1]), float(sys.argv[2])
net = tpc.finite(tpc.load("programs/mlp.py"), width, 500)
rng = np.random.default_rng(0)
x, y = rng.standard_normal((300, 500), dtype=np.float32), rng.integers(0, 10, 300)
for k in range(2):
    net.step(x[:32], y[:32], lr=0.01, momentum=momentum)
evaluate(net, x, y)
lines = open("/proc/self/status").read().splitlines()
print(1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]))
"""


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_memory_is_what_was_predicted(momentum):
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not tell a process its peak")
    run = [sys.executable, "-c", MEASURE, "2000", str(momentum)]
    found = int(subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    net = Network(tpc.load(MLP), 2000, 500)
    training = Training(input_dim=500, rank=1, samples=300, batch=32, momentum=momentum, data_bytes=300 * 500 * 4)
    assert 0.6 < found / predict_network(net, training).peak < 1.0
