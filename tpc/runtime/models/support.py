"""What an adapted network learns from before it answers: support samples, and which task each sample belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.errors import UsageError
from tpc.runtime.models.arguments import real_array

Array = NDArray[Any]
BY_SAMPLE = ("x", "near", "share")  # data with one row for every sample that is answered


@dataclass(frozen=True)
class Support:
    """The support sets of one or more tasks.

    `x` (S, d) and `y` (S,) class numbers or (S, classes) targets; `tasks` (S,) says the task of each support sample,
    `queries` (N,) that of each sample to be answered, as numbers from 0. Without them all belong to one task.
    """

    x: ArrayLike
    y: ArrayLike
    tasks: ArrayLike | None = None
    queries: ArrayLike | None = None

    def membership(self, samples: int) -> tuple[Array, Array]:
        """The task of every support sample, (S,), and of every one of N samples, (N,).

        Raises UsageError for tasks that are no whole numbers ≥ 0, or that have samples but no support.
        """
        count = len(real_array(self.x, "support inputs"))
        own, asked = _numbers(self.tasks, count, "tasks"), _numbers(self.queries, samples, "queries")
        alone = np.setdiff1d(asked, own)
        if len(alone):
            raise UsageError(f"expected a support for every task, got none for task {alone[0]}")
        return own, asked

    def weights(self, samples: int) -> dict[str, Array]:
        """The arrays "near" (N, S), "near_support" (S, S) and "share" (N,) for N samples; errors as of `membership`."""
        own, asked = self.membership(samples)
        names, own = np.unique(own, return_inverse=True)
        asked = np.searchsorted(names, asked)
        mean = 1.0 / np.bincount(own)
        return {
            "near": (asked[:, None] == own) * mean[own],
            "near_support": (own[:, None] == own) * mean[own],
            "share": 1.0 / np.bincount(asked)[asked] if len(asked) else np.empty(0),
        }


def check_given(support: Support | None, adapts: bool) -> None:
    """Raise UsageError for a support that a network does not take, and for a missing one."""
    if support is None and adapts:
        raise UsageError("this network adapts: expected support=tpc.Support(x, y), got none")
    if support is not None and not adapts:
        raise UsageError("this network does not adapt and takes no support; see tpc.adapt")


def _numbers(given: ArrayLike | None, count: int, name: str) -> Array:
    if given is None:
        return np.zeros(count, np.int64)
    found = real_array(given, name)
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer) or (count and found.min() < 0):
        raise UsageError(f"expected {name} as {count} whole numbers ≥ 0, got {found.dtype} of shape {found.shape}")
    return found
