"""The training loop, against a small model with the interface of the real one: softmax regression."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tpc.available import Available
from tpc.runtime.training.batches import Samples
from tpc.runtime.training.checkpoint import CheckpointStore
from tpc.runtime.training.rundir import MetricsLog
from tpc.runtime.training.settings import Schedule, TrainSettings
from tpc.runtime.training.trainer import (
    DivergedError,
    InterruptedRunError,
    OutOfMemoryError,
    Position,
    Trainer,
)

ROOT = Path(__file__).parents[2]


class Softmax:
    """f = x W, trained by SGD with momentum; records the options of every step."""

    def __init__(self, dim=5, classes=3):
        self.W = np.zeros((dim, classes))
        self.m = np.zeros_like(self.W)
        self.options = []
        self.batches = []
        self.on_step = None

    @property
    def atoms(self):
        return {"readout": len(self.W)}

    @property
    def nbytes(self):
        return self.W.nbytes + self.m.nbytes

    def predict(self, x):
        return x @ self.W

    def step(self, x, y, **options):
        self.options.append(options)
        self.batches.append(x)
        f = self.predict(x)
        p = np.exp(f - f.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(len(y)), y]).mean()
        accuracy = np.mean(f.argmax(axis=1) == y)
        p[np.arange(len(y)), y] -= 1
        self.m = options["momentum"] * self.m + x.T @ p / len(y)
        self.W = self.W - options["lr"] * self.m
        if self.on_step:
            self.on_step(len(self.options))
        return {"loss": loss, "accuracy": accuracy}

    def save(self, path):
        np.savez(path, W=self.W, m=self.m)

    @classmethod
    def load(cls, path):
        model = cls()
        with np.load(path) as file:
            model.W, model.m = file["W"], file["m"]
        return model


def samples(n=53, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 5))
    teacher = np.random.default_rng(9).standard_normal((5, 3))
    return x, (x @ teacher).argmax(axis=1)


def train(path, model, settings, checkpoint=None, batch_size=8):
    path.mkdir(exist_ok=True)
    position = Position(**checkpoint.state["position"]) if checkpoint else None
    log = MetricsLog(path / "metrics.jsonl", checkpoint.state["metrics_bytes"] if checkpoint else 0)
    store = CheckpointStore(path / "checkpoints")
    try:
        source = Samples(samples(), samples(20, 1), batch_size, seed=3)
        return Trainer(model, source, settings, log, store, position).run()
    finally:
        log.close()


def records(path):
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


SETTINGS = TrainSettings(epochs=4, lr=Schedule(0.5, ((2, 0.1), (3, 0.5))), momentum=0.9)


def test_trains_and_keeps_the_last_partial_batch(tmp_path):
    model = Softmax()
    result = train(tmp_path, model, SETTINGS)
    assert [len(batch) for batch in model.batches[:7]] == [8] * 6 + [5]
    assert len(model.batches) == 4 * 7
    assert result.accuracy > 0.8
    assert result.confusion.sum() == 20


def test_every_epoch_sees_every_sample_once_in_its_own_order(tmp_path):
    model = Softmax()
    train(tmp_path, model, SETTINGS)
    x, _ = samples()
    epochs = [np.concatenate(model.batches[7 * e : 7 * e + 7]) for e in range(4)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch, axis=0), np.sort(x, axis=0))
    assert not np.array_equal(epochs[0], epochs[1])


def test_learning_rate_and_clip_drop_at_their_epochs(tmp_path):
    model = Softmax()
    settings = TrainSettings(epochs=4, lr=SETTINGS.lr, clip=Schedule(0.4, ((1, 0.5),)), lr_mult={"readout": 4.0})
    train(tmp_path, model, settings)
    np.testing.assert_allclose([o["lr"] for o in model.options[::7]], [0.5, 0.5, 0.05, 0.025])
    np.testing.assert_allclose([o["clip"] for o in model.options[::7]], [0.4, 0.2, 0.2, 0.2])
    assert model.options[0]["lr_mult"] == {"readout": 4.0}


def test_metrics_have_one_line_per_step_and_epoch(tmp_path):
    train(tmp_path, Softmax(), SETTINGS)
    lines = records(tmp_path)
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, 29))
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2, 3, 4]
    first = [line["loss"] for line in lines[:7]]
    np.testing.assert_allclose(epochs[0]["train_loss"], np.average(first, weights=[8] * 6 + [5]))


@pytest.mark.parametrize("stop_at", [1, 7, 10, 14, 27])
def test_a_signal_leaves_a_checkpoint_and_resuming_equals_never_stopping(tmp_path, stop_at):
    whole = Softmax()
    train(tmp_path / "whole", whole, SETTINGS)

    stopped = Softmax()
    stopped.on_step = lambda count: os.kill(os.getpid(), signal.SIGTERM) if count == stop_at else None
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedRunError, match=f"stopped by SIGTERM .* after step {stop_at} of 28.*--resume"):
        train(tmp_path / "run", stopped, SETTINGS)
    assert signal.getsignal(signal.SIGTERM) == before

    checkpoint = CheckpointStore(tmp_path / "run" / "checkpoints").require()
    assert checkpoint.state["position"]["step"] == stop_at
    resumed = Softmax.load(checkpoint.model_path)
    train(tmp_path / "run", resumed, SETTINGS, checkpoint)
    assert resumed.W.tobytes() == whole.W.tobytes()
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def test_resuming_after_lines_were_written_past_the_checkpoint_repeats_none(tmp_path):
    settings = TrainSettings(epochs=2, checkpoint_steps=5)
    train(tmp_path / "whole", Softmax(), settings)

    class Killed(Exception):
        pass

    def kill(count):
        if count == 9:
            raise Killed

    model = Softmax()
    model.on_step = kill
    with pytest.raises(Killed):
        train(tmp_path / "run", model, settings)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # a torn line, as kill -9 leaves it
    checkpoint = CheckpointStore(tmp_path / "run" / "checkpoints").require()
    assert checkpoint.state["position"]["step"] == 7  # the end of the first epoch
    train(tmp_path / "run", Softmax.load(checkpoint.model_path), settings, checkpoint)
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def test_more_epochs_can_follow_a_finished_run(tmp_path):
    train(tmp_path / "long", Softmax(), SETTINGS)
    short = TrainSettings(**{**SETTINGS.__dict__, "epochs": 2})
    train(tmp_path / "run", Softmax(), short)
    checkpoint = CheckpointStore(tmp_path / "run" / "checkpoints").require()
    train(tmp_path / "run", Softmax.load(checkpoint.model_path), SETTINGS, checkpoint)
    assert records(tmp_path / "run") == records(tmp_path / "long")


def test_divergence_stops_with_advice_and_keeps_the_checkpoint(tmp_path):
    model = Softmax()

    def explode(count):
        if count == 9:
            model.W = np.full_like(model.W, np.nan)

    model.on_step = explode
    settings = TrainSettings(epochs=4, lr=Schedule(2.0), checkpoint_steps=3)
    with pytest.raises(DivergedError, match=r"diverged.*--lr 0\.5.*--clip.*checkpoint of step 7 is kept"):
        train(tmp_path, model, settings)
    checkpoint = CheckpointStore(tmp_path / "checkpoints").require()
    assert np.isfinite(Softmax.load(checkpoint.model_path).W).all()
    assert records(tmp_path)[-1]["kind"] == "diverged"


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.runtime.test_trainer import SETTINGS, Softmax, train
from tpc.runtime.training.batches import Samples
from tpc.runtime.training.settings import TrainSettings
model = Softmax()
def slow(count):
    print(count, flush=True)
    time.sleep(0.01)
model.on_step = slow
train(Path(sys.argv[1]), model, TrainSettings(**{{**SETTINGS.__dict__, "checkpoint_steps": 2}}))
"""


