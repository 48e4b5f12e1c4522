"""Training that diverges stops, says at which step, what, and what would have worked; what looks odd is told."""

import json

import numpy as np
import pytest

import tpc
from tests.runtime.test_trainer import Softmax, samples
from tpc.runtime.training import remedy
from tpc.runtime.training.batches import Samples
from tpc.runtime.training.checkpoint import CheckpointStore
from tpc.runtime.training.rundir import MetricsLog
from tpc.runtime.training.settings import Schedule, TrainSettings
from tpc.runtime.training.trainer import DivergedError, Trainer


def gates(x, *, classes=3):
    h = tpc.dense(x, "embed", space="stream")
    for k in range(2):
        g, u = tpc.dense(h, f"gate{k}"), tpc.dense(h, f"up{k}")
        h = h + tpc.dense(tpc.silu(g) * u, f"down{k}", space="stream")
    return tpc.readout(h, classes)


@pytest.fixture
def trainer():
    logs = []

    def make(path, model, settings, train=None, observer=None):
        log, store = MetricsLog(path / "metrics.jsonl"), CheckpointStore(path / "checkpoints")
        logs.append(log)
        source = Samples(train or samples(), train or samples(20, 1), 8, seed=3, loss=settings.loss)
        return Trainer(model, source, settings, log, store, observer=observer)

    yield make
    for log in logs:
        log.close()


def records(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


class Lines:
    def __init__(self):
        self.said = []

    def step(self, done, fields):
        pass

    def say(self, line):
        self.said.append(line)


@pytest.mark.parametrize("kind", ["limit", "network"])
def test_a_gated_network_at_a_rate_that_is_too_large(trainer, tmp_path, kind):
    program = tpc.trace(gates)
    model = tpc.compile(program).build(5, 8, init="paper") if kind == "limit" else tpc.finite(program, 16, 5)
    watching = Lines()
    run = trainer(tmp_path, model, TrainSettings(epochs=3, lr=Schedule(200.0)), observer=watching)
    with pytest.raises(DivergedError, match=r"training diverged at step \d+ of 21 \(epoch 1, lr 200\)") as caught:
        run.run()
    told = str(caught.value)
    assert "What learns for 20 steps from the checkpoint of step 0: --lr " in told or "Nothing tried learns" in told
    assert "The checkpoint of step 0 is kept." in told
    assert caught.value.exit_code == 1
    assert records(tmp_path)[-1]["kind"] == "diverged"
    saved = type(model).load(CheckpointStore(tmp_path / "checkpoints").require().model_path)
    assert np.isfinite(saved.predict(samples()[0])).all()
    assert any("trying other settings" in line for line in watching.said)


def test_what_is_proposed_works(trainer, tmp_path):
    settings = TrainSettings(epochs=4, lr=Schedule(3.0))
    model = tpc.compile(tpc.trace(gates)).build(5, 8, init="paper")
    run = trainer(tmp_path, model, settings)
    with pytest.raises(DivergedError):
        run.run()
    found = remedy.find_remedy(run, run.checkpoints.require(), False)
    assert found.worked
    for trial in found.worked:
        assert trial.after < trial.before
        name, value = trial.option.split()
        schedule = Schedule(float(value))
        own = {"lr": schedule} if name == "--lr" else {"lr": settings.lr, "clip": schedule}
        (tmp_path / name).mkdir()
        again = tpc.compile(tpc.trace(gates)).build(5, 8, init="paper")
        trainer(tmp_path / name, again, TrainSettings(epochs=3, **own)).run()  # 21 steps


def test_a_step_that_raises_and_an_evaluation_that_is_not_finite(trainer, tmp_path):
    class Raises(Softmax):
        def step(self, x, y, **options):
            if len(self.options) == 4 and options["lr"] > 1:
                raise DivergedError("the step was not taken: w", "w", "gradient", "the gradient of w is not finite")
            return super().step(x, y, **options)

        @classmethod
        def load(cls, path):
            found = super().load(path)
            found.__class__ = cls
            return found

    settings = TrainSettings(epochs=2, lr=Schedule(4.0))
    told = r"at step 5 of 14 .*lr 4\): the gradient of w is not finite\. What.*--lr 1"
    with pytest.raises(DivergedError, match=told):
        trainer(tmp_path, Raises(), settings).run()

    class Blind(Softmax):
        def predict(self, x):
            found = super().predict(x)
            return np.full_like(found, np.inf) if len(x) == 20 else found

    (tmp_path / "blind").mkdir()
    with pytest.raises(DivergedError, match=r"after step 7 of 14 .*outputs of 20 of 20 samples are not finite"):
        trainer(tmp_path / "blind", Blind(), settings).run()


def test_nothing_is_tried_where_memory_is_short(trainer, tmp_path):
    class Full:
        @staticmethod
        def available():
            return type("Left", (), {"bytes": 100})()

    model = Softmax()
    model.backend = Full
    run = trainer(tmp_path, model, TrainSettings(epochs=1))
    run._checkpoint(None)
    assert remedy.find_remedy(run, run.checkpoints.require(), False).told() == ""


def test_a_loss_that_is_absurd_is_told_at_the_end(trainer, tmp_path, capsys):
    class Grows(Softmax):
        def step(self, x, y, **options):
            found = super().step(x, y, **options)
            return {**found, "loss": 2e22 if len(self.options) > 1 else 2.0}

    trainer(tmp_path, Grows(), TrainSettings(epochs=1)).run()
    assert "loss of the last epoch, 1.698e+22, is 8.49e+21 times that of the first step" in capsys.readouterr().err


def test_a_run_without_new_atoms_is_told_at_the_end(trainer, tmp_path, capsys):
    trainer(tmp_path, Softmax(), TrainSettings(epochs=1)).run()
    assert "no atom was added in 7 steps" in capsys.readouterr().err
    (tmp_path / "grows").mkdir()
    model = tpc.compile(tpc.trace(gates)).build(5, 4)
    trainer(tmp_path / "grows", model, TrainSettings(epochs=1, lr=Schedule(0.01))).run()
    assert "warning" not in capsys.readouterr().err


def test_real_values_are_trained_on_and_measured_by_r_squared(trainer, tmp_path):
    x = samples()[0]
    y = np.tanh(x[:, 0])
    program = tpc.trace(lambda x: tpc.readout(tpc.gelu(tpc.dense(x, "embed")), 1), name="values")
    model, watching = tpc.compile(program).build(5, 8, init="paper"), Lines()
    settings = TrainSettings(epochs=4, lr=Schedule(0.2), loss="mse")
    result = trainer(tmp_path, model, settings, (x, y), watching).run()
    assert result.r2 > 0.5
    last = records(tmp_path)[-1]
    assert last["test_r2"] == result.r2
    assert not any("accuracy" in key for key in last)
    assert f"R² {result.r2:.4f}" in watching.said[-1]
