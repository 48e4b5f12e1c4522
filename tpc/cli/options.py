"""Groups of command-line options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from tpc.cli.completers import program_files, program_settings, run_directories
from tpc.cli.group import remember_debug
from tpc.cli.types import (
    Available,
    Choice,
    FiniteRange,
    LimitChoice,
    Named,
    OutputFile,
    distinct,
    drop,
    key_value,
    multiplier,
)
from tpc.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])
NOT_TRAINED = "is a kernel, which is not trained"
NO_KERNEL = "is trained, with tpc train; regression is for kernel limits"
MODES = ("exact", "folded")
BACKENDS = ("numpy", "native", "cupy")
STORAGE = ("float32", "float64", "bfloat16", "float16")
COEFFICIENTS = ("fitted", "taylor")
PARAMETRIZATIONS = ("mup", "ntk", "standard", "pi")
LOSSES = ("cross_entropy", "mse")
SCHEDULES = ("constant", "cosine")
DATA = ("digits", "cifar10", "omniglot")
NOT_JOB = ("program", "out", "overwrite", "resume", "as_json", "report")

_FILE = click.Path(dir_okay=False, path_type=Path)
program_argument = click.argument("program", type=_FILE, shell_complete=program_files)
optional_program = click.argument("program", required=False, type=_FILE, shell_complete=program_files)
file_option = click.option(
    "-o",
    "--output",
    type=OutputFile(),
    help="Write to FILE, not to the screen.",
)


def plot_option(text: str) -> Callable[[Command], Command]:
    """--plot, a drawing in a file."""
    return click.option("--plot", type=OutputFile(".svg", ".png", ".pdf"), metavar="FILE", help=text)


def debug_option(command: Command) -> Command:
    """--debug, accepted by every command."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=remember_debug,
        help="Show the traceback of an error.",
    )(command)


def json_option(command: Command) -> Command:
    """--json, for scripts."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")(command)


def program_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--function, --set and --limit."""
    return _program_options(command, LimitChoice())


def trained_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for commands that train."""
    return _program_options(command, LimitChoice("model", NOT_TRAINED))


def checked_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same, where all limits can be taken at once."""
    return _program_options(command, LimitChoice(more=("all",)))


def kernel_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for commands that take a kernel limit."""
    return _program_options(command, LimitChoice("kernel", NO_KERNEL), "ntk")


def _program_options(command: Callable[..., Any], limits: LimitChoice, default: str = "pi") -> Callable[..., Any]:
    for option in (
        click.option("--limit", type=limits, default=default, show_default=True, help="Which limit to take."),
        click.option(
            "--set",
            "settings",
            type=key_value,
            metavar="NAME=VALUE",
            multiple=True,
            callback=distinct,
            shell_complete=program_settings,
            help="A keyword argument of the program.",
        ),
        click.option("--function", metavar="NAME", help="Which function, when the file holds several networks."),
    ):
        command = option(command)
    return command


MODE = click.option(
    "--mode",
    type=Available("mode", MODES),
    default="exact",
    show_default=True,
    help="Keep every atom, or fold old ones into tensors of fixed size.",
)
FOLD = (
    click.option(
        "--fold-degree",
        type=click.IntRange(min=1),
        metavar="D",
        help="Largest degree of folded tensors. Default: by --fold-tolerance.",
    ),
    click.option(
        "--fold-tolerance",
        type=FiniteRange(min=0, min_open=True),
        metavar="E",
        help="Largest relative error of the folded kernels' series.  [default: 0.1]",
    ),
    click.option(
        "--window",
        type=click.IntRange(min=0),
        metavar="W",
        help="Newest atoms that are never folded.  [default: 512]",
    ),
    click.option(
        "--fold-coefficients",
        type=Choice(COEFFICIENTS),
        help="Read tensors by the Taylor series, or by weights fitted while training.  [default: fitted]",
    ),
    click.option(
        "--fold-points",
        type=click.IntRange(min=0),
        metavar="N",
        help="Random points that keep what the tensors leave out; then coefficients are taylor.  [default: 0]",
    ),
)


def fold_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--mode and how to fold."""
    for option in reversed((MODE, *FOLD)):
        command = option(command)
    return command


_FROM_ONE = click.IntRange(min=1)
_POSITIVE = FiniteRange(min=0, min_open=True)


def job_options(epochs: int, lr: float, schedule: str, clip: float, mode: str) -> tuple[Any, ...]:
    """The options of every Job, with the defaults that differ between kinds."""
    return (*_model_options(), *_rate_options(epochs, lr, schedule), *_clip_options(clip, mode), *_other_options())


