"""Losses, accuracy and confusion against direct formulas."""

import numpy as np
import pytest

from tpc.errors import UsageError
from tpc.runtime.training.evaluation import Stopped, evaluate, mean_loss


class Table:
    """Predicts the rows of x."""

    def predict(self, x):
        return x


def test_accuracy_and_confusion_count_rows_over_all_blocks():
    rng = np.random.default_rng(0)
    f, y = rng.standard_normal((1000, 4)), rng.integers(0, 4, 1000)
    result = evaluate(Table(), f, y, block=64)
    guess = f.argmax(axis=1)
    assert result.accuracy == np.mean(guess == y)
    for true in range(4):
        for predicted in range(4):
            assert result.confusion[true, predicted] == np.sum((y == true) & (guess == predicted))
    assert result.to_dict()["confusion"] == result.confusion.tolist()


def test_cross_entropy_is_stable_and_right():
    f = np.array([[0.3, -1.2, 0.5], [1000.0, 0.0, -1000.0], [2.0, 2.0, 2.0]])
    y = np.array([1, 0, 2])
    p = np.exp(f[[0, 2]]) / np.exp(f[[0, 2]]).sum(axis=1, keepdims=True)
    expected = (-np.log(p[0, 1]) + 0.0 - np.log(p[1, 2])) / 3
    assert mean_loss(f, y, "cross_entropy") == pytest.approx(expected, rel=1e-12)


def test_mean_squared_error_is_over_rows_and_classes():
    f = np.array([[0.5, 0.0, 0.25], [1.0, 1.0, 1.0]])
    assert mean_loss(f, np.array([0, 2]), "mse") == pytest.approx((0.25 + 0.0625 + 1 + 1) / 6)


def test_unknown_loss_and_too_many_classes_are_told():
    with pytest.raises(UsageError, match="expected a loss among cross_entropy, mse, got 'hinge'"):
        mean_loss(np.zeros((1, 2)), np.array([0]), "hinge")
    with pytest.raises(UsageError, match="expected class numbers from 0 to 1, got 0 to 2, and there are 2 outputs"):
        evaluate(Table(), np.zeros((3, 2)), np.array([0, 1, 2]))


def test_evaluation_can_be_stopped_between_blocks():
    with pytest.raises(Stopped):
        evaluate(Table(), np.zeros((10, 2)), np.zeros(10, dtype=int), stop=True)
