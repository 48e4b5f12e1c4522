"""The `tpc` command: derive, inspect, train and check infinite-width limits of programs.

Heavy imports live inside the commands, so that `tpc --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tpc.commandline import (
    Available,
    Commands,
    FiniteRange,
    OutputFile,
    default_program,
    derive,
    load_program,
    point,
    powers_of_two,
    print_json,
    write_output,
)
from tpc.errors import UsageError, UserError
from tpc.options import (
    BACKENDS,
    LIMITS,
    changed,
    checked_options,
    debug_option,
    fewshot_options,
    file_option,
    fold_options,
    given_job,
    json_option,
    program_argument,
    program_options,
    regress_options,
    train_options,
    trained_options,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tpc.runtime.model import Model
    from tpc.runtime.network import Network
    from tpc.tasks.run import RunResult
    from tpc.tasks.task import Task

STAGES = {
    "program": "txt", "backward": "txt", "limit": "txt", "update": "txt", "kernels": "txt", "latex": "tex",
    "numpy": "py",
    "c": "c", "cuda": "cu", "dot": "dot", "json": "json",
}  # fmt: skip

PLOT_FILE = OutputFile(".svg", ".png", ".pdf")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tpc", message="tpc %(version)s")
@debug_option
def main() -> None:
    """Tensor Program Compiler: write a network as a program, derive its infinite-width limit, train it.

    \b
    Start here:
      tpc train                                train the packaged program on embedded data
      tpc compile programs/mlp.py              what the compiler derives from it
      tpc graph programs/mlp.py -o mlp.svg     the limit as a picture
      tpc kernel relu                          the Gaussian expectation V behind a nonlinearity
    """


@main.command("compile")
@program_argument
@program_options
@click.option("--fold-degree", type=click.IntRange(min=1), metavar="D",
              help="Fold the limit to degree D first (stages from limit on).")  # fmt: skip
@click.option("--emit", "stages", type=Available("stage", STAGES), multiple=True, metavar="STAGE",
              help=f"Print a stage: {', '.join(STAGES)}. Repeatable.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write each stage to a file in DIR.")
@click.option("--report", type=OutputFile(".html"), metavar="FILE",
              help="Write one page that opens offline: programs, graph, kernels, updates, costs.")  # fmt: skip
@debug_option
def compile_command(
    program: Path, function: str | None, settings: tuple[tuple[str, Any], ...], limit: str,
    fold_degree: int | None, stages: tuple[str, ...], out: Path | None, report: Path | None,
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
    """
    if out is not None and not stages:
        raise click.UsageError("--out needs at least one --emit STAGE.")
    from tpc.runtime.progress import warn

    derived = derive(program, function, settings, limit)
    warn(derived.warnings)
    if report is not None:
        from tpc.report.compile_report import compile_report

        text = compile_report(derived, program.stem, program.read_text(encoding="utf-8"), fold_degree)
        write_output(report, text)
    elif not stages:
        click.echo(derived.summary())
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    texts = {stage: derived.emit(stage, fold_degree) for stage in dict.fromkeys(stages)}
    for stage, text in texts.items():
        if out is not None:
            write_output(out / f"{stage}.{STAGES[stage]}", text)
        elif len(texts) > 1:
            click.echo(f"# {stage}\n\n{text}\n")
        else:
            click.echo(text, nl=not text.endswith("\n"))


