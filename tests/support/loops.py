"""One limit with random atoms on any backend, and how far its loops are from NumPy in float64."""

import numpy as np

import tpc
from backends.native_backend import BACKEND as NATIVE
from backends.numpy_backend import BACKEND as NUMPY
from tpc.lower.lowered import lower
from tpc.runtime.models.initial import shape_of
from tpc.runtime.models.model import Model

DIM, CLASSES = 6, 3
EXACT = 5e-6  # of an array's largest entry: what float32 leaves of it


def network(phi, hidden=2):
    def f(x):
        h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
        for k in range(1, hidden):
            h = tpc.dense(phi(h), name=f"hidden{k}") + 0.5 * tpc.bias(f"hidden{k}")
        return tpc.readout(phi(h), CLASSES, name="readout")

    f.__name__ = "network"
    return tpc.trace(f)


class Problem:
    """One limit with random atoms, the same on every backend."""

    def __init__(self, program, *, rank=7, count=300, batch=8, loss="cross_entropy", momentum=False, seed=0):
        self.model = Model(tpc.compile(program), DIM, rank, dtype="float64")
        self.lowered = lower(self.model.limit.graph(loss), momentum)
        self.momentum = momentum
        rng = np.random.default_rng(seed)
        self.arrays = {
            u.state.name: 0.5 * rng.standard_normal(shape_of(u.state.axes, self.model.sizes, rank))
            for u in self.model.graph.accumulated
        }
        self.columns = {}
        for s in self.model.graph.stores:
            widths = self.model.widths(s)
            drawn = {n: rng.standard_normal((count, *w)) for n, w in widths.items()}
            for n in drawn:
                if n == "A":
                    drawn[n] /= np.sqrt(max(1, count))
                elif n.startswith("B"):
                    drawn[n] /= np.linalg.norm(drawn[n], axis=1, keepdims=True)
            self.columns[s.name] = widths, drawn
        self.x = rng.standard_normal((batch, DIM))
        self.y = rng.uniform(0.1, 1, (batch, self.model.classes))
        self.y /= self.y.sum(axis=1, keepdims=True)

    def state(self, backend, dtype, storage=None, rows=64):
        state = {n: backend.array(a, dtype) for n, a in self.arrays.items()}
        for k, (name, (widths, drawn)) in enumerate(self.columns.items()):
            atoms = backend.new_atoms(widths, dtype, self.momentum, storage, rows)
            middle = len(drawn["A"]) // 2
            given = {n: backend.array(v, dtype) for n, v in drawn.items()}
            atoms.extend({n: v[:middle] for n, v in given.items()}, 0.5, 0.1)
            atoms.extend({n: v[middle:] for n, v in given.items()}, -1.5 - k, 0.2)
            state[name] = atoms
        return state

    def run(self, backend, dtype, storage=None, rows=64, function="gradients"):
        state = self.state(backend, dtype, storage, rows)
        module = backend.compile_module(self.lowered)
        x, y = (backend.array(a, dtype) for a in (self.x, self.y))
        if function == "predict":
            return hosted(module.predict(state, x), backend)
        out = module.gradients(state, x, y)
        arguments = [{"x": x, "y": y}.get(key, out.get(key)) for key in module.NORM_ARGUMENTS]
        norms = {f"norm:{n}": v for n, v in module.norms(state, *arguments).items()}
        return hosted({**out, **norms}, backend)

    def exact(self, **options):
        return self.run(NUMPY, "float64", **options)

    def native(self, storage=None, **options):
        return self.run(NATIVE, "float32", storage, **options)


def hosted(found, backend):
    """Results of a backend as NumPy arrays."""
    return {name: np.asarray(backend.to_numpy(value)) for name, value in found.items()}


def error(found, wanted):
    """The largest difference, in units of the largest entry of each array or 1e-3."""
    assert found.keys() == wanted.keys()
    worst = 0.0
    for name, value in wanted.items():
        got, value = np.asarray(found[name]), np.asarray(value)
        assert got.shape == value.shape, name
        assert got.ndim == 0 or got.dtype == np.float32, name
        worst = max(worst, float(np.abs(got - value).max(initial=0) / max(1e-3, np.abs(value).max(initial=0))))
    return worst


class Rounded:
    """A problem whose atoms are those that a 16-bit store holds."""

    def __init__(self, problem, storage):
        self.problem, self.storage = problem, storage

    def exact(self):
        problem, columns = self.problem, {}
        for name, (widths, drawn) in problem.columns.items():
            atoms = NATIVE.new_atoms(widths, "float32", False, self.storage)
            atoms.extend({n: v.astype(np.float32) for n, v in drawn.items()})
            columns[name] = widths, {n: atoms.column(n).astype(np.float64) for n in drawn}
        kept, problem.columns = problem.columns, columns
        try:
            return problem.exact()
        finally:
            problem.columns = kept


NONLINEARITIES = {
    "relu": tpc.relu, "erf": tpc.erf, "gelu": tpc.gelu, "abs": tpc.abs, "leaky_relu": tpc.leaky_relu, "sin": tpc.sin,
    "cos": tpc.cos, "exp": lambda h: tpc.exp(0.3 * h), "identity": tpc.identity,
    "square": lambda h: 0.3 * tpc.relu(h) ** 2, "cubic": lambda h: h - 0.1 * h**3,
}  # fmt: skip
RANK_BY_RANK = ("identity", "cubic")  # whose linear part is summed as Aᵀ B, a matrix without samples
