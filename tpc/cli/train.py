"""Commands that train and test: train, fewshot, eval."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tpc.cli.common import default_program, print_json
from tpc.cli.completers import run_directories
from tpc.cli.lasting import outlives_output
from tpc.cli.options import (
    BACKENDS,
    changed,
    debug_option,
    fewshot_options,
    given_job,
    json_option,
    optional_program,
    train_options,
    trained_options,
)
from tpc.cli.types import Available, Choice
from tpc.errors import UsageError, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tpc.runtime.models.model import Model
    from tpc.runtime.networks.network import Network
    from tpc.tasks.run import RunResult
    from tpc.tasks.task import Task


@click.command(short_help="Train the limit of a program, or a finite network.")
@optional_program
@trained_options
@train_options
@click.pass_context
@outlives_output(lambda given: not given["as_json"])
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
    from tpc.runtime.training.rundir import open_run

    _require_place(given)
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


@click.command(short_help="Train a network that adapts to few samples.")
@optional_program
@trained_options
@fewshot_options
@click.pass_context
@outlives_output(lambda given: not given["as_json"])
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
    from tpc.runtime.training.rundir import open_run

    _require_place(given)
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


def _require_place(given: Mapping[str, Any]) -> None:
    """Refuse what another process writes to, or what is no place for a run, before the imports that take longer."""
    from tpc.runtime.training.rundir import check_free, open_run

    if given["resume"] is not None:
        open_run(given["resume"]).require_free()
    elif given["out"] is not None:
        check_free(given["out"], given["overwrite"])


def _drawn(representations: Callable[..., Any], task: Task, model: Model | Network) -> Figure | None:
    """The figure of representations for the report; none for a finite network, or for one that has but its input."""
    from tpc.limits.kinds import limit_kind
    from tpc.report.features import features

    try:
        kernels, labels, names = representations(task, model)
    except UsageError:
        return None
    own = limit_kind(task.job.limit).title
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
        files |= _report(result, representations)
    if as_json:
        print_json(scores | files)
    else:
        click.echo("\n".join(f"{name}: {path}" for name, path in files.items()))


def _report(result: RunResult, representations: Figure | None) -> dict[str, str]:
    """Write the report, which another process does that has gone on with the run meanwhile."""
    from tpc.report.run_report import write_report
    from tpc.runtime.files.lock import BusyError
    from tpc.runtime.files.whole import WriteError
    from tpc.runtime.training.progress import warn

    run, command = result.run, result.task.job.COMMAND
    try:
        with run.lock():
            return {"report": str(write_report(run, result.evaluation, result.task.class_names, representations))}
    except BusyError as error:
        warn([f"the report is left to that process: {error}"])
        return {}
    except WriteError as error:
        raise UserError(
            f"{error} The training is done and kept. {error.remedy} and write the report with: "
            f"{command} --resume {run.path}"
        ) from error


@click.command("eval", short_help="Test the newest checkpoint of a run.")
@click.argument("run_dir", type=click.Path(path_type=Path), shell_complete=run_directories)
@click.option("--data-dir", type=click.Path(file_okay=False), help="Where the data set lies now.")
@click.option("--backend", type=Available("backend", BACKENDS), help="Default: the backend of the run.")
@click.option("--split", type=Choice(["train", "validation", "test"]),
              help="Few-shot: whose classes.  [default: test]")  # fmt: skip
@click.option("--episodes", type=click.IntRange(min=2), metavar="N", help="Few-shot: tasks.  [default: the run's]")
@click.option("--queries", type=click.IntRange(min=1), metavar="N",
              help="Few-shot: queries of a class.  [default: the run's]")  # fmt: skip
@click.option("--support-shift", type=click.IntRange(min=0), metavar="S",
              help="Few-shot: adapt to every support image moved by up to S pixels, too.  [default: 0]")  # fmt: skip
@json_option
@debug_option
@outlives_output()
def eval_command(
    run_dir: Path,
    data_dir: str | None,
    backend: str | None,
    split: str | None,
    episodes: int | None,
    queries: int | None,
    support_shift: int | None,
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
    from tpc.runtime.training.rundir import open_run
    from tpc.tasks import classify, fewshot
    from tpc.tasks.job import FewShotJob, job_of

    run = open_run(run_dir)
    if job_of(run.read_config()) is FewShotJob:
        answered = fewshot.evaluate_run(run, data_dir, backend, split or "test", episodes, queries, support_shift or 0)
        if as_json:
            print_json({"run": str(run_dir), **answered.to_dict()})
        else:
            print_tasks(answered.step, answered.split, answered.evaluation)
        return
    if any(given is not None for given in (split, episodes, queries, support_shift)):
        few_shot = "--split, --episodes, --queries and --support-shift"
        raise click.UsageError(f"{few_shot} are for few-shot runs; this one classifies.")
    result = classify.evaluate_run(run, data_dir, backend)
    if as_json:
        print_json({"run": str(run_dir), **result.to_dict()})
    else:
        print_evaluation(result.step, result.evaluation, result.class_names)