@main.command()
@program_argument
@program_options
@click.option(
    "--format",
    "kind",
    type=click.Choice(["svg", "dot", "html", "json"]),
    help="Default: by the name of FILE, else svg.",
)
@click.option("--part", type=click.Choice(["forward", "step"]),
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
    from tpc.report.graph import FORMATS, limit_name, render
    from tpc.report.viewer import NO_DETAILS, details

    kind = _graph_format(kind, output, FORMATS)
    derived = derive(program, function, settings, limit)
    part = part or ("forward" if kind in ("svg", "html") else "step")
    known = details(derived) if kind == "html" else NO_DETAILS
    title = f"{limit_name(limit)} of {program.stem}"
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


@main.command()
@click.argument("phi")
@click.argument("psi", required=False)
@click.option("--series", type=click.IntRange(0, 40), default=6, show_default=True, metavar="K",
              help="Mehler series up to order K.")  # fmt: skip
@click.option("--at", type=point, default="1,1,0.5", show_default=True, metavar="P,Q,C",
              help="Evaluate at variances P, Q and covariance C.")  # fmt: skip
@click.option("--plot", type=PLOT_FILE, metavar="FILE",
              help="Draw V over the correlation at the variances of --at, as svg, png or pdf.")  # fmt: skip
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


@main.command()
@click.argument("program", required=False, type=click.Path(dir_okay=False, path_type=Path))
@trained_options
@train_options
@click.pass_context
def train(ctx: click.Context, /, **given: Any) -> None:
    """Train the limit of PROGRAM (programs/mlp.py unless given), or a network of finite width; write a run directory.

    \b
    Examples:
      tpc train
      tpc train programs/mlp.py --set hidden=3 --epochs 20 --lr-mult readout=4
      tpc train programs/mlp.py --data cifar10 --data-dir data --rank 200 --batch-size 8 --lr 1 \\
          --lr-mult embed=0.1 --lr-mult readout=4 --clip 0.4 --epochs 4 --lr-drop 3:0.15
      tpc train programs/mlp.py --width 1024 --parametrization ntk
      tpc train --resume runs/mlp-digits-1 --epochs 40
      tpc train --config runs/mlp-digits-1/config.toml --seed 1
    """
    from tpc.runtime.rundir import open_run
    from tpc.tasks import classify
    from tpc.tasks.job import TrainJob

    stream = sys.stderr if given["as_json"] else sys.stdout
    if given["resume"] is not None:
        result = classify.resume(open_run(given["resume"]), changed(ctx, given), stream)
    else:
        path = str(given["program"] or default_program())
        result = classify.train(TrainJob(path, **given_job(given)), given["out"], given["overwrite"], stream)
    assert isinstance(result.task, classify.Classification)
    figure = _drawn(classify.representations, result.task, result.model) if given["report"] else None
    _finish(result, given["report"], given["as_json"], figure)


@main.command()
@click.argument("program", required=False, type=click.Path(dir_okay=False, path_type=Path))
@trained_options
@fewshot_options
@click.pass_context
def fewshot(ctx: click.Context, /, **given: Any) -> None:
    """Train PROGRAM (programs/maml.py unless given), a network that adapts, to learn from a few samples.

    \b
    Examples:
      tpc fewshot --data-dir data --epochs 2 --mode folded --backend native
      tpc fewshot --data-dir data --rank 400 --epochs 50 --lr-mult embed=0.4 --mode folded --backend native
      tpc fewshot programs/maml.py --data-dir data --set steps=3 --set order=1 --shots 5
      tpc fewshot --resume runs/maml-omniglot-1
      tpc eval runs/maml-omniglot-1 --episodes 1000 --queries 15
    """
    from tpc.runtime.rundir import open_run
    from tpc.tasks import fewshot as task
    from tpc.tasks.job import FewShotJob

    stream = sys.stderr if given["as_json"] else sys.stdout
    if given["resume"] is not None:
        result = task.resume(open_run(given["resume"]), changed(ctx, given), stream)
    else:
        path = str(given["program"] or default_program("maml.py"))
        result = task.train(FewShotJob(path, **given_job(given)), given["out"], given["overwrite"], stream)
    assert isinstance(result.task, task.FewShot)
    tested = task.evaluate(result.task, result.model, "test", result.task.job.episodes)
    figure = _drawn(task.representations, result.task, result.model) if given["report"] else None
    _finish(dataclasses.replace(result, evaluation=tested), given["report"], given["as_json"], figure)


def _drawn(representations: Callable[..., Any], task: Task, model: Model | Network) -> Figure | None:
    """The figure of representations for the report; none for a finite network, or for one that has but its input."""
    from tpc.report.features import features
    from tpc.report.graph import limit_name

    try:
        kernels, labels, names = representations(task, model)
    except UsageError:
        return None
    own = limit_name(task.job.limit)
    return features({what if what.isupper() else f"{own}, {what}": k for what, k in kernels.items()}, labels, names)


def _finish(result: RunResult, report: bool, as_json: bool, representations: Figure | None = None) -> None:
    scores = {"test_accuracy": result.evaluation.accuracy, "test_loss": result.evaluation.loss}
    interval = getattr(result.evaluation, "interval", None)
    if interval is not None:
        scores["interval_95"] = interval
    files = {"run": str(result.run.path)}
    if not as_json:
        around = "" if interval is None else f" ± {interval:.2%}"
        click.echo(f"test accuracy {scores['test_accuracy']:.2%}{around}, test loss {scores['test_loss']:.4f}")
    if report:
        from tpc.report.run_report import write_report

        files["report"] = str(write_report(
            result.run, result.evaluation, result.task.class_names, representations
        ))  # fmt: skip
    if as_json:
        print_json(scores | files)
    else:
        click.echo("\n".join(f"{name}: {path}" for name, path in files.items()))


@main.command()
@program_argument
@program_options
@regress_options
def regress(program: Path, ridges: tuple[float, ...], as_json: bool, **given: Any) -> None:
    """Fit the kernel limit of PROGRAM (--limit nngp or ntk) by kernel regression.

    The ridge is chosen among those given on training samples held out. For omniglot every task is a regression on its
    support, and the ridge is chosen on validation tasks.

    \b
    Examples:
      tpc regress programs/mlp.py --limit ntk
      tpc regress programs/mlp.py --limit nngp --data cifar10 --data-dir data --ridge 1e-2 --ridge 3e-2
      tpc regress programs/maml.py --limit ntk --data omniglot --data-dir data
    """
    from tpc.report.console import print_regression, print_tasks
    from tpc.tasks import regress as task
    from tpc.tasks.job import FewShotJob

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    settings = {"function": given["function"], "settings": dict(given["settings"])}
    if given["limit"] == "pi":
        raise click.UsageError("the pi-limit is trained, with tpc train; regression is for --limit nngp or ntk.")
    if given["data"] == "omniglot":
        places = {"data_dir": given["data_dir"], "seed": given["seed"], "episodes": given["episodes"]}
        few = FewShotJob(str(program), **places, **settings)
        found = task.few_shot(few, given["limit"], ridges or (0.0, *task.RIDGES), given["backend"], say)
        if as_json:
            print_json({"ridge": found.ridge, "validation": dict(found.validation), **found.test.to_dict()})
        else:
            click.echo(f"ridge {found.ridge:g} chosen")
            print_tasks(0, "test", found.test)
        return
    names = ("limit", "data", "data_dir", "limit_train_size", "backend", "dtype", "held_out", "seed")
    chosen = {name: given[name] for name in names}
    job = task.RegressJob(str(program), ridges=ridges or task.RIDGES, **chosen, **settings)
    result = task.regress(job, given["out"], given["overwrite"], say)
    if as_json:
        print_json({"chosen": result.chosen.to_dict(), "ridges": [s.to_dict() for s in result.scores],
                    "seconds": result.seconds})  # fmt: skip
    else:
        print_regression(result)


@main.command()
@click.argument("what", type=click.Choice(["table1"]))
@click.option("--quick", is_flag=True, help="Small ranks, widths and subsets: minutes, not hours.")
@click.option("--data-dir", type=click.Path(file_okay=False), help="Where the data sets lie.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs") / "table1",
              show_default=True, help="Cells are recorded there; a cell that is there is not filled again.")
