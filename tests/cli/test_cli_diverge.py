"""Training that cannot go on, or cannot begin, says so from the command line with exit code 1."""

import time

import pytest

from tests.support.runs import ROOT, invoke, records
from tpc.runtime.training.checkpoint import CheckpointStore

GATES = '''"""Gated residual blocks."""
import tpc


def gates(x, *, classes=10):
    h = tpc.dense(x, "embed", space="stream")
    for k in range(2):
        g, u = tpc.dense(h, f"gate{k}"), tpc.dense(h, f"up{k}")
        h = h + tpc.dense(tpc.silu(g) * u, f"down{k}", space="stream")
    return tpc.readout(h, classes)
'''


@pytest.mark.parametrize("width", [(), ("--width", 32)])
def test_a_gated_network_that_explodes(tmp_path, width):
    (tmp_path / "gates.py").write_text(GATES)
    rate = () if not width else ("--lr", 50)
    out = tmp_path / "run"
    result = invoke("train", tmp_path / "gates.py", "--rank", 20, "--epochs", 2, "--out", out, *width, *rate)
    assert result.exit_code == 1
    assert "training diverged at step " in result.output
    assert "--lr " in result.output
    assert "--clip 0.4" in result.output
    assert "The checkpoint of step 0 is kept." in result.output
    assert records(out)[-1]["kind"] == "diverged"
    assert CheckpointStore(out / "checkpoints").require().state["position"]["step"] == 0


def test_a_rank_that_does_not_fit_is_refused_at_once(tmp_path):
    started = time.process_time()
    result = invoke("train", ROOT / "programs" / "mlp.py", "--rank", 1_000_000, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "this training needs about" in result.output
    assert time.process_time() - started < 10
    assert not (tmp_path / "run").exists()


def test_a_network_that_joins_samples(tmp_path):
    (tmp_path / "centred.py").write_text(
        '"""Centred."""\nimport tpc\n\n\ndef centred(x, *, classes=10):\n    h = tpc.dense(x, "embed")\n'
        '    return tpc.readout(tpc.relu(h - tpc.total(h, "sample")), classes)\n'
    )
    for command in (("train", "--width", 16), ("train",), ("check",), ("regress", "--limit", "ntk")):
        result = invoke(command[0], tmp_path / "centred.py", *command[1:])
        assert result.exit_code == 2
        assert "depends on other samples" in result.output
        assert "centred.py:7" in result.output
