"""What a network should answer, in one of three forms, read and checked here for every entry point.

- Class numbers: n integers 0 … k − 1, for k ≥ 2 outputs.
- Rows: n × k numbers; probabilities for the cross entropy, any real values for the squared loss.
- Values: n real numbers, for one output and the squared loss.

Floating-point numbers are never class numbers, and integers are values only where there is one output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.errors import UsageError
from tpc.passes.loss import LOSSES
from tpc.runtime.models.arguments import as_array, real_array

Array = NDArray[Any]
SUM_TOLERANCE = 1e-3  # of probabilities, which may come in 16 bits
_NUMBERED = "number the classes first: names, y = np.unique(y, return_inverse=True)"
_OTHER_KINDS = {"b": "truth values become class numbers by y.astype(int)", **dict.fromkeys("USO", _NUMBERED)}


@dataclass(frozen=True)
class Targets:
    """Rows (n, k), and the class numbers (n,) whose hits an accuracy counts; None where the targets are real values."""

    rows: Array
    classes: Array | None

    def __len__(self) -> int:
        return len(self.rows)

    def measure(self, f: Array) -> dict[str, float | None]:
        """The "accuracy" of outputs f (n, k), or for real values their "r2", 1 − Σ(f − y)²/Σ(y − ȳ)².

        The latter is None where the targets do not vary.
        """
        if self.classes is not None:
            return {"accuracy": float(np.mean(f.argmax(axis=1) == self.classes))}
        return {"r2": r_squared(f, self.rows)}


def r_squared(f: Array, y: Array) -> float | None:
    """1 − Σ(f − y)²/Σ(y − ȳ)² with the mean ȳ of every column; None where the targets (n, k) do not vary."""
    wide = y.astype(np.float64)
    spread = float(np.square(wide - wide.mean(axis=0)).sum()) if len(wide) else 0.0
    return 1 - float(np.square(f - wide).sum()) / spread if spread > 0 else None


def check_loss(loss: str, outputs: int) -> None:
    """Raise UsageError for an unknown loss, and for one that has nothing to learn from so many outputs."""
    if loss not in LOSSES:
        raise UsageError(f"expected a loss among {', '.join(LOSSES)}, got {loss!r}")
    if loss == "cross_entropy" and outputs == 1:
        raise UsageError(
            "the cross entropy of one output is 0 whatever it is, for its softmax is 1: expected two outputs or more "
            "(one for each class), or loss 'mse' with real targets (--loss mse)"
        )


def read_targets(y: ArrayLike, n: int, outputs: int, loss: str = "mse", what: str = "targets") -> Targets:
    """The targets of n samples for a network with so many outputs. Raises UsageError for anything else.

    `what` they are called in errors.
    """
    given = _numbers(y, what)
    if given.shape == (n, outputs) and given.ndim == 2:
        return _rows(given, loss, what)
    if given.shape == (n,) and outputs == 1:
        return Targets(_finite(given, what).reshape(n, 1), None)
    if given.shape != (n,) or not np.issubdtype(given.dtype, np.integer):
        got = f"{given.dtype} of shape {given.shape}"
        raise UsageError(f"expected {_expected(n, outputs)}, got {got} as {what}{_shape_hint(given, n, outputs)}")
    return Targets(one_hot(class_numbers(given, outputs, what), outputs), given)


def class_numbers(y: ArrayLike, classes: int, what: str = "targets") -> Array:
    """Class numbers 0 … classes − 1, (n,). Raises UsageError for anything else."""
    given = _numbers(y, what)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        hint = _shape_hint(given, len(given) if given.ndim else 0, classes)
        raise UsageError(f"expected class numbers, (n,) integers, got {given.dtype} of shape {given.shape}{hint}")
    if len(given) and not (given.min() >= 0 and given.max() < classes):
        found = f"{given.min()} to {given.max()}"
        raise UsageError(f"expected class numbers from 0 to {classes - 1}, got {found}{_range_hint(given, classes)}")
    return given


def one_hot(labels: Array, classes: int) -> Array:
    """(n,) class numbers → (n, classes) float64"""
    made = np.zeros((len(labels), classes))
    made[np.arange(len(labels)), labels] = 1.0
    return made


def _numbers(y: ArrayLike, what: str) -> Array:
    given = as_array(y, what)
    if hint := _OTHER_KINDS.get(given.dtype.kind):
        raise UsageError(f"expected {what} to hold real numbers, got {given.dtype}; {hint}")
    return real_array(given, what)


def _finite(values: Array, what: str) -> Array:
    if not np.isfinite(values).all():
        raise UsageError(f"expected finite {what}, got NaN or infinity")
    return values


def _rows(rows: Array, loss: str, what: str) -> Targets:
    _finite(rows, what)
    if loss != "cross_entropy":
        return Targets(rows, None)
    wide = rows.astype(np.float64)
    wrong = (wide < 0).any(axis=1) | (np.abs(wide.sum(axis=1) - 1) > SUM_TOLERANCE)
    if wrong.any():
        k = int(wrong.argmax())
        row = ", ".join(f"{v:g}" for v in rows[k][:6]) + (", …" if rows.shape[1] > 6 else "")
        raise UsageError(
            f"expected {what} of the cross entropy that are probabilities, numbers ≥ 0 that sum to 1 in every row, got "
            f"[{row}] in row {k}; real values need loss 'mse' (--loss mse)"
        )
    return Targets(rows, rows.argmax(axis=1))


def _expected(n: int, outputs: int) -> str:
    if outputs == 1:
        return f"{n} real values, of shape ({n},) or ({n}, 1)"
    return f"{n} class numbers or targets of shape ({n}, {outputs})"


def _shape_hint(given: Array, n: int, outputs: int) -> str:
    """What to do about values of another shape or type."""
    if given.shape == (n, 1) and n and np.issubdtype(given.dtype, np.integer):
        return "; a column of class numbers becomes a row of them by y.ravel()"
    if given.shape != (n,) or not n or not np.issubdtype(given.dtype, np.floating):
        return ""
    if (given == np.floor(given)).all() and given.min() >= 0 and given.max() < outputs:
        return "; class numbers are integers: y.astype(int)"
    return "; real values need a network with one output, or one column for each output"


def _range_hint(given: Array, classes: int) -> str:
    """What to do about integers out of range."""
    low, high = int(given.min()), int(given.max())
    if {*np.unique(given).tolist()} == {-1, 1} and classes == 2:
        return "; −1 and +1 become class numbers by (y + 1) // 2, or are real values for one output and loss 'mse'"
    if low >= 1 and high == classes:
        return "; numbers that start at 1 become class numbers by y - 1"
    return f", and there are {classes} outputs"