@click.option("--row", "rows", multiple=True, metavar="NAME", help="Only this row: NNGP, NTK, finite μ, …")
@click.option("--column", "columns", multiple=True, metavar="NAME", help="Only this column: cifar10, omniglot.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--dry-run", is_flag=True, help="Print the commands only.")
@json_option
@debug_option
def reproduce(
    what: str, quick: bool, data_dir: str | None, out: Path, rows: tuple[str, ...], columns: tuple[str, ...], seed: int,
    dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Fill Table 1 of the π-limit paper: kernel limits, finite networks and the π-limit on two tasks.

    \b
    Examples:
      tpc reproduce table1 --quick --data-dir data
      tpc reproduce table1 --data-dir data --row NTK --column cifar10
      tpc reproduce table1 --dry-run
    """
    from tpc.report.console import print_table1
    from tpc.tasks import table1

    del what
    default_program("mlp.py"), default_program("maml.py")
    wanted = table1.chosen(table1.cells(quick, data_dir, seed), rows, columns)
    if dry_run:
        click.echo("\n".join(cell.command for cell in wanted))
        return
    scores, failed = table1.fill(wanted, out, seed, lambda line: click.echo(line, err=as_json))
    if as_json:
        print_json([dataclasses.asdict(score) for score in scores])
    else:
        print_table1(scores)
    if failed:
        cell, why = failed[0]
        raise UserError(f"{len(failed)} of {len(wanted)} cells failed, first {cell.row} on {cell.column}: {why}")


@main.command("eval")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--data-dir", type=click.Path(file_okay=False), help="Where the data set lies now.")
@click.option("--backend", type=Available("backend", BACKENDS), help="Default: the backend of the run.")
@click.option("--split", type=click.Choice(["train", "validation", "test"]),
              help="Few-shot: whose classes.  [default: test]")  # fmt: skip
@click.option("--episodes", type=click.IntRange(min=2), metavar="N", help="Few-shot: tasks.  [default: the run's]")
@click.option("--queries", type=click.IntRange(min=1), metavar="N",
              help="Few-shot: queries of a class.  [default: the run's]")  # fmt: skip
@json_option
@debug_option
def eval_command(
    run_dir: Path,
    data_dir: str | None,
    backend: str | None,
    split: str | None,
    episodes: int | None,
    queries: int | None,
    as_json: bool,
) -> None:
    """Evaluate the newest checkpoint of RUN_DIR on the test set, or on tasks of test classes.

    \b
    Examples:
      tpc eval runs/mlp-digits-1
      tpc eval runs/mlp-digits-1 --json
      tpc eval runs/maml-omniglot-1 --episodes 1000 --queries 15
    """
    from tpc.report.console import print_evaluation, print_tasks
    from tpc.runtime.rundir import open_run
    from tpc.tasks import classify, fewshot
    from tpc.tasks.job import FewShotJob, job_of

    run = open_run(run_dir)
    if job_of(run.read_config()) is FewShotJob:
        answered = fewshot.evaluate_run(run, data_dir, backend, split or "test", episodes, queries)
        if as_json:
            print_json({"run": str(run_dir), **answered.to_dict()})
        else:
            print_tasks(answered.step, answered.split, answered.evaluation)
        return
    if (split, episodes, queries) != (None, None, None):
        raise click.UsageError("--split, --episodes and --queries are for few-shot runs; this one classifies.")
    result = classify.evaluate_run(run, data_dir, backend)
    if as_json:
        print_json({"run": str(run_dir), **result.to_dict()})
    else:
        print_evaluation(result.step, result.evaluation, result.class_names)


@main.command()
@program_argument
@checked_options
@click.option("--rank", type=click.IntRange(min=1), help="Of the π-limit.  [default: 8]")
@click.option("--steps", type=click.IntRange(min=0), default=3, show_default=True, help="Steps to compare.")
@click.option("--fit-steps", type=click.IntRange(min=0), metavar="N",
              help="Steps on the squared loss of one batch, beside kernel regression.  [default: 50]")  # fmt: skip
@click.option("--widths", type=powers_of_two, default="128:4096", show_default=True, metavar="LOW:HIGH",
              help="Powers of two in this range.")  # fmt: skip
@click.option("--seeds", type=click.IntRange(min=1), default=8, show_default=True, help="Networks per width.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first of the seeds.")
@click.option("--batch-size", "batch", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--lr", type=FiniteRange(min=0, min_open=True),
              help="Default: the largest of 2, 1, 1/2, … that does not move too far.")  # fmt: skip
@click.option("--loss", type=click.Choice(["cross_entropy", "mse"]), default="cross_entropy", show_default=True)
@fold_options
@click.option("--plot", type=PLOT_FILE, metavar="FILE", help="Write the plot (svg, png, pdf).")
@click.option("--report", type=OutputFile(".html"), metavar="FILE", help="Write plot and tables as one page (html).")
@json_option
@debug_option
def check(
    program: Path, function: str | None, settings: tuple[tuple[str, Any], ...], limit: str, plot: Path | None,
    report: Path | None, as_json: bool, mode: str, fold_degree: int | None, fold_tolerance: float | None,
    window: int | None, fold_coefficients: str | None, rank: int | None, fit_steps: int | None, **options: Any,
) -> None:  # fmt: skip
    """Compare finite networks of growing width with the limit; the error must fall like width^(-1/2).

    For the π-limit networks train beside it. For --limit nngp and ntk it is kernels of random networks, networks that
    train beside gradient descent with the kernel, and networks that are fitted to a batch beside kernel regression;
    --limit all takes every limit. Ends with exit code 1 when a fitted slope leaves [-0.7, -0.3].

    \b
    Examples:
      tpc check programs/mlp.py
      tpc check programs/resmlp.py --widths 128:1024 --seeds 3 --plot check.svg
      tpc check programs/mlp.py --mode folded --window 0
      tpc check programs/mlp.py --limit ntk --fit-steps 200
      tpc check programs/mlp.py --limit all --widths 128:2048 --report convergence.html
    """
    from tpc.runtime.folding import fold_from
    from tpc.runtime.progress import Display
    from tpc.tasks.check import run_check

    fold = fold_from(mode, fold_degree, fold_tolerance, window, fold_coefficients)
    traced = load_program(program, function, settings)
    limits = LIMITS if limit == "all" else (limit,)
    networks = len(options["widths"]) * options["seeds"]
    results = []
    with Display(networks * len(limits), "finite networks", sys.stderr) as display:
        for i, kind in enumerate(limits):
            own: dict[str, Any] = {"rank": rank, "fold": fold} if kind == "pi" or limit != "all" else {}
            own |= {"fit_steps": fit_steps} if kind != "pi" or limit != "all" else {}

            def done(count: int, _: int, before: int = i * networks) -> None:
                display.step(before + count, {})

            results.append(run_check(traced, limit=kind, progress=done, **own, **options))
    if plot is not None:
        from tpc.report.plots import convergence, save

        save(convergence(*results), plot)
    if report is not None:
        from tpc.report.convergence import write_convergence

        write_convergence(results, shlex.join(["tpc", *sys.argv[1:]]), report)
    if as_json:
        records = [result.to_dict() for result in results]
        print_json({"ok": all(r.ok for r in results), "checks": records} if limit == "all" else records[0])
    else:
        written = [f"{name}: {path}" for name, path in (("plot", plot), ("report", report)) if path is not None]
        click.echo("\n".join(["\n\n".join(result.table() for result in results), *written]))
    if not all(result.ok for result in results):
        raise UserError("the finite networks do not approach the limit like width^(-1/2).")


@main.group(cls=Commands)
@debug_option
def data() -> None:
    """List, fetch and verify data sets.

    \b
    Examples:
      tpc data ls --data-dir data
      tpc data get cifar10 --data-dir data
      tpc data verify cifar10 --data-dir data
    """


data_dir_option = click.option(
    "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Default: $TPC_DATA_DIR, else data/."
)


@data.command("ls")
@data_dir_option
@json_option
@debug_option
def data_ls(data_dir: Path | None, as_json: bool) -> None:
    """Show which data sets are there (by names and sizes only).

    \b
    Example:
      tpc data ls --data-dir data
    """
    from tpc.data import ls
    from tpc.report.console import print_holdings

    rows = ls(data_dir)
    if as_json:
        print_json({"holdings": [dataclasses.asdict(row) for row in rows]})
    else:
        print_holdings(rows)


@data.command("get")
@click.argument("name")
@data_dir_option
@click.option("--url", metavar="URL", help="Another address of the same file (a mirror).")
@debug_option
def data_get(name: str, data_dir: Path | None, url: str | None) -> None:
    """Download NAME from its publisher, go on with a partial download, check size and checksum.

    \b
    Examples:
      tpc data get cifar10 --data-dir data
      tpc data get omniglot --data-dir data
    """
    from tpc.data import get
    from tpc.report.console import download_progress

    with download_progress(name) as progress:
        path = get(name, data_dir, url=url, progress=progress)
    click.echo(f"{name} is there, its checksum is right: {path}")


@data.command("verify")
@click.argument("name")
@data_dir_option
@json_option
@debug_option
def data_verify(name: str, data_dir: Path | None, as_json: bool) -> None:
    """Read every file of NAME and say whether it can be used; exit code 1 when one cannot.

    \b
    Example:
      tpc data verify cifar10 --data-dir data
    """
    from tpc.data import verify
    from tpc.report.console import print_checks

    rows = verify(name, data_dir)
    if as_json:
        print_json({"files": [row._asdict() for row in rows]})
    else:
        print_checks(rows)
    bad = sum(not row.ok for row in rows)
    if bad or not rows:
        raise UserError(f"{bad} of {len(rows)} files of {name} cannot be used." if rows else f"{name} is not there.")


if __name__ == "__main__":
    main(prog_name="tpc")
