"""Finite networks of a program: width n, dense weights, trained by SGD in a parametrization of one's choice.

A step evaluates the program's own gradients, so nothing here knows any architecture. Gradients stay outer products
until they are added to a weight in place: no array of the size of a weight is made for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.derivation import Derivation
from tpc.errors import UsageError
from tpc.passes.adapt import is_adapted
from tpc.passes.loss import LOSSES
from tpc.passes.outer_products import learns_vectors, unprojected
from tpc.passes.project import project
from tpc.passes.samples import admitted
from tpc.program import ir
from tpc.program.axes import SAMPLE, Axes, without
from tpc.program.ir import Vector
from tpc.program.node import Node, topological
from tpc.program.program import AnyWeight, Program
from tpc.runtime.models.arguments import (
    check_range,
    check_shape,
    check_sizes,
    clip_factors,
    input_rows,
    real_array,
    unknown_name,
)
from tpc.runtime.models.divergence import not_taken
from tpc.runtime.models.input_shape import Shape, axis_sizes, sample_axes, sample_shape
from tpc.runtime.models.step_checks import UNHEARD, largest
from tpc.runtime.models.step_options import StepOptions, takes_step_options
from tpc.runtime.models.support import BY_SAMPLE, Support, check_given
from tpc.runtime.models.targets import check_loss, read_targets
from tpc.runtime.networks.descent import Gradient, Plan, add_scaled, gradient, make_plan
from tpc.runtime.networks.interpret import Evaluation
from tpc.runtime.networks.library import library
from tpc.runtime.networks.matrix import dense
from tpc.runtime.networks.parametrization import PARAMETRIZATIONS, Scales, role, scales

Array = NDArray[Any]
DTYPES = ("float32", "float64")
BASIS = "basis."  # of the span of Ω, by space
PREDICT_NUMBERS = 1 << 21  # of one vector


class Network:
    """A network of width n with dense weights. Made by `tpc.finite` or `Network.load`.

    `predict`, `step`, `state`, `save` have the meaning they have for a `Model`.
    """

    def __init__(
        self,
        program: Program | Derivation,
        width: int,
        input_shape: Shape = None,
        *,
        parametrization: str = "mup",
        rank: int | None = None,
        dtype: str = "float32",
        backend: str = "numpy",
    ) -> None:
        check_sizes(width=width, **({} if rank is None else {"rank": rank}))
        for name, value, allowed in (
            ("parametrization", parametrization, PARAMETRIZATIONS),
            ("dtype", dtype, DTYPES),
        ):
            if value not in allowed:
                raise UsageError(f"expected {name} among {', '.join(allowed)}, got {value!r}")
        if (parametrization == "pi") != (rank is not None):
            raise UsageError(
                "expected a rank with parametrization 'pi' and with no other, got "
                f"{parametrization!r} and {'none' if rank is None else rank}"
            )
        if rank is not None and width < rank:
            raise UsageError(f"expected a width of at least the rank {rank}, got {width}")
        self.limit: Derivation | None = None
        if parametrization == "pi":
            self.limit = program if isinstance(program, Derivation) else Derivation.of(program)
        self.program = admitted(program.program if isinstance(program, Derivation) else program)
        self.data_axes = sample_axes(self.program)
        self.input_shape = sample_shape(self.data_axes, input_shape)
        self.width, self.input_dim, self.rank = int(width), math.prod(self.input_shape), rank
        self.parametrization = parametrization
        self.dtype = dtype
        self.backend = backend
        self.sizes = axis_sizes(self.data_axes, self.input_shape)
        self.arrays = library(backend)
        (classes,) = without(self.program.tensor("logits").axes, (SAMPLE,))
        self.classes = int(classes.size or 0)
        self.adapts = is_adapted(self.program)
        if self.adapts and parametrization in ("ntk", "standard") and learns_vectors(self.program):
            raise UsageError(
                f"tpc.adapt takes its steps in the scaling of mup and pi; in {parametrization} only readouts can adapt"
            )
        self._plans: dict[str, Plan] = {}
        plan = self.plan(LOSSES[0])
        self.spaces = plan.program.spaces
        self.parameters = {w.name: w for w in plan.program.weights}
        self.scales: dict[str, Scales] = {
            name: scales(parametrization, w, self.width, self._fan_in(w)) for name, w in self.parameters.items()
        }
        self._state: dict[str, Any] = {}
        self._velocity: dict[str, Any] = {}

    # --- description -------------------------------------------------------------------------------------------

    @property
    def size(self) -> str:
        """Its width, and the rank it projects to, in words."""
        return f"width {self.width}" + (f", rank {self.rank}" if self.rank is not None else "")

    @property
    def weights(self) -> tuple[str, ...]:
        """The names that `lr_mult` takes."""
        return tuple(self.parameters)

    @property
    def atoms(self) -> dict[str, int]:
        """None: a finite network does not grow."""
        return {}

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, of what they are projected to, and of momentum."""
        return sum(int(a.nbytes) for state in (self._state, self._velocity) for a in state.values())

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of `state`."""
        found = {name: self._shape(w) for name, w in self.parameters.items()}
        if self.rank is not None:
            found |= {f"{BASIS}{space}": (self.width, self.rank) for space in self.spaces}
        return found

    def _fan_in(self, w: AnyWeight) -> int:
        if isinstance(w, ir.VectorWeight) and w.role == "input":
            return math.prod(self._lengths(w.axes))
        return 1

    def _lengths(self, axes: Axes) -> tuple[int, ...]:
        return tuple(a.size if a.size is not None else self.sizes[a.base] for a in axes)

    def _shape(self, w: AnyWeight) -> tuple[int, ...]:
        if isinstance(w, ir.MatrixWeight):
            return (*self._lengths(w.shape), self.width, self.width)
        return (*self._lengths(w.axes), *((self.width,) if isinstance(w, Vector) else ()))

    def plan(self, loss: str) -> Plan:
        """What a step evaluates."""
        if loss not in self._plans:
            self._plans[loss] = make_plan(self.program, loss, unprojected if self.rank is None else project)
        return self._plans[loss]

    def prepare(self, loss: str) -> None:
        """Derive what a step needs. Raises UsageError for an unknown loss, and for one that needs more outputs."""
        check_loss(loss, self.classes)
        self.plan(loss)

    # --- running -----------------------------------------------------------------------------------------------

    @property
    def predict_rows(self) -> int:
        """Samples that are best answered in one call."""
        return max(16, PREDICT_NUMBERS // self.width)

    def predict(self, x: ArrayLike, support: Support | None = None) -> Array:
        """Logits of `x`, (N, *input_shape) → (N, classes); an adapted network learns from `support` first."""
        rows = input_rows(x, self.input_shape, self.dtype)
        data = {"x": rows, **self._support(support, len(rows))}
        program = self.plan(LOSSES[0]).program
        order = topological([program["logits"]])
        size = self.predict_rows if not self.program.joins_samples else max(1, len(rows))
        parts = [np.empty((0, self.classes), self.dtype)]
        for start in range(0, len(rows), size):
            part = {n: v[start : start + size] if n in BY_SAMPLE else v for n, v in data.items()}
            run = self._evaluated(program, order, part)
            logits = program.tensor("logits")
            parts.append(self.arrays.to_numpy(run.rows(logits, (SAMPLE,), *without(logits.axes, (SAMPLE,)))))
        return np.concatenate(parts)

    @takes_step_options
    def step(self, x: ArrayLike, y: ArrayLike, *, support: Support | None = None, **options: Any) -> dict[str, Any]:
        """One SGD step, with the arguments and results of `Model.step`.

        The parametrization scales lr; `clip` measures the gradients of its trained entries. Decay is lr·λ in all.
        """
        chosen = StepOptions(**options)
        own, keeps = chosen.per_weight(self.weights)
        lr, clip = chosen.lr, chosen.clip
        rows = input_rows(x, self.input_shape, self.dtype)
        if not len(rows):
            raise UsageError("expected at least one sample in a batch, got none")
        check_loss(chosen.loss, self.classes)
        targets = read_targets(y, len(rows), self.classes, chosen.loss)
        plan = self.plan(chosen.loss)
        data = {"x": rows, "y": targets.rows, **self._support(support, len(rows))}
        run = self._evaluated(plan.program, plan.order, data)
        logits = plan.program.tensor("logits")
        value = float(run.array(plan.program.tensor("loss")))
        if not math.isfinite(value):
            raise not_taken("loss", "", f"is {value}", value, lr, clip)
        f = self.arrays.to_numpy(run.rows(logits, (SAMPLE,), *without(logits.axes, (SAMPLE,))))
        metrics: dict[str, Any] = {"loss": value, **targets.measure(f)}
        gradients = {w.name: gradient(w, plan, run, self._unit(w)) for w in plan.gradients}
        factors = dict.fromkeys(gradients, 1.0)
        if clip is not None:
            with np.errstate(all="ignore"):
                norms = metrics["grad_norm"] = {n: self.scales[n].norm * g.norm() for n, g in gradients.items()}
            for name, norm in norms.items():
                if not math.isfinite(norm):
                    raise not_taken("the gradient norm", name, f"is {norm}", value, lr, clip)
            factors = clip_factors(norms, clip, chosen.clip_mode)
        rates = {name: own[name] * self.scales[name].rate for name in gradients}
        for name, g in gradients.items():
            if not self._is_finite(g):
                raise not_taken("the gradient", name, "is not finite", value, lr, clip)
            if not (reached := self._reached(name, g, factors[name], rates[name])) < float(np.finfo(self.dtype).max):
                raise not_taken("the update", name, f"would reach {reached:.3g}, beyond {self.dtype}", value, lr, clip)
        for name, g in gradients.items():
            self._descend(name, g, factors[name], rates[name], keeps[name], chosen.momentum)
        return metrics

    @staticmethod
    def _is_finite(g: Gradient) -> bool:
        with np.errstate(all="ignore"):
            return g.is_finite()

    def _reached(self, name: str, g: Gradient, factor: float, rate: float) -> float:
        """What no number of a weight, its momentum and their change exceeds after a step, unless it is negligible."""
        with np.errstate(all="ignore"):
            change = factor * g.largest()
        if change * max(1.0, rate) < UNHEARD * float(np.finfo(self.dtype).max):
            return 0.0
        moved = change + (largest(self._velocity[name]) if name in self._velocity else 0.0)
        return max(moved, largest(self._state[name]) + rate * moved)

    def _evaluated(self, program: Program, order: Iterable[Node], data: Mapping[str, Array]) -> Evaluation:
        leaves: dict[str, Any] = {name: self.arrays.array(v, self.dtype) for name, v in data.items()}
        bases = {}
        for name, value in self._state.items():
            w = self.parameters.get(name)
            if w is None:
                bases[name.removeprefix(BASIS)] = value
            elif isinstance(w, ir.MatrixWeight):
                leaves[name] = dense(value, w.shape, self.arrays.product)
            else:
                leaves[name] = self.width * value if role(w) == "readout" else value
        run = Evaluation(program, self.width, leaves, bases, self.arrays, self.dtype)
        with np.errstate(all="ignore"), self.arrays.alone():  # a network that diverges is told by its loss
            run.evaluate(order)
        return run

    def _support(self, support: Support | None, samples: int) -> dict[str, Array]:
        """What an adapted network takes besides its samples."""
        check_given(support, self.adapts)
        if support is None:
            return {}
        x = input_rows(support.x, self.input_shape, self.dtype)
        if not len(x):
            raise UsageError("expected at least one support sample, got none")
        answers = read_targets(support.y, len(x), self.classes, what="support targets")
        return {"x_support": x, "y_support": answers.rows, **support.weights(samples)}

    def _unit(self, w: AnyWeight) -> float:
        """∂L/∂W over what the program has: n ∂L/∂U for U, n ∂L/∂W as a sum of products for W, ∂L/∂v for v."""
        return 1 / self.width if role(w) in ("input", "hidden") else 1.0

    def _descend(self, name: str, g: Gradient, factor: float, rate: float, keep: float, momentum: float) -> None:
        """m ← momentum·m + factor·∇, W ← keep·W − rate·m"""
        if momentum and name not in self._velocity:
            self._velocity[name] = self.arrays.xp.zeros_like(self._state[name])
        if name in self._velocity:
            g.add_to(self._velocity[name], momentum, factor)
            add_scaled(self._state[name], keep, -rate, self._velocity[name])
        else:
            g.add_to(self._state[name], keep, -rate * factor)

    # --- state -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """Weights by name: input-like matrices (d, n), biases (n,), hidden matrices (n, n), readouts (classes, n).

        They are the W of W = n^(-a) w, in every parametrization. With "pi" come orthonormal bases `basis.<space>`
        (n, rank) of what gradients are projected to. Once there is momentum, `<weight>.velocity` is what it gathered.
        """
        return self.parameters_now | {f"{name}.velocity": value.copy() for name, value in self.velocity.items()}

    @property
    def parameters_now(self) -> dict[str, Array]:
        """Copies of the weights, and of the bases, without momentum."""
        return {name: self.arrays.to_numpy(value).copy() for name, value in self._state.items()}

    def load_state(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Replace the whole state; momentum is that of the arrays, and starts at zero where they have none.

        Raises UsageError for missing or unknown names, wrong shapes and numbers that are not finite, and leaves the
        state as it was.
        """
        if not isinstance(arrays, Mapping):
            raise UsageError(f"expected the arrays of a state by name, as state() gives them, got {arrays!r}")
        shapes = self.shapes
        moving = {f"{name}.velocity": shape for name, shape in shapes.items() if name in self.parameters}
        given = {name: real_array(value, str(name)) for name, value in arrays.items()}
        for name in given:
            if name not in shapes and name not in moving:
                raise UsageError(unknown_name(name, [*shapes, *moving], "array in the state"))
        if missing := [name for name in shapes if name not in given]:
            raise UsageError(f"expected the arrays {', '.join(shapes)} in the state; missing: {', '.join(missing)}")
        for name, value in given.items():
            check_shape(name, value, {**moving, **shapes}[name])
            check_range(name, value, self.dtype)
        self._state = {name: self._taken_over(given[name]) for name in shapes}
        self._velocity = {
            name.removesuffix(".velocity"): self._taken_over(given[name]) for name in moving if name in given
        }

    def _taken_over(self, value: Array) -> Any:
        return self.arrays.xp.array(value, dtype=self.dtype, order="C")

    @property
    def velocity(self) -> dict[str, Array]:
        """What momentum has gathered, by the name of the weight."""
        return {name: self.arrays.to_numpy(value) for name, value in self._velocity.items()}

    def load_velocity(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Replace what momentum has gathered."""
        for name, value in arrays.items():
            if name not in self.parameters:
                raise UsageError(unknown_name(name, self.parameters, "weight with momentum"))
            check_shape(f"the velocity of {name}", real_array(value, name), self.shapes[name])
            check_range(f"the velocity of {name}", real_array(value, name), self.dtype)
        self._velocity = {name: self.arrays.array(value, self.dtype) for name, value in arrays.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        from tpc.runtime.networks.network_file import from_bytes, to_bytes

        return from_bytes, (type(self), to_bytes(self))

    def save(self, path: str | Path) -> None:
        """Write everything to one .npz file: the program's listing, sizes, weights and momentum."""
        from tpc.runtime.networks.network_file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path, backend: str | None = None) -> Network:
        """A network from a file written by `save`, on any backend. Raises DataError for a damaged file."""
        from tpc.runtime.networks.network_file import load

        return load(cls, path, backend)
