"""Commands that outlive their output: work of hours is not lost because `| head` has seen enough."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from click.exceptions import Exit

from tpc.errors import UserError


def outlives_output(recorded: Callable[[dict[str, Any]], bool] = lambda given: False) -> Callable[..., Any]:
    """Run a command to its end whether or not its output can be written.

    Where nothing else keeps the result, which `recorded` tells from the parameters, that is an error then.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(*arguments: Any, **given: Any) -> None:
            from tpc.runtime.files.output import lasting_streams

            left: Exit | None = None
            with lasting_streams() as out:
                try:
                    command(*arguments, **given)
                except Exit as code:
                    left = code
            if out.lost and not recorded(given):
                raise UserError(f"the result could not be written to standard output: {out.lost}.")
            if left is not None:
                raise left

        return run

    return decorate
