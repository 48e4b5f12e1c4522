"""How much memory training a finite network will take, told before it starts."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np

from tpc.available import Available
from tpc.errors import UserError
from tpc.program.axes import SAMPLE, SUPPORT
from tpc.program.ir import Vector
from tpc.program.node import Node
from tpc.runtime.models.backend import load_backend
from tpc.runtime.models.memory import EVALUATED, LIBRARIES, PLOTS, Prediction, Training, gigabytes
from tpc.runtime.networks.library import ADDED
from tpc.runtime.networks.network import PREDICT_NUMBERS, Network


def predict_network(net: Network, training: Training) -> Prediction:
    """The most memory that a training takes, of the machine or of the device; `net` needs no state yet."""
    on_device = load_backend(net.backend).DEVICE
    item = np.dtype(net.dtype).itemsize
    sizes = [item * prod(shape) for shape in net.shapes.values()]
    samples = max(1, min(training.batch, training.samples))
    predicted = min(EVALUATED, max(16, PREDICT_NUMBERS // net.width))
    plan = net.plan(training.loss)
    parts = {} if on_device else {"Python and libraries": LIBRARIES, "data set": training.data_bytes}
    parts["weights"] = sum(sizes)
    if training.momentum:
        parts["momentum"] = sum(sizes) + max(sizes)
    work = {
        "a step": item * net.width * sum(_rows(n, samples, training.support) for n in plan.order),
        "evaluation": item * net.width * sum(_rows(n, predicted, training.support) for n in plan.order),
    }
    if on_device:
        work["a step"] += min(max(sizes), item * ADDED)
    else:
        work |= {"drawing weights": max(sizes) + (1 << 24), "plots": PLOTS}
    if training.done is not None and not on_device:  # a device gets it array by array
        work["reading the checkpoint"] = parts["weights"] + parts.get("momentum", 0)
    what = max(work, key=lambda name: work[name])
    return Prediction({**parts, what: work[what]})


def _rows(n: Node, samples: int, support: int) -> int:
    """How many vectors a node has."""
    if not isinstance(n, Vector):
        return 0
    sizes = {SAMPLE.name: samples, SUPPORT.name: max(1, support)}
    return prod(a.size if a.size is not None else sizes.get(a.base, 1) for a in n.axes)


def require_network_memory(
    net: Network, training: Training, free: Callable[[], Available | None] | None = None
) -> Prediction:
    """The prediction of a training that fits. Raises UserError for one that does not.

    `free` tells what is left, by default the backend itself. On the machine the data set is loaded by then.
    """
    backend = load_backend(net.backend)
    prediction, left = predict_network(net, training), (free or backend.available)()
    if left is None:
        return prediction
    room = left.bytes + (0 if backend.DEVICE else LIBRARIES + training.data_bytes)
    if prediction.peak <= room:
        return prediction
    raise UserError(
        f"a network of width {net.width} needs about {gigabytes(prediction.peak)} of memory to train: "
        f"{prediction.describe()}. It can have {gigabytes(max(0, room))} ({left.limit}). Take a smaller --width."
    )
