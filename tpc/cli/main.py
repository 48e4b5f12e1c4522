"""The command `tpc` with all its subcommands."""

from __future__ import annotations

import click

from tpc.cli.compare import check, regress, reproduce
from tpc.cli.completion import completion
from tpc.cli.data import data
from tpc.cli.derive import compile_command, graph, kernel
from tpc.cli.group import Commands, printable
from tpc.cli.options import debug_option
from tpc.cli.train import eval_command, fewshot, train


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
    printable()


for command in (
    compile_command, graph, kernel, train, fewshot, eval_command, regress, check, reproduce, data, completion,
):  # fmt: skip
    main.add_command(command)
