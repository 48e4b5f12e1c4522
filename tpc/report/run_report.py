"""report.html of a run: what was trained, how it went, and what the compiler derived; opens offline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from tpc.derivation import derived
from tpc.draw.page import figure, table
from tpc.limits.kinds import limit_kind
from tpc.program.load import load
from tpc.program.program import Program
from tpc.report import plots
from tpc.report.compile_report import document
from tpc.report.sections import Section, compilation, make_section, program_section
from tpc.runtime.files.whole import write_atomic
from tpc.runtime.networks.parametrization import exponents, role
from tpc.runtime.training.batches import Result
from tpc.runtime.training.episodic import FewShotEvaluation
from tpc.runtime.training.evaluation import Evaluation
from tpc.runtime.training.rundir import RunDir
from tpc.tasks.job import Job, job_of
from tpc.version import VERSION
from tpc.words import human_bytes, human_time

SECTIONS = {
    "curves": ("Training", "Batches before their update, and held-out samples after each epoch."),
    "confusion": ("Test set", "Rows are true classes, columns predicted ones."),
    "features": (
        "Representations",
        "Samples of test classes along the two largest principal components of their representations.",
    ),
    "alphabets": ("Test tasks", "Queries by the alphabet of their class, whatever the other classes of their task."),
    "parametrization": (
        "Parametrization",
        "W = n^(−a) w, entries w ~ N(0, n^(−2b)) times the program's scale, learning rate lr·n^(−c), at width n.",
    ),
    "settings": ("Settings", "config.toml of this run."),
}


NO_NORMS = '<p class="note">Gradient norms are measured where gradients are clipped (--clip).</p>'


def write_report(
    run: RunDir, evaluation: Result, class_names: Sequence[str], representations: Figure | None = None
) -> Path:
    """Write report.html and the plots of a run; returns the path of the report."""
    config, records = run.read_config(), run.read_metrics()
    job = job_of(config).from_config(config)
    program = load(run.program_path, function=job.function, **job.settings)
    run.plots_path.mkdir(parents=True, exist_ok=True)
    title = f"{job.described if job.width else limit_kind(job.limit).title} of {Path(job.program).stem}"
    name = f"{title} on {job.data}"
    told = f"tpc {config.get('tpc_version', VERSION)}, run {run.path}"
    source = run.program_path.read_text(encoding="utf-8")
    sections = [
        *_measured(run, records, evaluation, class_names, representations),
        *(_network(program, source, job) if job.width else compilation(derived(program, job.limit), source)),
        _section("settings", _settings(config)),
    ]
    text = document(f"{name}: {evaluation.accuracy:.1%}", name, told, _figures(records, evaluation), sections)
    write_atomic(run.report_path, text)
    return run.report_path


def _network(program: Program, source: str, job: Job) -> Iterator[Section]:
    """The program, and the scaling of every weight of a finite network of it."""
    assert job.network is not None
    yield program_section(program, source)
    rows = []
    for w in program.weights:
        e = exponents(job.network["parametrization"], w)
        rows.append((w.name, role(w), *(str(x).replace("-", "−") for x in (e.a, e.b, e.c))))
    yield _section("parametrization", table(("weight", "role", "a", "b", "c"), rows))


def _measured(
    run: RunDir,
    records: Sequence[Mapping[str, Any]],
    evaluation: Result,
    class_names: Sequence[str],
    representations: Figure | None,
) -> Iterator[Section]:
    """What came out of a run; its plots are written, too."""
    curves = plots.training_curves(records)
    svg = plots.to_svg(curves, "curves")  # before `save` makes the drawing white
    plots.save(curves, run.plots_path / "curves.svg")
    unmeasured = "" if any(r.get("grad_norm") for r in records) else NO_NORMS
    yield _section("curves", figure(svg), unmeasured)
    yield _tested(run, evaluation, class_names)
    if representations is not None:
        svg = plots.to_svg(representations, "features")
        plots.save(representations, run.plots_path / "features.svg")
        yield _section("features", figure(svg))


def _tested(run: RunDir, evaluation: Result, class_names: Sequence[str]) -> Section:
    """The section about the final test."""
    if isinstance(evaluation, FewShotEvaluation):
        rows = [(name, str(count), f"{right:.1%}") for name, (right, count) in evaluation.alphabets.items()]
        told = f"{evaluation.tasks} tasks, {evaluation.accuracy:.2%} ± {evaluation.interval:.2%} right (95 % interval)"
        return _section("alphabets", f"<p>{told}.</p>", table(("alphabet", "queries", "right"), rows))
    assert isinstance(evaluation, Evaluation)
    matrix = plots.confusion(evaluation.confusion, class_names)
    svg = plots.to_svg(matrix, "confusion")
    plots.save(matrix, run.plots_path / "confusion.svg")
    right = f"{int(evaluation.confusion.sum())} samples, {evaluation.accuracy:.2%} right"
    return _section("confusion", f"<p>{right}.</p>", figure(svg))


def _section(key: str, *content: str) -> Section:
    return make_section(key, *SECTIONS[key], *content)


def _figures(records: Sequence[Mapping[str, Any]], evaluation: Result) -> dict[str, str]:
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
    return facts


def _settings(config: Mapping[str, Any]) -> str:
    rows = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows += [(f"{key}.{name}", str(item)) for name, item in value.items()]
        elif value not in ([], ""):
            rows.append((key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return table(("setting", "value"), rows)
