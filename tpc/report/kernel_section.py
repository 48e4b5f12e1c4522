"""The part of a report about one kernel: what its functions are, its derivation, its formula, its curve."""

from __future__ import annotations

from html import escape

import numpy as np
import sympy as sp

from tpc.draw.page import figure, folded, numbered_equation
from tpc.errors import GaussianError
from tpc.gaussian.definitions import Definition, definitions
from tpc.gaussian.explain import equation as explained
from tpc.gaussian.explain import named_step
from tpc.gaussian.kernel import Kernel
from tpc.gaussian.mathml import broken, expression, fenced, function_name, listed, math, row, sign, summands
from tpc.gaussian.moments import Step
from tpc.gaussian.names import KernelNames
from tpc.gaussian.notation import unicode_line
from tpc.gaussian.primitives import textbook
from tpc.gaussian.symbols import C, P, Q
from tpc.limits.mathml import kernel_name
from tpc.program.functions import X
from tpc.report import plots

SERIES = 6  # the highest power of ρ in the curves' series
_APPLY = sign("\u2061")


def kernel_block(v: Kernel, number: int, names: KernelNames) -> str:
    """Definitions, derivation, formula, conditions and curve of one kernel."""
    name = names.kernel(v.phi, v.psi)
    told = [] if v.rules else [f"<div>{_defined(d)}</div>" for d in definitions(v, names)]  # a derivation has them
    told.append(numbered_equation(f"eq-{number}", number, _formula(v, names)))
    if v.degrees is not None and v.kappa is not None:
        told.append(_homogeneous(v))
    told.append("<p>Valid for " + escape("; ".join(v.conditions) or "all p, q ≥ 0 with c² ≤ pq") + ".</p>")
    body = f'<div class="columns"><div>{"".join(told)}</div>{_curve(v, name)}</div>'
    return f'<article class="kernel"><h3>{escape(name)}</h3>{body}{_derivation(v, names)}</article>'


def _left(v: Kernel, names: KernelNames) -> str:
    return row(kernel_name(v.phi, v.psi, names), _APPLY, fenced(listed([expression(s) for s in (P, Q, C)])), sign("="))


def _formula(v: Kernel, names: KernelNames) -> str:
    name = names.kernel(v.phi, v.psi)
    if v.plain is None:
        return f"{broken([_left(v, names)], f'{name} has no closed form')} no closed form: computed from a table"
    return broken([_left(v, names), *summands(v.plain)], f"{name} = {unicode_line(v.plain)}")


def _defined(d: Definition) -> str:
    """name(x) = meaning = value"""
    parts = [row(function_name(d.name), _APPLY, fenced("<mi>x</mi>"), sign("="))]
    parts += [f"<mtext>{escape(d.meaning)}</mtext>"] if d.meaning else []
    parts += [sign("=")] if d.meaning and d.value is not None else []
    return broken(parts + (summands(d.value) if d.value is not None else []))


def _derivation(v: Kernel, names: KernelNames) -> str:
    if not v.rules:
        return ""
    rows = [f"<tr><th></th><td>where</td><td>{_defined(d)}</td></tr>" for d in definitions(v, names)]
    rows += [f"<tr><th>{k}</th><td>{escape(s.rule)}</td><td>{_step(s)}</td></tr>" for k, s in enumerate(v.rules, 1)]
    rows.append(f"<tr><th></th><td>hence</td><td>{_formula(v, names)}</td></tr>")
    count = "1 step" if len(v.rules) == 1 else f"{len(v.rules)} steps"
    return folded(f"Derivation, {count}", f'<table class="steps">{"".join(rows)}</table>')


def _homogeneous(v: Kernel) -> str:
    assert v.degrees is not None
    assert v.kappa is not None
    scale = P ** sp.Rational(v.degrees[0], 2) * Q ** sp.Rational(v.degrees[1], 2)
    shown = [expression(scale), sign("\u2062")] if scale != 1 else []
    kappa = row("<mi>κ</mi>", fenced("<mi>ρ</mi>"))
    rho = row("<mi>ρ</mi>", sign("="), expression(C / sp.sqrt(P * Q)))
    lines = (
        [row("<mi>V</mi>", sign("="), *shown, kappa, sign(",")), rho],
        [row(kappa, sign("=")), *summands(textbook(v.kappa))],
    )
    return "".join(f"<div>{broken(line)}</div>" for line in lines)


def _step(s: Step) -> str:
    """left = right, and the law of new expectations."""
    s = named_step(s)
    pieces = [row(expression(s.left), sign("=")), *summands(textbook(s.right))]
    laws = [
        math(row(f"<mtext>{escape(what)}</mtext>", sign("="), expression(sp.factor(textbook(value)))))
        for what, value in s.law
    ]
    law = f'<div class="law">where {", ".join(laws)}</div>' if laws else ""
    return f"<div>{broken(pieces, explained(s))}</div>{law}"


def _curve(v: Kernel, name: str) -> str:
    if not v.phi.has(X) or not v.psi.has(X):
        return ""  # no correlation to draw it over
    try:
        with np.errstate(all="ignore"):
            drawn = plots.kernel_curve(v, 1.0, 1.0, SERIES, name)
    except GaussianError as error:
        return f"<p>{escape(str(error))}</p>"
    return figure(plots.to_svg(drawn, f"{v.phi},{v.psi}"))
