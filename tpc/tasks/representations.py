"""What a task's representations are before training and after it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from tpc.errors import UsageError
from tpc.runtime.models.model import Model, build
from tpc.runtime.models.representation import gram
from tpc.runtime.networks.network import Network
from tpc.tasks.task import Task

Array = NDArray[Any]


def before_and_after(task: Task, model: Model | Network, x: Array) -> dict[str, Array]:
    """Gram matrices (N, N) of samples x (N, features), "before training" and "trained".

    The state before training is the one that the seed gives.
    Raises UsageError for a finite network, and for one without a nonlinearity, whose representation is its input.
    """
    if isinstance(model, Network):
        raise UsageError("representations are those of a limit, and this is a network of finite width.")
    job = task.job
    options: dict[str, Any] = {} if job.init is None else {"init": job.init}
    start = build(model.limit, task.input_dim, job.rank, dtype=job.dtype, seed=job.seed, **options)
    return {"before training": gram(start, x), "trained": gram(model, x)}
