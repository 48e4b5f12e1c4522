"""What a model is made of: a limit, sizes, a backend, and the arrays of its state; what it computes is in model.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from typing import Any

from tpc.derivation import Derivation
from tpc.errors import UsageError
from tpc.limits.graph import LimitGraph
from tpc.limits.store import Fold, Store
from tpc.lower.layout import layout
from tpc.lower.places import columns
from tpc.passes.adapt import is_adapted
from tpc.program.axes import SAMPLE, without
from tpc.runtime.models.arguments import check_sizes
from tpc.runtime.models.backend import load_backend
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.initial import shape_of
from tpc.runtime.models.input_shape import Shape, axis_sizes, sample_axes, sample_shape
from tpc.words import html_table, human_bytes

DTYPES = ("float32", "float64")
MODES = ("exact", "folded")


class ModelBase:
    """The state of one limit on one backend, by name: arrays, stored atoms, folded tensors."""

    def __init__(
        self,
        limit: Derivation,
        input_shape: Shape,
        rank: int,
        *,
        backend: str = "numpy",
        dtype: str = "float32",
        mode: str = "exact",
        storage: str | None = None,
        fold: FoldOptions | None = None,
    ) -> None:
        check_sizes(rank=rank)
        self.backend = load_backend(backend)
        self.backend_name = backend
        for name, value, allowed in (
            ("dtype", dtype, self.backend.DTYPES),
            ("mode", mode, MODES),
            ("storage", storage or dtype, tuple(t for t in self.backend.STORAGE if t == dtype or t not in DTYPES)),
        ):
            if value not in allowed:
                raise UsageError(f"expected {name} among {', '.join(allowed)} on the {backend} backend, got {value!r}")
        self.limit = limit
        self.data_axes = sample_axes(limit.program)
        self.input_shape = sample_shape(self.data_axes, input_shape)
        self.input_dim = math.prod(self.input_shape)
        self.rank = int(rank)
        self.dtype = dtype
        self.storage = storage or dtype
        self.mode = mode
        if fold is not None and mode != "folded":
            raise UsageError(f"fold options need mode 'folded', got mode {mode!r}")
        self.fold = fold or FoldOptions()
        self._degree: int | None = None
        if mode == "folded":
            self._degree = self.fold.degree_for(limit.graph())
            self.fold = replace(self.fold, degree=self._degree)
        self.sizes = axis_sizes(self.data_axes, self.input_shape)
        self.graph: LimitGraph = limit.graph(degree=self._degree, points=self.fold.points)
        self.folds = {f.store.name: f for f in self.graph.folds}
        (classes,) = without(self.graph["logits"].axes, (SAMPLE,))
        self.classes = int(classes.size or 0)
        self.adapts = is_adapted(limit.program)
        self._stores = {s.name: s for s in self.graph.stores}
        self._state: dict[str, Any] = {}
        self._momentum = False

    # --- description -------------------------------------------------------------------------------------------

    @property
    def size(self) -> str:
        """The dimension of its latents, in words."""
        return f"rank {self.rank}"

    @property
    def weights(self) -> tuple[str, ...]:
        """The names that `lr_mult` takes."""
        return tuple(name for name, _ in self.graph.updates)

    @property
    def atoms(self) -> dict[str, int]:
        """The atoms of every kernel matrix, folded ones included."""
        folded = {name: self._state[f"{name}.folded"].count for name in self.folds}
        return {name: len(self._state[name]) + folded.get(name, 0) for name in self._stores}

    @property
    def remainders(self) -> dict[str, float]:
        """Relative root-mean-square error of the folded kernels over the atoms folded lately."""
        found = {name: self._state[f"{name}.folded"].remainder for name in self.folds}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return sum(int(v.nbytes) for v in self._state.values())

    @property
    def described(self) -> str:
        """Limit, sizes, backend and atoms, in words."""
        inputs = " × ".join(map(str, self.input_shape))
        sizes = f"{self.size}, {inputs} inputs, {self.classes} outputs"
        told = f"{self.limit.title}: {sizes}, {self.backend_name}, {self.dtype}, {self.mode}"
        if not self._state:
            return f"{told}, without a state"
        return told + "".join(f", {count} atoms of {name}" for name, count in self.atoms.items())

    def arrays(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape and number type of every array of the state."""
        if not self._state:
            return []
        found = [
            (u.state.name, tuple(self._state[u.state.name].shape), str(self._state[u.state.name].dtype))
            for u in self.graph.accumulated
        ]
        for s in self._stores.values():
            atoms = self._state[s.name]
            for name, column in columns(s).items():
                width = tuple(atoms.widths[name])
                kind = self.storage if math.prod(width) > 1 else self.dtype
                found.append((column.name, (len(atoms), *width), kind))
        for name, f in self.folds.items():
            moments = self._state[f"{name}.folded"]
            kept = {m.state.name: moments.moment(m.order) for m in f.moments}
            found += [(n, tuple(v.shape), str(v.dtype)) for n, v in {f"{name}.w": moments.weights, **kept}.items()]
        return found

    def __repr__(self) -> str:
        return f"<Model: {self.described}>"

    def _repr_html_(self) -> str:
        """What the model is, and the arrays of its state."""
        rows = [(name, " × ".join(map(str, shape)), kind) for name, shape, kind in self.arrays()]
        told = f"<p>{escape(self.described)}, {human_bytes(self.nbytes)}</p>"
        return f'<div class="tpc-model">{told}{html_table(("state", "shape", "type"), rows)}</div>'

    def moment_shapes(self, f: Fold) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
        """Lengths of the outer axes, rank, degrees."""
        outer = shape_of(layout(f.store.coefficients.axes[1:]), self.sizes, self.rank)
        return outer, self.rank, tuple(m.order for m in f.moments)

    @property
    def segment_rows(self) -> int | None:
        """A folded store is cut into the segments it is folded by."""
        return self.fold.rows if self.folds else None

    @property
    def raw_state(self) -> Mapping[str, Any]:
        """What the backend works on: arrays, stored atoms, folded tensors."""
        return self._state

    @property
    def has_momentum(self) -> bool:
        """Whether a step with momentum was taken."""
        return self._momentum

    def restore(self, state: dict[str, Any], momentum: bool) -> None:
        """Take over a whole state of the backend."""
        self._state, self._momentum = state, momentum

    def widths(self, s: Store) -> dict[str, tuple[int, ...]]:
        """Shapes of the rows of a store's columns."""
        return {name: shape_of(c.axes[1:], self.sizes, self.rank) for name, c in columns(s).items()}
