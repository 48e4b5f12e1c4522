"""Few-shot learning by a kernel alone: each task is a kernel regression on its support."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.errors import UsageError
from tpc.runtime.kernels.regression import ROWS, regression_targets
from tpc.runtime.models.arguments import real_array
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.models.support import Support

Array = NDArray[Any]


class KernelAdaptation:
    """Answers tasks as the infinite-width network does after training on the support to the end, from zero output.

    f(x) = K(x, S)(K(S, S) + ridge·k̄·I)⁻¹ Y for the support S of the task of x, k̄ the mean of K's diagonal on it and
    Y centred one-hot rows. `kernel(x1, x2)` gives (N1, N2).
    """

    def __init__(self, kernel: Callable[[Array, Array], Array], classes: int, ridge: float = 0.0) -> None:
        self.kernel = kernel
        self.classes = classes
        self.ridge = ridge

    @property
    def predict_rows(self) -> int:
        """Samples that are best answered in one call."""
        return ROWS

    def predict(self, x: Array, support: Support | None = None) -> Array:
        """Logits of `x`, (N, d) → (N, classes)."""
        if support is None:
            raise UsageError("a kernel answers from a support: expected support=tpc.Support(x, y), got none")
        s = real_array(support.x, "support inputs")
        targets, _ = regression_targets(support.y, len(s), self.classes, np.float64)
        own, asked = support.membership(len(x))
        made = np.zeros((len(x), self.classes))
        whole = self.kernel(np.concatenate([s, x]), s).astype(np.float64)
        if not np.isfinite(whole).all():
            raise DivergedError("the kernel of some samples is not finite: scale the inputs down", quantity="kernel")
        for task in np.unique(asked):
            learned, rows = np.flatnonzero(own == task), np.flatnonzero(asked == task)
            k = whole[np.ix_(learned, learned)]
            k = k + self.ridge * np.trace(k) / len(k) * np.eye(len(k))
            coefficients = np.linalg.lstsq(k, targets[learned], rcond=None)[0]
            made[rows] = whole[np.ix_(len(s) + rows, learned)] @ coefficients
        return made
