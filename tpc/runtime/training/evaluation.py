"""Loss, accuracy and confusion matrix of a model on a data set, or R² on real values, in blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.errors import UsageError
from tpc.passes.loss import LOSSES
from tpc.runtime.models.arguments import as_array
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.models.targets import check_loss, one_hot, read_targets

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

    @property
    def measure(self) -> tuple[str, float | None]:
        """What says how good it is, by name."""
        return "accuracy", self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {"loss": self.loss, "accuracy": self.accuracy, "confusion": self.confusion.tolist()}


@dataclass(frozen=True)
class ValueEvaluation:
    """Mean loss on real-valued targets, and R² = 1 − Σ(f − y)²/Σ(y − ȳ)²; None where the targets do not vary."""

    loss: float
    r2: float | None

    @property
    def accuracy(self) -> float:
        """Raises UsageError: no answer is right or wrong."""
        raise UsageError("real-valued targets have no accuracy: expected the field r2 to be read")

    @property
    def measure(self) -> tuple[str, float | None]:
        """What says how good it is, by name."""
        return "r2", self.r2

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"loss": self.loss, "r2": self.r2}


@overload
def evaluate(
    model: Predictor, x: Array, y: NDArray[np.integer[Any]], loss: str = ..., block: int = ..., stop: object = ...
) -> Evaluation: ...


@overload
def evaluate(
    model: Predictor, x: ArrayLike, y: ArrayLike, loss: str = ..., block: int = ..., stop: object = ...
) -> Evaluation | ValueEvaluation: ...


def evaluate(
    model: Predictor,
    x: ArrayLike,
    y: ArrayLike,
    loss: str = "cross_entropy",
    block: int = 256,
    stop: object = False,
) -> Evaluation | ValueEvaluation:
    """Evaluate on inputs x (N, d) and targets y (tpc/runtime/models/targets.py); raises Stopped when `stop` turns true.

    Raises UsageError for targets that do not fit, DivergedError for outputs that are not finite.
    """
    rows = as_array(x, "inputs")
    if not len(rows):
        raise UsageError("expected at least one sample to evaluate on, got none")
    logits = []
    for start in range(0, len(rows), block):
        if stop:
            raise Stopped
        logits.append(np.asarray(model.predict(rows[start : start + block]), dtype=np.float64))
    f = np.concatenate(logits)
    check_loss(loss, f.shape[1])
    targets = read_targets(y, len(f), f.shape[1], loss)
    value = mean_loss(f, targets.rows, loss)
    measured = targets.measure(f)
    if targets.classes is None:
        return ValueEvaluation(value, measured["r2"])
    classes = f.shape[1]
    confusion = np.bincount(targets.classes * classes + f.argmax(axis=1), minlength=classes**2)
    return Evaluation(value, float(measured["accuracy"] or 0.0), confusion.reshape(classes, classes))


def require_finite_outputs(f: Array) -> None:
    """Raise DivergedError where outputs (N, k) are not finite."""
    wrong = ~np.isfinite(f).all(axis=1)
    if wrong.any():
        k = int(wrong.argmax())
        raise DivergedError(
            f"the outputs of {int(wrong.sum())} of {len(f)} samples are not finite (the first is sample {k}): the "
            "model has diverged, and neither a loss nor an accuracy of it means anything; go on from an earlier state",
            quantity="outputs",
        )


def mean_loss(f: Array, y: Array, loss: str) -> float:
    """Mean over rows of −Σ y log softmax(f), or over rows and columns of (f − y)².

    y holds class numbers (N,) or rows (N, k). Raises UsageError for an unknown loss, DivergedError for outputs that are
    not finite.
    """
    if loss not in LOSSES:
        raise UsageError(f"expected a loss among {', '.join(LOSSES)}, got {loss!r}")
    require_finite_outputs(f)
    target = one_hot(y, f.shape[1]) if y.ndim == 1 else y
    if loss == "mse":
        return float(((f - target) ** 2).mean())
    top = f.max(axis=1)
    log_sum = top + np.log(np.exp(f - top[:, None]).sum(axis=1))
    return float((log_sum * target.sum(axis=1) - (target * f).sum(axis=1)).mean())