def _model_options() -> tuple[Any, ...]:
    """What is trained, and in which numbers."""
    return (
        click.option("--backend", type=Available("backend", BACKENDS), default="numpy", show_default=True,
                     help="What computes."),
        click.option("--rank", type=_FROM_ONE, default=100, show_default=True, help="Dimension r of the latents."),
        click.option("--dtype", type=Choice(["float32", "float64"]), default="float32", show_default=True),
        MODE,
        *FOLD,
        click.option("--storage", type=Choice(STORAGE), help="Number type of stored atoms.  [default: --dtype]"),
        click.option("--init", type=Named("paper", "zero_readout", "random"), metavar="NAME",
                     help="Initialization: paper, zero_readout; random (--width)."),
        click.option("--width", type=_FROM_ONE, metavar="N",
                     help="Train a network of this finite width, not the limit."),
        click.option("--parametrization", type=Choice(PARAMETRIZATIONS),
                     help="How rates and weights of --width scale; pi projects gradients to --rank.  [default: mup]"),
    )  # fmt: skip


def _rate_options(epochs: int, lr: float, schedule: str) -> tuple[Any, ...]:
    """How long, and how fast."""
    return (
        click.option("--epochs", type=_FROM_ONE, default=epochs, show_default=True),
        click.option("--lr", type=_POSITIVE, default=lr, show_default=True, help="Learning rate."),
        click.option("--lr-schedule", type=Choice(SCHEDULES), default=schedule, show_default=True,
                     help="Keep the rate, or let it fall to zero along a cosine."),
        click.option("--lr-mult", type=multiplier, metavar="NAME=NUMBER", multiple=True, callback=distinct,
                     help="Learning-rate multiplier of a parameter."),
        click.option("--lr-drop", type=drop, metavar="EPOCH:FACTOR", multiple=True,
                     help="Multiply the rate by FACTOR after EPOCH epochs."),
    )  # fmt: skip


def _clip_options(clip: float, mode: str) -> tuple[Any, ...]:
    """How gradients are clipped."""
    return (
        click.option("--clip", type=FiniteRange(min=0), default=clip, show_default=True,
                     help="Largest gradient norm; 0 for no clipping."),
        click.option("--clip-drop", type=drop, metavar="EPOCH:FACTOR", multiple=True,
                     help="Multiply --clip by FACTOR after EPOCH epochs."),
        click.option("--clip-mode", type=Choice(["param", "global"]), default=mode, show_default=True),
    )  # fmt: skip


def _other_options() -> tuple[Any, ...]:
    """What else decides a training, and how often it is written down."""
    return (
        click.option("--weight-decay", type=FiniteRange(min=0), default=0.0, show_default=True),
        click.option("--decay-follows-lr-mult", is_flag=True, help="Multiply the decay by --lr-mult, too."),
        click.option("--momentum", type=FiniteRange(0, 1, max_open=True), default=0.0, show_default=True),
        click.option("--loss", type=Choice(LOSSES), default=LOSSES[0], show_default=True),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
                     help="Decides initialization and order."),
        click.option("--checkpoint-steps", type=_FROM_ONE, metavar="N", help="Write a checkpoint every N steps."),
        click.option("--checkpoint-seconds", type=_POSITIVE, default=300.0, show_default=True, help="… and so often."),
    )  # fmt: skip


def run_options(task: str, program: str) -> tuple[Any, ...]:
    """Where a run is written, what it goes on from, and what is printed."""
    return (
        click.option("--out", type=click.Path(path_type=Path), metavar="RUN_DIR",
                     help=f"Default: runs/{program}-<data>-<n>."),
        click.option("--overwrite", is_flag=True, help="Replace the run in RUN_DIR."),
        click.option("--resume", type=click.Path(path_type=Path), metavar="RUN_DIR",
                     shell_complete=run_directories,
                     help="Go on with an unfinished run."),
        click.option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=partial(read_config, task=task),
            help="Take options from a config.toml.",
        ),
        click.option("--report/--no-report", default=True, show_default=True,
                     help="Write report.html and plots at the end."),
        json_option,
        debug_option,
    )  # fmt: skip


