"""Gram matrices of a trained limit's representations: what it has learned to tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.lower.concretise import Concretiser
from tpc.lower.numpy_module import tabulations
from tpc.lower.numpy_printer import numpy_writer
from tpc.lower.plan import Planner
from tpc.lower.schedule import schedule
from tpc.passes.representation import GRAM, with_gram
from tpc.runtime.models.arguments import input_rows
from tpc.runtime.models.input_shape import arranged
from tpc.runtime.models.model import Model

Array = NDArray[Any]
_HEADER = "import numpy as np\n\nfrom backends import numpy_runtime as rt\n\n"


def gram(model: Model, x: ArrayLike) -> Array:
    """K(x, x') = (1/n) φ(x)·φ(x') of the representations φ before the readout, (N, *input_shape) → (N, N).

    The derivation is that of the whole limit with one more output, so it holds for any program; it runs on NumPy,
    on the state of any backend. Raises UsageError for a network without a nonlinearity.
    """
    from backends.numpy_backend import run_source

    host = _on_numpy(model)
    program = with_gram(model.limit.trained())
    folding = (model.fold.degree, False, model.fold.points) if model.mode == "folded" else ()
    graph = model.limit.limit_of(program, *folding)
    value = Planner()(Concretiser(graph, host.has_momentum)(graph[GRAM]))
    tables: dict[tuple[str, str], str] = {}
    text = numpy_writer(schedule(GRAM, {GRAM: value}), tables).text
    run = getattr(run_source(_HEADER + tabulations(tables) + "\n" + text, graph.name), GRAM)
    rows = arranged(input_rows(x, host.input_shape, host.dtype), host.data_axes)
    with np.errstate(all="ignore"):
        found: Array = run(host.raw_state, np.ascontiguousarray(rows, host.dtype))[GRAM]
    return found.astype(np.float64)


def _on_numpy(model: Model) -> Model:
    if model.backend.NAME in ("numpy", "native"):
        return model
    host = Model(
        model.limit,
        model.input_shape,
        model.rank,
        dtype=model.dtype,
        mode=model.mode,
        storage=model.storage,
        fold=model.fold if model.mode == "folded" else None,
    )
    host.load_state(model.state())
    return host


def principal_components(kernel: Array, count: int = 2) -> tuple[Array, Array]:
    """Coordinates (N, count) along the largest principal components of a Gram matrix, and their shares of variance."""
    centred = kernel - kernel.mean(axis=0) - kernel.mean(axis=1, keepdims=True) + kernel.mean()
    values, vectors = np.linalg.eigh(centred)
    values = np.maximum(values[::-1], 0)
    coordinates = vectors[:, ::-1][:, :count] * np.sqrt(values[:count])
    signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), np.arange(coordinates.shape[1])])
    return coordinates * np.where(signs == 0, 1, signs), values[:count] / max(values.sum(), np.finfo(float).tiny)
