"""completion: the script that makes a shell ask tpc what it may offer."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from tpc.cli.options import debug_option
from tpc.cli.types import Choice

SHELLS = ("bash", "zsh", "fish")
START = {
    "bash": 'eval "$(tpc completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(tpc completion zsh)"   # in ~/.zshrc',
    "fish": "tpc completion fish | source   # in ~/.config/fish/config.fish",
}


@click.command("completion", short_help="Print the script that completes in a shell.")
@click.argument("shell", type=Choice(SHELLS))
@debug_option
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, programs, their settings and run directories in SHELL.

    \b
    Examples:
      eval "$(tpc completion bash)"
      eval "$(tpc completion zsh)"
      tpc completion fish | source
    """
    found = get_completion_class(shell)
    assert found is not None
    complete = found(ctx.find_root().command, {}, "tpc", "_TPC_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())
    click.echo(f"# to have it in every shell: {START[shell]}")
