"""Loss, accuracy and confusion matrix of a model on a data set, in blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tpc.errors import UsageError

Array = NDArray[Any]


class Predictor(Protocol):
    """Anything with logits."""

    def predict(self, x: Array) -> Array: ...


class Stopped(Exception):
    """`stop` became true between two blocks."""


@dataclass(frozen=True)
class Evaluation:
    """Mean loss, fraction of right answers, and counts[true class, predicted class]."""

    loss: float
    accuracy: float
    confusion: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {"loss": self.loss, "accuracy": self.accuracy, "confusion": self.confusion.tolist()}


def evaluate(
    model: Predictor, x: Array, y: Array, loss: str = "cross_entropy", block: int = 256, stop: object = False
) -> Evaluation:
    """Evaluate on inputs x (N, d) and integer labels y (N,); raises Stopped when `stop` turns true."""
    logits = []
    for start in range(0, len(x), block):
        if stop:
            raise Stopped
        logits.append(np.asarray(model.predict(x[start : start + block]), dtype=np.float64))
    f = np.concatenate(logits)
    classes = f.shape[1]
    labels = np.asarray(y, dtype=np.int64)
    if labels.max() >= classes:
        raise UsageError(f"the model has {classes} outputs but the data has class {labels.max()}.")
    guess = f.argmax(axis=1)
    confusion = np.bincount(labels * classes + guess, minlength=classes**2).reshape(classes, classes)
    return Evaluation(mean_loss(f, labels, loss), float((guess == labels).mean()), confusion)


def mean_loss(f: Array, labels: Array, loss: str) -> float:
    """Mean over rows of −log softmax(f)_y, or over rows and classes of (f − onehot(y))²."""
    rows = np.arange(len(f))
    if loss == "cross_entropy":
        top = f.max(axis=1)
        log_sum = top + np.log(np.exp(f - top[:, None]).sum(axis=1))
        return float((log_sum - f[rows, labels]).mean())
    if loss == "mse":
        target = np.zeros_like(f)
        target[rows, labels] = 1.0
        return float(((f - target) ** 2).mean())
    raise UsageError(f"unknown loss {loss!r}; choose cross_entropy or mse.")
