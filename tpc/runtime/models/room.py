"""Whether a state fits into memory, told before any of it is allocated."""

from __future__ import annotations

from math import prod

import numpy as np

from tpc.available import Available, available
from tpc.errors import UserError
from tpc.runtime.models.backend import load_backend
from tpc.runtime.models.base import ModelBase
from tpc.runtime.models.folding import numbers_stored
from tpc.runtime.models.initial import shape_of

DRAWN = 8  # bytes of a number while an initial state is drawn


def require_model_room(model: ModelBase) -> None:
    """Raise UserError, with numbers, where the initial state of a model does not fit into memory."""
    drawn = sum(prod(shape_of(u.state.axes, model.sizes, model.rank)) for u in model.graph.accumulated)
    for s in model.graph.stores:
        atoms = model.rank if s.name == s.weight and not s.thetas else 0
        drawn += atoms * sum(prod(width) for width in model.widths(s).values())
    folded = sum(numbers_stored(f, model.rank) for f in model.folds.values())
    what = f"a model of rank {model.rank:,} with inputs of dimension {model.input_dim:,}"
    require_room(what, "rank", drawn, drawn + folded, model.dtype, model.backend.NAME)


def require_room(what: str, smaller: str, drawn: int, kept: int, dtype: str, backend: str) -> None:
    """Raise UserError where `kept` numbers, of which `drawn` are drawn, do not fit; `smaller` names what to lower."""
    own = load_backend(backend)
    held = kept * np.dtype(dtype).itemsize
    needs: list[tuple[int, Available | None]] = [(DRAWN * drawn + (0 if own.DEVICE else held), available())]
    if own.DEVICE and held > 1 << 30:  # which is asked only where it may matter
        needs.append((held, own.available()))
    for needed, free in needs:
        if free is not None and needed > free.bytes:
            raise UserError(
                f"{what} needs about {_size(needed)} of memory before its first step, and {_size(free.bytes)} can be "
                f"had ({free.limit}): take a smaller {smaller}"
            )


def _size(count: float) -> str:
    """1.6e13 → '16 TB'"""
    for unit in ("MB", "GB", "TB", "PB"):
        count /= 1000 if unit != "MB" else 1e6
        if count < 1000:
            return f"{count:.3g} {unit}"
    return f"{count:.3g} PB"