def train_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a TrainJob; defaults are the fields' own."""
    data = (
        click.option(
            "--data",
            type=Named("digits", "cifar10"),
            default="digits",
            show_default=True,
            metavar="NAME",
            help="digits or cifar10.",
        ),
        click.option("--data-dir", type=click.Path(file_okay=False), help="Where the data set lies."),
        click.option("--limit-train-size", type=_FROM_ONE, metavar="N", help="Train on the first N samples only."),
        click.option("--batch-size", type=_FROM_ONE, default=32, show_default=True),
    )
    options = (*data, *job_options(10, 0.5, "constant", 0.0, "param"), *run_options("train", "<program>"))
    for option in reversed(options):
        command = option(command)
    return command


def fewshot_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a FewShotJob; defaults are the fields' own."""

    def number(name: str, default: int, text: str, least: int = 1) -> Any:
        return click.option(name, type=click.IntRange(min=least), default=default, show_default=True, help=text)

    data = (
        click.option("--data", type=Named("omniglot"), default="omniglot", show_default=True, metavar="NAME",
                     help="omniglot."),
        click.option("--data-dir", type=click.Path(file_okay=False), help="Where the data set lies."),
        click.option("--split", type=Choice(["vinyals", "background", "seeded"]),
                     help="Training, validation and test classes.  [default: vinyals if its files are there]"),
        number("--ways", 5, "Classes of a task.", 2),
        number("--shots", 1, "Support samples of a class."),
        number("--queries", 1, "Query samples of a class."),
        number("--shift", 0, "Move training images by up to so many pixels at random.", 0),
        click.option("--mirror", is_flag=True, help="Mirror images of training classes are classes, too."),
        number("--tasks", 8, "Tasks in a batch."),
        number("--batches", 1000, "Batches in an epoch."),
        number("--episodes", 600, "Validation tasks answered after an epoch, test tasks at the end.", 2),
    )  # fmt: skip
    options = (*data, *job_options(10, 32.0, "cosine", 0.1, "global"), *run_options("fewshot", "<program>"))
    for option in reversed(options):
        command = option(command)
    return command


def regress_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a RegressJob; defaults are the fields' own."""
    options = (
        click.option("--data", type=Named(*DATA), default="digits", show_default=True, metavar="NAME",
                     help="digits, cifar10 or omniglot."),
        click.option("--data-dir", type=click.Path(file_okay=False), help="Where the data set lies."),
        click.option("--limit-train-size", type=_FROM_ONE, metavar="N", help="Take the first N samples only."),
        click.option("--backend", type=Available("backend", BACKENDS), default="native", show_default=True),
        click.option("--dtype", type=Choice(["float32", "float64"]), default="float32", show_default=True),
        click.option("--ridge", "ridges", type=FiniteRange(min=0), multiple=True, metavar="R",
                     help="Regularization relative to the mean diagonal.  [default: 1e-4, 1e-3, 1e-2, 3e-2, 1e-1]"),
        click.option("--episodes", type=_FROM_ONE, default=600, show_default=True, metavar="N",
                     help="Few-shot: tasks that are answered."),
        click.option("--held-out", type=FiniteRange(0, 1, min_open=True, max_open=True), default=0.1,
                     show_default=True, help="Share of the samples that choose the ridge."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
        click.option("--out", type=click.Path(path_type=Path), metavar="RUN_DIR", help="Record the result there."),
        click.option("--overwrite", is_flag=True, help="Replace the run in RUN_DIR."),
        json_option,
        debug_option,
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def given_job(given: dict[str, Any]) -> dict[str, Any]:
    """The entries of a job among the parameters of a command."""
    job = {name: value for name, value in given.items() if name not in NOT_JOB}
    return {**job, "settings": dict(given["settings"]), "lr_mult": dict(given["lr_mult"])}


def changed(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """What was asked for on the command line when a run is resumed."""
    source = click.core.ParameterSource.COMMANDLINE
    other = ("resume", "as_json", "report")
    return {n: v for n, v in given.items() if ctx.get_parameter_source(n) == source and n not in other}


def read_config(ctx: click.Context, _param: click.Parameter, path: Path | None, task: str) -> None:
    """Make the entries of a config.toml the defaults of all other options."""
    if path is None:
        return
    import tomllib

    from tpc.tasks.job import checked_entries, job_of

    try:
        config = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not valid TOML: {error}", ctx, param_hint="--config") from error
    try:
        config = checked_entries(config, job_of({"task": task}))
    except UsageError as error:
        raise click.BadParameter(f"{path}: {error}", ctx, param_hint="--config") from error
    for name in ("settings", "lr_mult"):
        config[name] = list(config.get(name, {}).items())
    ctx.default_map = {**(ctx.default_map or {}), **config}
