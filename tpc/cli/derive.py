"""Commands that show what is derived: compile, graph, kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tpc.cli.common import derive, print_json, write_output
from tpc.cli.options import debug_option, file_option, json_option, plot_option, program_argument, program_options
from tpc.cli.types import Available, Choice, OutputFile, point

STAGES = {
    "program": "txt", "backward": "txt", "limit": "txt", "update": "txt", "kernels": "txt", "latex": "tex",
    "numpy": "py",
    "c": "c", "cuda": "cu", "dot": "dot", "json": "json",
}  # fmt: skip


@click.command("compile", short_help="Derive the limit of a program and print its stages.")
@program_argument
@program_options
@click.option("--fold-degree", type=click.IntRange(min=1), metavar="D",
              help="Fold the limit to degree D first (stages from limit on).")  # fmt: skip
@click.option("--fold-points", type=click.IntRange(min=0), default=0, metavar="N",
              help="With --fold-degree: sample what folding leaves out at N points.")  # fmt: skip
@click.option("--emit", "stages", type=Available("stage", STAGES), multiple=True, metavar="STAGE",
              help=f"Print a stage: {', '.join(STAGES)}. Repeatable.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write each stage to a file in DIR.")
@click.option("--report", type=OutputFile(".html"), metavar="FILE",
              help="Write one page that opens offline: programs, graph, kernels, updates, costs.")  # fmt: skip
@json_option
@debug_option
def compile_command(
    program: Path, function: str | None, settings: tuple[tuple[str, Any], ...], limit: str,
    fold_degree: int | None, fold_points: int, stages: tuple[str, ...], out: Path | None, report: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Derive the limit of PROGRAM and show a summary, or the stages asked for.

    \b
    Examples:
      tpc compile programs/mlp.py
      tpc compile programs/mlp.py --set hidden=3 --emit update
      tpc compile programs/mlp.py --emit numpy > limit.py
      tpc compile programs/mlp.py --limit ntk --emit latex > ntk.tex
      tpc compile programs/mlp.py --fold-degree 2 --emit c > limit.c
      tpc compile programs/mlp.py --emit cuda > limit.cu
      tpc compile programs/mlp.py --emit program --emit kernels --out build/mlp
      tpc compile programs/mlp.py --report mlp.html
      tpc compile programs/mlp.py --json --emit update
    """
    if out is not None and not stages:
        raise click.UsageError("--out needs at least one --emit STAGE.")
    from tpc.runtime.training.progress import warn

    derived = derive(program, function, settings, limit)
    warn(derived.warnings)
    texts = {stage: derived.emit(stage, fold_degree, fold_points) for stage in dict.fromkeys(stages)}
    files = {} if out is None else {stage: out / f"{stage}.{STAGES[stage]}" for stage in texts}
    if report is not None:
        from tpc.report.compile_report import compile_report

        page = compile_report(derived, program.stem, program.read_text(encoding="utf-8"), fold_degree, fold_points)
        write_output(report, page, say=not as_json)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    for stage, path in files.items():
        write_output(path, texts[stage], say=not as_json)
    if as_json:
        from tpc.summary import facts

        written = {"files": {stage: str(path) for stage, path in files.items()}} if files else {"stages": texts}
        print_json(facts(derived) | written | ({} if report is None else {"report": str(report)}))
    elif not stages and report is None:
        click.echo(derived.summary())
    elif not files:
        for stage, text in texts.items():
            head = f"# {stage}\n\n" if len(texts) > 1 else ""
            tail = "\n" if len(texts) > 1 else ""
            click.echo(f"{head}{text}{tail}", nl=bool(tail) or not text.endswith("\n"))


@click.command(short_help="Draw the limit graph of a program.")
@program_argument
@program_options
@click.option(
    "--format",
    "kind",
    type=Choice(["svg", "dot", "html", "json"]),
    help="Default: by the name of FILE, else svg.",
)
@click.option("--part", type=Choice(["forward", "step"]),
              help="The network alone (default of svg and html), or a whole training step.")  # fmt: skip
@click.option("--full", is_flag=True, help="Show trivial nodes too, and every one of repeated layers.")
@file_option
@debug_option
def graph(
    program: Path, function: str | None, settings: tuple[tuple[str, Any], ...], limit: str,
    kind: str | None, part: str | None, full: bool, output: Path | None,
) -> None:  # fmt: skip
    """Draw the limit graph of PROGRAM; needs no other software.

    \b
    Examples:
      tpc graph programs/mlp.py -o mlp.svg
      tpc graph programs/resmlp.py --set blocks=4 --format html -o resmlp.html
      tpc graph programs/mlp.py --part step -o step.svg
      tpc graph programs/mlp.py --format json | python -m json.tool
    """
    from tpc.draw.formats import FORMATS, render
    from tpc.draw.viewer import NO_DETAILS, details

    kind = _graph_format(kind, output, FORMATS)
    derived = derive(program, function, settings, limit)
    part = part or ("forward" if kind in ("svg", "html") else "step")
    known = details(derived, derived.emit("numpy")) if kind == "html" else NO_DETAILS
    title = f"{derived.entry.title} of {program.stem}"
    write_output(output, render(derived.to_networkx(), kind, title, not full, part, known))


def _graph_format(kind: str | None, output: Path | None, formats: Sequence[str]) -> str:
    """The format asked for, or that of the file's name; UsageError when they differ or tell none."""
    if output is None:
        return kind or "svg"
    suffix = output.suffix[1:].lower()
    if suffix not in formats and (suffix or kind is None):
        endings = ", ".join(f".{name}" for name in formats)
        raise click.UsageError(f"expected a file ending in {endings}, got {output}.")
    if suffix and kind is not None and suffix != kind:
        raise click.UsageError(f"--format {kind} does not go with the file {output}; name it {output.stem}.{kind}.")
    return kind or suffix


@click.command(short_help="Show a Gaussian expectation V[PHI,PSI].")
@click.argument("phi")
@click.argument("psi", required=False)
@click.option("--series", type=click.IntRange(0, 40), default=6, show_default=True, metavar="K",
              help="Mehler series up to order K.")  # fmt: skip
@click.option("--at", type=point, default="1,1,0.5", show_default=True, metavar="P,Q,C",
              help="Evaluate at variances P, Q and covariance C.")  # fmt: skip
@plot_option("Draw V over the correlation at the variances of --at, as svg, png or pdf.")
@json_option
@debug_option
def kernel(
    phi: str, psi: str | None, series: int, at: tuple[float, float, float], plot: Path | None, as_json: bool
) -> None:
    """Show V[PHI,PSI] = E φ(u)ψ(v) for Gaussian u, v: closed form, the rule that gave it, series, value.

    \b
    Examples:
      tpc kernel relu
      tpc kernel relu step --at 1,2,0.5
      tpc kernel "x**2*erf(x)" --series 6
      tpc kernel tanh --plot tanh.svg
    """
    from tpc.gaussian.explain import explain
    from tpc.program.expression import parse_nonlinearity

    second = None if psi is None else parse_nonlinearity(psi)
    explained = explain(parse_nonlinearity(phi), second, terms=series, at=at)
    if as_json:
        print_json(explained.data)
    else:
        click.echo(explained.text)
    if plot is not None:
        from tpc.report import plots

        plots.save(plots.kernel_curve(explained.kernel, at[0], at[1], series), plot)
        click.echo(f"wrote {plot}", err=True)
