"""The models that are measured, with random atoms in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import tpc
from benchmarks import ROOT, draw
from tpc.errors import UserError
from tpc.runtime.models.folding import FoldOptions

WINDOW = 512
FILL = 4 * WINDOW  # atoms a folded model has seen before it is timed: its tensors are full, its window is in use


class UnavailableError(Exception):
    """A backend or a mode that cannot run here."""


@dataclass(frozen=True)
class Variant:
    """How the same limit is run."""

    backend: str
    storage: str = "float32"
    mode: str = "exact"

    def __str__(self) -> str:
        return f"{self.backend} {self.storage}"


EXACT = (Variant("numpy"), Variant("native"), Variant("native", "bfloat16"))
FOLDED = tuple(Variant(v.backend, v.storage, "folded") for v in EXACT)


@lru_cache(maxsize=1)
def limit() -> tpc.Limit:
    """The paper's MLP: two hidden layers, 3,072 inputs, 10 classes."""
    return tpc.compile(tpc.load(ROOT / "programs" / "mlp.py", **draw.SCALES))


def empty(variant: Variant, rank: int) -> tpc.Model:
    """A model with as many atoms as `rank`. Raises UnavailableError."""
    options: dict[str, Any] = {"backend": variant.backend, "storage": variant.storage, "mode": variant.mode}
    if variant.mode == "folded":
        options["fold"] = FoldOptions(degree=2, window=WINDOW, coefficients="taylor")
    try:
        model = limit().build(draw.INPUTS, rank, **options)
    except (UserError, ImportError) as e:
        raise UnavailableError(e) from e
    if variant.backend != model.backend.NAME:
        raise UnavailableError(f"{variant.backend} fell back to {model.backend.NAME}")
    return model


def exact(variant: Variant, rank: int, atoms: int) -> tpc.Model:
    """A model with `atoms` random atoms in both kernel matrices, stored piece by piece. Raises UnavailableError."""
    model = empty(variant, rank)
    pieces = {layer: draw.atoms(layer, atoms, rank) for layer in ("hidden1", "readout")}
    first = {f"{layer}.{part}": v for layer, piece in pieces.items() for part, v in next(piece).items()}
    model.load_state(draw.dense(rank) | first)
    for layer, rest in pieces.items():
        for piece in rest:
            model._state[layer].extend(piece)
    return model


def folded(variant: Variant, rank: int) -> tpc.Model:
    """A folded model that has been trained for `FILL` atoms. Raises UnavailableError."""
    model = empty(variant, rank)
    model.load_state(draw.state(rank, rank))
    train(model, FILL, 128)
    return model


def train(model: tpc.Model, atoms: int, batch: int) -> None:
    """Steps until at least `atoms` samples have been appended."""
    source = draw.batches(batch, seed=2)
    for _ in range(0, atoms, batch):
        x, y = source()
        model.step(x, y, **draw.SETTINGS)


def stepper(model: Any) -> Any:
    """model.step with the settings of the benchmark."""
    return partial(model.step, **draw.SETTINGS)
