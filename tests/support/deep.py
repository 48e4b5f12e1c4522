"""Deep programs, few frames of Python's stack, and a count of what a compilation does."""

import gc
import sys
from contextlib import contextmanager
from pathlib import Path

import tpc

ROOT = str(Path(__file__).parents[2] / "tpc")


@contextmanager
def shallow(frames=500):
    """Python's stack may be so many frames deeper than it is now."""
    here, frame = 0, sys._getframe()
    while frame is not None:
        here, frame = here + 1, frame.f_back
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(here + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def calls(run):
    """How often functions of tpc are entered, generators at every step."""
    count = 0

    def tell(frame, event, _):
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(ROOT)

    gc.collect()
    sys.setprofile(tell)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def mlp(x, *, layers=2):
    h = tpc.dense(x, name="embed")
    for k in range(layers):
        h = tpc.dense(tpc.relu(h), name=f"h{k}") + tpc.bias(f"h{k}", std=0.5)
    return tpc.readout(tpc.relu(h), 2, name="readout") + tpc.bias("readout")


def residual(x, *, layers=2):
    h = tpc.dense(x, name="embed")
    for k in range(layers):
        h = h + 0.5 * (tpc.dense(tpc.relu(tpc.rms_norm(h)), name=f"h{k}") + tpc.bias(f"h{k}"))
    return tpc.readout(tpc.relu(h), 2, name="readout")


def normed(x, *, layers=2):
    h = tpc.dense(x, name="embed")
    for _ in range(layers):
        h = tpc.rms_norm(h) * 2
    return tpc.readout(tpc.relu(h), 2, name="readout")


def tied(x, *, layers=2):
    h = tpc.dense(x, name="embed")
    for _ in range(layers):
        h = tpc.dense(tpc.relu(h), name="w", space="embed")
    return tpc.readout(tpc.relu(h), 2, name="readout")


def gated(x, *, layers=2):
    h = tpc.dense(x, name="embed")
    for k in range(layers):
        inner = tpc.erf(tpc.dense(h, name=f"g{k}", space=f"s{k}")) * tpc.dense(h, name=f"u{k}", space=f"s{k}")
        h = h + tpc.dense(inner, name=f"d{k}", space="embed")
    return tpc.readout(tpc.erf(h), 2, name="readout")


def adapted(x, *, layers=2):
    return tpc.adapt(mlp(x, layers=layers), steps=1, step_size=0.1, layers="readout")
