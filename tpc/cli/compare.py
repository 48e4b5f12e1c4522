"""Commands beside the π-limit: kernel regression, finite networks against limits, and the table of all of them."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tpc.cli.common import default_program, load_program, print_json
from tpc.cli.lasting import outlives_output
from tpc.cli.options import (
    checked_options,
    debug_option,
    fold_options,
    json_option,
    kernel_options,
    plot_option,
    program_argument,
    regress_options,
)
from tpc.cli.types import Choice, FiniteRange, Named, OutputFile, powers_of_two
from tpc.errors import UserError

if TYPE_CHECKING:
    from tpc.tasks.convergence import CheckResult

PARTS = 1000  # of the work that a bar shows
UNDECIDED = 3  # the exit code of a check that cannot tell


@click.command(short_help="Fit a kernel limit by kernel regression.")
@program_argument
@kernel_options
@regress_options
@outlives_output(lambda given: given["out"] is not None and not given["as_json"])
def regress(program: Path, ridges: tuple[float, ...], as_json: bool, **given: Any) -> None:
    """Fit the kernel limit of PROGRAM (--limit ntk or nngp) by kernel regression.

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


@click.command(short_help="Compare finite networks with their limits.")
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
@click.option("--input-scale", type=FiniteRange(min=0, min_open=True), default=1.0, show_default=True,
              help="Multiplies the inputs.")  # fmt: skip
@click.option("--lr", type=FiniteRange(min=0, min_open=True),
              help="Default: the largest of 2, 1, 1/2, … that does not move too far.")  # fmt: skip
@click.option("--loss", type=Choice(["cross_entropy", "mse"]), default="cross_entropy", show_default=True)
@fold_options
@plot_option("Write the plot (svg, png, pdf).")
@click.option("--report", type=OutputFile(".html"), metavar="FILE", help="Write plot and tables as one page (html).")
@json_option
@debug_option
@outlives_output(lambda given: given["report"] is not None and not given["as_json"])
def check(
    program: Path, function: str | None, settings: tuple[tuple[str, Any], ...], limit: str, plot: Path | None,
    report: Path | None, as_json: bool, mode: str, fold_degree: int | None, fold_tolerance: float | None,
    window: int | None, fold_coefficients: str | None, fold_points: int | None, rank: int | None,
    fit_steps: int | None, **options: Any,
) -> None:  # fmt: skip
    """Compare finite networks of growing width with the limit: is it right, wrong, or is there no telling?

    Errors must fall like width^(-1/2), and the mean of networks must not deviate from the limit. For the π-limit
    networks train beside it. For --limit nngp and ntk it is kernels of random networks, networks that train beside
    gradient descent with the kernel, and networks that are fitted to a batch beside kernel regression; --limit all
    takes every limit. Ends with exit code 0 when the limit is right, 1 when it is wrong, and 3 when these networks
    cannot tell; then it says what to add.

    \b
    Examples:
      tpc check programs/mlp.py
      tpc check programs/resmlp.py --widths 128:1024 --seeds 3 --plot check.svg
      tpc check programs/mlp.py --mode folded --window 0
      tpc check programs/mlp.py --limit ntk --fit-steps 200
      tpc check programs/mlp.py --limit all --widths 128:2048 --report convergence.html
    """
    from tpc.limits.kinds import LIMITS
    from tpc.runtime.models.folding import fold_from
    from tpc.runtime.training.progress import Display, Pace
    from tpc.tasks.check import run_check
    from tpc.tasks.verdict import joint

    fold = fold_from(mode, fold_degree, fold_tolerance, window, fold_coefficients, fold_points)
    traced = load_program(program, function, settings)
    limits = tuple(LIMITS) if limit == "all" else (limit,)
    results = []
    for kind in limits:
        own: dict[str, Any] = {"rank": rank, "fold": fold} if limit != "all" or not LIMITS[kind].is_kernel else {}
        own |= {"fit_steps": fit_steps} if limit != "all" or LIMITS[kind].is_kernel else {}
        with Display(PARTS, f"{kind}-limit", sys.stderr) as display:
            pace = Pace(display, sys.stderr.isatty())

            def done(spent: int, total: int, what: str, pace: Pace = pace, display: Display = display) -> None:
                display.step(PARTS * spent // total, {"": what})
                pace.told(spent / total, what)

            results.append(run_check(traced, limit=kind, progress=done, **own, **options))
    _told(results, plot, report, as_json, limit == "all")
    answer = joint(result.verdict for result in results)
    if answer == "wrong":
        raise UserError("finite networks do not approach the limit.")
    if answer == "cannot tell":
        click.get_current_context().exit(UNDECIDED)


def _told(results: Sequence[CheckResult], plot: Path | None, report: Path | None, as_json: bool, several: bool) -> None:
    """Write what was found to the screen and to files."""
    from tpc.tasks.verdict import joint

    if plot is not None:
        from tpc.report.plots import convergence, save

        save(convergence(*results), plot)
    if report is not None:
        from tpc.report.check_report import write_convergence

        write_convergence(results, shlex.join(["tpc", *sys.argv[1:]]), report)
    if as_json:
        records = [result.to_dict() for result in results]
        overall = {"ok": all(r.ok for r in results), "verdict": joint(r.verdict for r in results)}
        print_json({**overall, "checks": records} if several else records[0])
    else:
        written = [f"{name}: {path}" for name, path in (("plot", plot), ("report", report)) if path is not None]
        click.echo("\n".join(["\n\n".join(result.table() for result in results), *written]))


@click.command(short_help="Fill the table of the paper, a command per cell.")
@click.argument("what", type=Choice(["table1"]))
@click.option("--quick", is_flag=True, help="Small ranks, widths and subsets: minutes, not hours.")
@click.option("--data-dir", type=click.Path(file_okay=False), help="Where the data sets lie.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs") / "table1",
    show_default=True,
    help="Cells are recorded there; a cell that is there is not filled again.",
)
@click.option("--row", "rows", type=Named("NNGP", "NTK"), multiple=True, metavar="NAME",
              help="Only this row: NNGP, NTK, finite μ, …")  # fmt: skip
@click.option("--column", "columns", type=Named("cifar10", "omniglot"), multiple=True, metavar="NAME",
              help="Only this column: cifar10, omniglot.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--dry-run", is_flag=True, help="Print the commands only.")
@json_option
@debug_option
@outlives_output(lambda given: not given["dry_run"] and not given["as_json"])
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
        if as_json:
            print_json([{"row": c.row, "column": c.column, "command": c.command} for c in wanted])
        else:
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