def test_kill_9_loses_at_most_the_steps_since_the_last_checkpoint(tmp_path):
    settings = TrainSettings(**{**SETTINGS.__dict__, "checkpoint_steps": 2})
    train(tmp_path / "whole", Softmax(), settings)
    script = KILLED.format(root=str(ROOT))
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE)
    taken = 0
    while taken < 12:
        taken = int(process.stdout.readline())
    time.sleep(0.004)
    process.kill()
    process.stdout.close()
    process.wait()
    checkpoint = CheckpointStore(tmp_path / "run" / "checkpoints").require()
    assert checkpoint.state["position"]["step"] >= 10
    model = Softmax.load(checkpoint.model_path)
    train(tmp_path / "run", model, settings, checkpoint)
    whole = CheckpointStore(tmp_path / "whole" / "checkpoints").require()
    assert model.W.tobytes() == Softmax.load(whole.model_path).W.tobytes()
    assert records(tmp_path / "run") == records(tmp_path / "whole")


def test_out_of_memory_keeps_the_last_checkpoint(tmp_path):
    class Device:
        @staticmethod
        def available():
            return Available(3_000_000, "free memory of a device")

    model = Softmax()
    model.backend = Device
    settings = TrainSettings(epochs=3, lr=Schedule(0.3), checkpoint_steps=2)

    def fails(step):
        if step == 5:
            raise MemoryError("Out of memory allocating 1,024 bytes (allocated so far: 512 bytes).")

    model.on_step = fails
    with pytest.raises(OutOfMemoryError) as e:
        train(tmp_path, model, settings, batch_size=10)
    told = str(e.value)
    assert e.value.exit_code == 1
    assert told.startswith("out of memory after step 4 (epoch 1): Out of memory allocating 1,024 bytes")
    assert "the state takes 240 B; 3.0 MB are left (free memory of a device)." in told
    assert f"The checkpoint of step 4 is kept; with more memory, go on with: tpc train --resume {tmp_path}." in told
    assert all(option in told for option in ("--mode folded", "--storage bfloat16", "--rank"))
    saved = CheckpointStore(tmp_path / "checkpoints").require()
    assert saved.state["position"]["step"] == 4
    again = Softmax.load(saved.model_path)
    train(tmp_path, again, settings, saved, batch_size=10)  # the whole run, from there
    assert len(again.options) == 3 * 6 - 4
