"""Every stage of a compilation as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import sympy as sp

from tpc.derivation import Derivation
from tpc.errors import UsageError
from tpc.gaussian.explain import defined, equation, hence
from tpc.gaussian.kernel import kernel
from tpc.gaussian.names import KernelNames, plain
from tpc.gaussian.symbols import U, V
from tpc.limits.text import listing as limit_listing
from tpc.limits.text import update_listing
from tpc.program.text import listing


def emit(limit: Derivation, stage: str, degree: int | None = None, points: int = 0) -> str:
    """The text of a stage, folded to a degree, with so many points, if one is given.

    Raises UsageError for an unknown stage.
    """
    if stage not in STAGES:
        raise UsageError(f"expected a stage among {', '.join(STAGES)}, got {stage!r}")
    return STAGES[stage](limit, degree, points)


def _kernels(limit: Derivation, degree: int | None, points: int) -> str:
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


def _update(limit: Derivation, degree: int | None, points: int) -> str:
    if limit.is_kernel:
        raise UsageError(f"the {limit.kind}-limit is a kernel, which has no update; see the stages limit and kernels")
    return update_listing(limit.graph(degree=degree, points=points))


def _latex(limit: Derivation, degree: int | None, points: int) -> str:
    from tpc.limits.latex_document import document

    return document(limit.graph(degree=degree, points=points), limit.trained())


def _lowered(stage: str) -> Callable[[Derivation, int | None, int], str]:
    """A stage of lowering; `schedule` of a kernel limit has functions of one and of two samples."""

    def show(limit: Derivation, degree: int | None, points: int) -> str:
        from tpc.lower.kernels import collect_kernels, lower_kernels
        from tpc.lower.lowered import lower, stage_listing, through, until

        graph = limit.graph(degree=degree, points=points)
        if not limit.is_kernel:
            return stage_listing(lower(graph, stages=until(stage)), stage)
        if stage != "schedule":
            return stage_listing(through(until(stage), collect_kernels(graph)), stage)
        return stage_listing(replace(collect_kernels(graph), functions=lower_kernels(graph).functions), stage)

    return show


def _numpy(limit: Derivation, degree: int | None, points: int) -> str:
    if limit.is_kernel:
        from tpc.lower.kernel_module import kernel_module
        from tpc.lower.kernels import lower_kernels

        return kernel_module(lower_kernels(limit.graph()))
    from tpc.lower.lowered import lower
    from tpc.lower.numpy_module import numpy_module

    return numpy_module(lower(limit.graph(degree=degree, points=points)))


def _c(limit: Derivation, degree: int | None, points: int) -> str:
    if limit.is_kernel:
        from tpc.lower.kernel_stretches import kernel_c_source
        from tpc.lower.kernels import lower_kernels

        return kernel_c_source(lower_kernels(limit.graph()))
    from tpc.lower.lowered import lower
    from tpc.lower.native_module import c_source

    return c_source(lower(limit.graph(degree=degree, halves=True, points=points)))


def _cuda(limit: Derivation, degree: int | None, points: int) -> str:
    if limit.is_kernel:
        raise UsageError(
            f"the {limit.kind}-limit has no CUDA code: on a device its kernels are array operations (stage numpy)"
        )
    from tpc.lower.cuda_module import cuda_source
    from tpc.lower.lowered import lower

    return cuda_source(lower(limit.graph(degree=degree, points=points)))


def _drawn(kind: str) -> Callable[[Derivation, int | None, int], str]:
    def draw(limit: Derivation, degree: int | None, points: int) -> str:
        from tpc.draw.formats import render

        return render(limit.to_networkx(degree, points), kind, f"{limit.kind}-limit of {limit.program.name}")

    return draw


STAGES: dict[str, Callable[[Derivation, int | None, int], str]] = {
    "program": lambda limit, _, __: listing(limit.program),
    "backward": lambda limit, _, __: listing(limit.trained()),
    "limit": lambda limit, degree, points: limit_listing(limit.graph(degree=degree, points=points)),
    "update": _update,
    "kernels": _kernels,
    "latex": _latex,
    "concrete": _lowered("concrete"),
    "plan": _lowered("plan"),
    "schedule": _lowered("schedule"),
    "numpy": _numpy,
    "c": _c,
    "cuda": _cuda,
    "dot": _drawn("dot"),
    "json": _drawn("json"),
}
