"""Every stage of a compilation as text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import sympy as sp

from tpc.errors import UsageError, UserError
from tpc.gaussian.explain import defined, equation, hence
from tpc.gaussian.kernel import kernel
from tpc.gaussian.names import KernelNames, plain
from tpc.gaussian.symbols import U, V
from tpc.limits.fold import fold_store
from tpc.limits.graph import LimitGraph
from tpc.limits.nngp import DIAGONAL
from tpc.limits.nodes import Kernel
from tpc.limits.store import Accumulate, Append
from tpc.limits.text import listing as limit_listing
from tpc.limits.text import update_listing
from tpc.program.ir import Matrix, Vector
from tpc.program.naming import text
from tpc.program.text import listing

if TYPE_CHECKING:
    from tpc.compiler import Limit

POINTS = 1024  # that the cost of a sampled tail is told for


def emit(limit: Limit, stage: str, degree: int | None = None, points: int = 0) -> str:
    """The text of a stage, folded to a degree, with so many points, if one is given.

    Raises UsageError for an unknown stage.
    """
    if stage not in STAGES:
        raise UsageError(f"expected a stage among {', '.join(STAGES)}, got {stage!r}")
    return STAGES[stage](limit, degree, points)


def _kernels(limit: Limit, degree: int | None, points: int) -> str:
    """Every V[φ,ψ] of the graph: closed form, series, the rules that gave it."""
    parts = []
    names = KernelNames(limit.graph(degree=degree, points=points).kernels)
    for phi, psi in names.pairs:
        v = kernel(phi, psi)
        name = f"{names.kernel(phi, psi)}(p, q, c)"
        applied = (_applied(names.applied(f, variable)) for f, variable in ((phi, U), (psi, V)))
        lines = [f"{name} = E {' '.join(applied)}", *(f"  {line}" for line in defined(v, names))]
        if v.plain is not None:
            lines.append(f"  = {sp.sstr(v.plain)}")
            if v.value != v.plain:
                lines.append(f"  computed as {sp.sstr(v.value)}")
        else:
            lines.append("  has no closed form and is computed numerically")
        if v.degrees is not None and v.kappa is not None:
            a, b = v.degrees
            lines.append(f"  = p^({a}/2) q^({b}/2) kappa(rho), kappa = {sp.sstr(v.kappa)}")
        lines += [f"  {s.rule:<20} {equation(s)}" for s in v.rules]
        lines += [f"  {hence(v, names)}"] if v.rules else []
        lines += [f"  valid for {condition}" for condition in v.conditions]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _applied(applied: sp.Expr) -> str:
    shown = plain(applied)
    return f"({shown})" if applied.is_Add else shown


def _update(limit: Limit, degree: int | None, points: int) -> str:
    if limit.is_kernel:
        raise UsageError(f"the {limit.kind}-limit is a kernel, which has no update; see the stages limit and kernels")
    return update_listing(limit.graph(degree=degree, points=points))


def _latex(limit: Limit, degree: int | None, points: int) -> str:
    from tpc.limits.latex_document import document

    return document(limit.graph(degree=degree, points=points), limit.trained())


def _numpy(limit: Limit, degree: int | None, points: int) -> str:
    if limit.is_kernel:
        from tpc.lower.kernel_module import kernel_module
        from tpc.lower.kernels import lower_kernels

        return kernel_module(lower_kernels(limit.graph()))
    from tpc.lower.lowered import lower
    from tpc.lower.numpy_module import numpy_module

    return numpy_module(lower(limit.graph(degree=degree, points=points)))


def _c(limit: Limit, degree: int | None, points: int) -> str:
    if limit.is_kernel:
        from tpc.lower.kernel_native import kernel_c_source
        from tpc.lower.kernels import lower_kernels

        return kernel_c_source(lower_kernels(limit.graph()))
    from tpc.lower.lowered import lower
    from tpc.lower.native_module import c_source

    return c_source(lower(limit.graph(degree=degree, halves=True, points=points)))


def _cuda(limit: Limit, degree: int | None, points: int) -> str:
    if limit.is_kernel:
        raise UsageError(
            f"the {limit.kind}-limit has no CUDA code: on a device its kernels are array operations (stage numpy)"
        )
    from tpc.lower.cuda_module import cuda_source
    from tpc.lower.lowered import lower

    return cuda_source(lower(limit.graph(degree=degree, points=points)))


def _drawn(kind: str) -> Callable[[Limit, int | None, int], str]:
    def draw(limit: Limit, degree: int | None, points: int) -> str:
        from tpc.draw.graph import render

        return render(limit.to_networkx(degree, points), kind, f"{limit.kind}-limit of {limit.program.name}")

    return draw


STAGES: dict[str, Callable[[Limit, int | None, int], str]] = {
    "program": lambda limit, _, __: listing(limit.program),
    "backward": lambda limit, _, __: listing(limit.trained()),
    "limit": lambda limit, degree, points: limit_listing(limit.graph(degree=degree, points=points)),
    "update": _update,
    "kernels": _kernels,
    "latex": _latex,
    "numpy": _numpy,
    "c": _c,
    "cuda": _cuda,
    "dot": _drawn("dot"),
    "json": _drawn("json"),
}


def summary(limit: Limit) -> str:
    """One screen about a compilation."""
    program, graph = limit.program, limit.graph()
    derived = "one output and its gradients" if limit.is_kernel else "backward pass and projection"
    nodes = program.nodes
    vectors = [n for n in nodes if isinstance(n, Vector)]
    gaussian = sum(n.kind == "G" for n in vectors)
    matrices = sum(isinstance(n, Matrix) for n in nodes)
    finite = len(nodes) - len(vectors) - matrices
    lines = [
        f"{program.name}: {len(nodes)} lines ({gaussian} G-vectors, {len(vectors) - gaussian} X-vectors, "
        f"{matrices} matrices, {finite} scalars) over the spaces {', '.join(program.spaces)}",
        f"with {derived}: {len(limit.trained().nodes)} lines",
        f"{limit.kind}-limit: {len(graph.nodes)} tensors, "
        f"{sum(isinstance(n, Kernel) for n in graph.nodes)} kernel evaluations",
        "",
    ]
    if not limit.is_kernel:
        lines += ["parameters", *(f"  {weight:<16}{parameter(updates)}" for weight, updates in graph.updates), ""]
    lines += ["kernels"]
    names = KernelNames(graph.kernels)
    lines += [f"  {name}(x) = {text(phi)}" for name, phi in names.definitions.items()]
    for phi, psi in names.pairs:
        v = kernel(phi, psi)
        form = "numeric" if v.plain is None else sp.sstr(v.plain)
        lines.append(f"  {names.kernel(phi, psi)}(p, q, c) = {form}")
    if limit.is_kernel:
        return "\n".join([*lines, "", *entries(graph)]) + "\n"
    lines += [
        "",
        "cost of a step: rank r, batch b, M atoms per kernel matrix",
        *(f"  {line}" for line in costs(graph)),
        "",
        *folding(graph),
    ]
    return "\n".join(lines) + "\n"


def facts(limit: Limit) -> dict[str, object]:
    """What `summary` says, as plain numbers, texts and lists; a kernel without closed form has null."""
    program, graph = limit.program, limit.graph()
    forms = {name: v.plain for name, v in limit.kernels.items()}
    found: dict[str, object] = {
        "program": program.name,
        "limit": limit.kind,
        "lines": len(program.nodes),
        "spaces": list(program.spaces),
        "kernels": {name: None if form is None else sp.sstr(form) for name, form in forms.items()},
        "warnings": list(limit.warnings),
    }
    if not limit.is_kernel:
        found |= {
            "parameters": {weight: parameter(updates) for weight, updates in graph.updates},
            "cost_of_a_step": list(costs(graph)),
        }
    return found


def parameter(updates: tuple[object, ...]) -> str:
    """How a weight is stored, and what a step does to it, in words."""
    shown = []
    for u in updates:
        if isinstance(u, Append):
            s = u.store
            columns = ", ".join(
                f"{c.name}[{', '.join(map(str, c.axes))}]" for c in (s.coefficients, *s.columns, *s.thetas)
            )
            unit = ", unit rows" if s.degree is not None else ""
            shown.append(f"atoms {text(s.fn)}: {columns}{unit}; every step appends the batch")
        elif isinstance(u, Accumulate):
            state = u.state
            shown.append(f"array {state.name}[{', '.join(map(str, state.axes))}]; every step adds to it")
    return "; ".join(shown)


def folding(graph: LimitGraph) -> list[str]:
    """What mode folded keeps instead of old atoms, and how well."""
    from tpc.runtime.models.folding import TOLERANCE, least_degree, numbers_stored, relative_remainder

    try:
        degree = least_degree(graph, TOLERANCE)
    except UserError as error:
        return [f"folding (--mode folded): {error}"]
    lines = [f"folding (--mode folded): degree {degree}; besides its tensors about 1,000 of the newest atoms are kept"]
    for s in graph.stores:
        f = fold_store(s, degree)
        sizes = ", ".join(f"{4e-6 * numbers_stored(f, r):,.1f} MB at r = {r}" for r in (100, 200, 400))
        errors = ", ".join(f"{relative_remainder(f, rho):.2g} at |ρ| = {rho:g}" for rho in (0.5, 1.0))
        lines.append(f"  {s.name:<14} degrees {', '.join(str(m.order) for m in f.moments)}; {sizes} (float32)")
        lines.append(
            f"  {'':<14} |V - series| ≤ {errors} of V at unit variances; fitted weights: less, measured in training"
        )
    folds = [fold_store(s, degree) for s in graph.stores]
    more = [4e-6 * sum(numbers_stored(fold_store(f.store, degree, POINTS), r) - numbers_stored(f, r) for f in folds)
            for r in (100, 200, 400)]  # fmt: skip
    if any(more):
        sizes = ", ".join(f"{size:,.1f} MB at r = {r}" for size, r in zip(more, (100, 200, 400)))
        lines.append(f"  --fold-points {POINTS} keeps what the series leave out, without a bias: {sizes} more")
    return lines


def costs(graph: LimitGraph) -> list[str]:
    """Multiply-adds and reads of every kernel matrix, from its columns' widths."""
    lines = []
    for s in graph.stores:
        wide = any(a.role == "rank" for a in s.coefficients.axes)
        outputs = "r" if wide else str(next((a.size for a in s.coefficients.axes[1:]), 1))
        width = len(s.columns)
        lines.append(
            f"{s.name:<14} memory M·({_times(width)}r + {outputs}) numbers, read twice; "
            f"about 2·b·M·({_times(2 * width)}r + 2·{outputs}) multiply-adds; M grows by b"
        )
    return lines


def entries(graph: LimitGraph) -> list[str]:
    """What a kernel limit computes, and for how many pairs of samples."""
    found = [name for name, _ in graph.outputs if not name.endswith(DIAGONAL)]
    pairs = sum(isinstance(n, Kernel) and len(n.axes) > 1 for n in graph.nodes)
    return [
        f"{' and '.join(found)} of N1 × N2 samples with d features",
        f"  2·d multiply-adds and {pairs} kernel evaluations per entry; half of them where x2 is x1",
    ]


def _times(n: int) -> str:
    return "" if n == 1 else str(n)
