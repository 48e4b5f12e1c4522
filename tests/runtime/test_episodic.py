"""Few-shot batches and their evaluation, against direct counting on tasks that are known."""

import numpy as np
import pytest

import tpc
from tests.support.problems import make
from tpc.data.classes import ClassTable
from tpc.data.episodes import episodes
from tpc.errors import UsageError
from tpc.runtime.training.episodic import ANSWERED_SAMPLES, Episodes, answer, batch_of, tasks_at_once
from tpc.runtime.training.evaluation import Stopped, mean_loss

ALPHABETS = ("Greek", "Greek", "Greek", "N_Ko", "N_Ko", "Latin", "Latin", "Latin")


def table(classes=8, side=3, images=20):
    pixels = np.random.default_rng(0).integers(0, 256, (classes, images, side * side), dtype=np.uint8)
    return ClassTable(pixels, tuple(f"{ALPHABETS[k]}/character{k:02d}/rot000" for k in range(classes)))


def drawing(ways=3, shots=2, queries=3, **options):
    known = table(**options)

    def draw(tasks, index):
        return episodes(known, ways=ways, shots=shots, queries=queries, tasks=tasks, seed=5, index=index)

    return draw


class Nearest:
    """Answers with minus the squared distance to the mean support sample of every class of the task."""

    def __init__(self, rows=1024):
        self.predict_rows = rows
        self.calls = []

    def predict(self, x, support):
        self.calls.append((len(x), len(support.x)))
        out = np.empty((len(x), int(np.max(support.y)) + 1))
        for k, own in enumerate(support.queries):
            for c in range(out.shape[1]):
                mean = support.x[(support.tasks == own) & (support.y == c)].mean(axis=0)
                out[k, c] = -((x[k] - mean) ** 2).sum()
        return out


def alone(draw, tasks):
    """Whether every query of every task was answered right, its loss and its class: task by task."""
    for index in range(tasks):
        drawn = draw(1, index)
        batch = batch_of(drawn)
        logits = Nearest().predict(batch.x, batch.support)
        yield logits.argmax(axis=1) == batch.y, mean_loss(logits, batch.y, "cross_entropy"), drawn.classes[0][batch.y]


def test_a_batch_knows_the_task_of_every_row():
    drawn = drawing()(4, 2)
    batch = batch_of(drawn)
    assert batch.tasks == 4
    assert batch.x.shape == (4 * 9, 9)
    assert batch.support.x.shape == (4 * 6, 9)
    for task in range(4):
        own, asked = batch.support.tasks == task, batch.support.queries == task
        np.testing.assert_array_equal(batch.support.x[own], drawn.support[task])
        np.testing.assert_array_equal(batch.support.y[own], drawn.support_labels[task])
        np.testing.assert_array_equal(batch.x[asked], drawn.query[task])
        np.testing.assert_array_equal(batch.y[asked], drawn.query_labels[task])


def test_accuracy_interval_and_alphabets_are_those_of_the_single_tasks():
    draw = drawing()
    right, losses, classes = map(np.array, zip(*alone(draw, 40)))
    found = answer(Nearest(), draw, 40, ALPHABETS)
    assert found.accuracy == pytest.approx(right.mean())
    assert found.loss == pytest.approx(losses.mean())
    variance = ((right.mean(axis=1) - right.mean()) ** 2).sum() / 39
    assert found.interval == pytest.approx(1.96 * np.sqrt(variance / 40), rel=1e-4)
    for name, (accuracy, queries) in found.alphabets.items():
        own = np.array([ALPHABETS[c] == name for c in classes.reshape(-1)])
        assert (accuracy, queries) == (pytest.approx(right.reshape(-1)[own].mean()), own.sum())
    assert sum(queries for _, queries in found.alphabets.values()) == 40 * 9
    assert found.to_dict()["alphabets"]["N_Ko"]["queries"] == found.alphabets["N_Ko"][1]
    assert found.to_dict()["interval_95"] == found.interval


@pytest.mark.parametrize("rows", [1, 10, 30, 64, 100_000])
def test_tasks_are_answered_the_same_however_many_at_a_time(rows):
    model, draw = Nearest(rows), drawing()
    whole, found = answer(Nearest(), draw, 37, ALPHABETS), answer(model, draw, 37, ALPHABETS)
    assert found.loss == pytest.approx(whole.loss, rel=1e-12)
    assert (found.accuracy, found.interval, found.alphabets) == (whole.accuracy, whole.interval, whole.alphabets)
    at_once = min(37, tasks_at_once(6, 9, rows))
    assert set(model.calls) == {(at_once * 9, at_once * 6)}


def test_tasks_at_once_keep_within_the_rows_of_a_call():
    assert tasks_at_once(5, 5, 1024) == ANSWERED_SAMPLES // 5
    assert tasks_at_once(25, 5, 104) == 4
    assert tasks_at_once(500, 500, 104) == 1


def test_a_limit_answers_the_same_however_many_at_a_time(programs_dir, monkeypatch):
    model = make(tpc.load(programs_dir / "maml.py", classes=3), dim=9)
    whole = answer(model, drawing(), 30, ALPHABETS)
    monkeypatch.setattr("tpc.runtime.models.model.PREDICT_ROWS", 16)
    cut = answer(model, drawing(), 30, ALPHABETS)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-12)
    assert cut.accuracy == whole.accuracy


def test_one_task_has_no_interval():
    with pytest.raises(UsageError, match="at least 2 tasks, got 1"):
        answer(Nearest(), drawing(), 1, ALPHABETS)


def test_answering_can_be_stopped():
    with pytest.raises(Stopped):
        answer(Nearest(), drawing(), 10, ALPHABETS, stop=True)


def test_a_source_draws_every_task_once_and_measures_the_same_tasks():
    draw, seen = drawing(), []

    def counted(tasks, index):
        seen.append((tasks, index))
        return draw(tasks, index)

    source = Episodes(counted, draw, ALPHABETS, batches=3, tasks=4, episodes=10, measured="validation")
    for epoch in range(2):
        for number in range(3):
            source.batch(epoch, number)
    assert seen == [(4, k) for k in range(6)]
    assert source.evaluate(Nearest()) == source.evaluate(Nearest())
    assert source.evaluate(Nearest()) == answer(Nearest(), draw, 10, ALPHABETS)
    assert (source.measured, source.measured_size) == ("validation", "10 validation tasks")


@pytest.mark.parametrize("factor", [1, 10**12])
def test_tasks_may_have_any_numbers(factor):
    rng = np.random.default_rng(1)
    own, asked = np.array([2, 0, 2, 5]), np.array([5, 2, 2])
    weights = tpc.Support(rng.standard_normal((4, 2)), np.zeros(4, int), own * factor, asked * factor).weights(3)
    np.testing.assert_array_equal(weights["near"], [[0, 0, 0, 1], [0.5, 0, 0.5, 0], [0.5, 0, 0.5, 0]])
    np.testing.assert_array_equal(weights["near_support"].sum(axis=1), np.ones(4))
    np.testing.assert_array_equal(weights["share"], [1, 0.5, 0.5])
    with pytest.raises(UsageError, match=f"none for task {3 * factor}"):
        tpc.Support(rng.standard_normal((4, 2)), np.zeros(4, int), own * factor, 3 * factor * asked // asked).weights(3)
