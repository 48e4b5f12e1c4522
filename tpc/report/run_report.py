"""report.html of a run: what was trained, how it went, and what the compiler derived; opens offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import tpc
from tpc.compiler import Limit
from tpc.program.program import Program
from tpc.report import plots
from tpc.report.collapse import collapse_trivial
from tpc.report.graph import forward_part, limit_name
from tpc.report.page import cards, code, figure, folded, page, section, table
from tpc.report.svg import to_svg
from tpc.runtime.checkpoint import write_atomic
from tpc.runtime.episodic import FewShotEvaluation
from tpc.runtime.evaluate import Evaluation
from tpc.runtime.parametrization import exponents, role
from tpc.runtime.progress import human_bytes, human_time
from tpc.runtime.rundir import RunDir
from tpc.runtime.source import Result
from tpc.tasks.job import Job, job_of

SECTIONS = {
    "curves": ("Training", "Batches before their update, and held-out samples after each epoch."),
    "confusion": ("Test set", "Rows are true classes, columns predicted ones."),
    "features": (
        "Representations",
        "Images of five test classes along the two largest principal components of their representations.",
    ),
    "alphabets": ("Test tasks", "Queries by the alphabet of their class, whatever the other classes of their task."),
    "program": ("Program", "The network as written, and as traced."),
    "graph": ("Limit graph", "The forward pass; hold the pointer over a node for its equation."),
    "limit": ("Limit", "The network, its loss and its gradients in the latent dimension r."),
    "kernels": ("Kernels", "V[φ,ψ](p,q,c) = E φ(u)ψ(v), u and v Gaussian, variances p and q, covariance c."),
    "parametrization": (
        "Parametrization",
        "W = n^(−a) w, entries w ~ N(0, n^(−2b)) times the program's scale, learning rate lr·n^(−c), at width n.",
    ),
    "update": ("Update rules", "What one step of gradient descent does to the state."),
    "settings": ("Settings", "config.toml of this run."),
}


def write_report(
    run: RunDir, evaluation: Result, class_names: Sequence[str], representations: Figure | None = None
) -> Path:
    """Write report.html and the plots of a run; returns the path of the report."""
    config, records = run.read_config(), run.read_metrics()
    job = job_of(config).from_config(config)
    curves = plots.training_curves(records)
    curves_svg = plots.to_svg(curves, "curves")
    run.plots_path.mkdir(parents=True, exist_ok=True)
    plots.save(curves, run.plots_path / "curves.svg")
    tested, missing = _tested(run, evaluation, class_names)
    if representations is None:
        seen, missing = "", (*missing, "features")
    else:
        plots.save(representations, run.plots_path / "features.svg")
        seen = _section("features", figure(plots.to_svg(representations, "features")))
    program = tpc.load(run.program_path, function=job.function, **job.settings)
    title = f"{job.described if job.width else limit_name(job.limit)} of {Path(job.program).stem}"
    name = f"{title} on {job.data}"
    source = code(run.program_path.read_text(encoding="utf-8"), "Source")
    if job.network is None:
        derived, missing = _derived(tpc.compile(program, limit=job.limit), name), (*missing, "parametrization")
    else:
        derived, missing = _parametrized(program, job), (*missing, "graph", "limit", "kernels", "update")
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="note">tpc {escape(config.get("tpc_version", tpc.__version__))}, run {escape(str(run.path))}</p>',
        _figures(records, evaluation),
        "<nav>"
        + " ".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in SECTIONS.items() if key not in missing)
        + "</nav>",
        _section("curves", figure(curves_svg)),
        tested,
        seen,
        _section("program", f'<div class="columns">{source}{code(tpc.listing(program), "Listing")}</div>'),
        *derived,
        _section("settings", _settings(config)),
    ]
    write_atomic(run.report_path, page(f"{name}: {evaluation.accuracy:.1%}", body))
    return run.report_path


def _derived(limit: Limit, name: str) -> tuple[str, ...]:
    """What the compiler made of the program."""
    whole = collapse_trivial(limit.to_networkx())
    forward, step = (
        to_svg(forward_part(whole), f"{name}: forward pass"),
        to_svg(whole, f"{name}: training step"),
    )
    return (
        _section("graph", figure(forward, "graph"), folded("The whole training step", figure(step, "graph"))),
        _section("limit", code(limit.emit("limit"))),
        _section("kernels", code(limit.emit("kernels"))),
        _section("update", code(limit.emit("update"))),
    )


def _parametrized(program: Program, job: Job) -> tuple[str, ...]:
    """The scaling of every weight of a finite network."""
    assert job.network is not None
    name = job.network["parametrization"]
    rows = []
    for w in program.weights:
        e = exponents(name, w)
        rows.append((w.name, role(w), *(str(x).replace("-", "−") for x in (e.a, e.b, e.c))))
    heads = ("weight", "role", "a", "b", "c")
    return (_section("parametrization", table(heads, rows)),)


def _tested(run: RunDir, evaluation: Result, class_names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The section about the final test, and the sections that such a run does not have."""
    if isinstance(evaluation, FewShotEvaluation):
        rows = [(name, str(count), f"{right:.1%}") for name, (right, count) in evaluation.alphabets.items()]
        told = f"{evaluation.tasks} tasks, {evaluation.accuracy:.2%} ± {evaluation.interval:.2%} right (95 % interval)"
        return _section("alphabets", f"<p>{told}.</p>", table(("alphabet", "queries", "right"), rows)), ("confusion",)
    assert isinstance(evaluation, Evaluation)
    matrix = plots.confusion(evaluation.confusion, class_names)
    plots.save(matrix, run.plots_path / "confusion.svg")
    right = f"{int(evaluation.confusion.sum())} samples, {evaluation.accuracy:.2%} right"
    return _section("confusion", f"<p>{right}.</p>", figure(plots.to_svg(matrix, "confusion"))), ("alphabets",)


def _section(key: str, *content: str) -> str:
    return section(key, *SECTIONS[key], *content)


def _figures(records: Sequence[Mapping[str, Any]], evaluation: Result) -> str:
    epochs = [record for record in records if record.get("kind") == "epoch"]
    around = f" ± {evaluation.interval:.2%}" if isinstance(evaluation, FewShotEvaluation) else ""
    facts = {"test accuracy": f"{evaluation.accuracy:.2%}{around}", "test loss": f"{evaluation.loss:.4f}"}
    if epochs:
        last = epochs[-1]
        measured = plots.measured_on(records)
        best = max(epochs, key=lambda record: record[f"{measured}_accuracy"])
        facts |= {
            "train accuracy, last epoch": f"{last['train_accuracy']:.2%}",
            f"best {measured} accuracy (epoch {best['epoch']})": f"{best[f'{measured}_accuracy']:.2%}",
            "epochs": str(last["epoch"]),
            "steps": f"{last['step']:,}",
            **({"atoms per kernel matrix": f"{max(last['atoms'].values()):,}"} if last["atoms"] else {}),
            "state": human_bytes(last["bytes"]),
            "time": human_time(last["seconds"]),
        }
    return cards(facts)


def _settings(config: Mapping[str, Any]) -> str:
    rows = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}.{name}", str(item)) for name, item in value.items()]
        elif value not in ([], ""):
            rows.append((key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return table(("setting", "value"), rows)
