"""What is told when numbers leave the range of their type: which weight, which quantity, and what to try."""

from __future__ import annotations

import math

from tpc.errors import GaussianError, UserError


class DivergedError(UserError):
    """A step or an evaluation met numbers that are not finite; no state was changed.

    `weight` names the weight concerned ("" for the loss), `quantity` what of it, `reason` what it is.
    """

    def __init__(self, message: str, weight: str = "", quantity: str = "loss", reason: str = "") -> None:
        self.weight = weight
        self.quantity = quantity
        self.reason = reason or message
        super().__init__(message)

    @property
    def where(self) -> str:
        """The quantity, in words."""
        return f"{self.quantity} of {self.weight}" if self.weight else f"the {self.quantity}"


def beyond_kernels(error: GaussianError, most: tuple[str, float], lr: float, clip: float | None) -> DivergedError:
    """The error of a step that was not taken because a kernel is not known where it would be read.

    `most` is the weight with the largest numbers, and these.
    """
    told, _, fix = str(error).partition("\n")
    first = f". At the first step: {fix.strip().removeprefix('Fix: ')}" if fix else ""
    found = f"cannot be read: {told} (the largest numbers are those of {most[0]}, up to {most[1]:.3g})"
    made = not_taken("kernel", "", found, math.nan, lr, clip)
    return DivergedError(f"{made}{first}", "", "kernel", made.reason)


def not_taken(quantity: str, weight: str, found: str, loss: float, lr: float, clip: float | None) -> DivergedError:
    """The error of a step that was not taken; `found` says what the quantity is instead of finite."""
    what = f"{quantity} of {weight}" if weight else f"the {quantity}"
    reason = f"{what} {found}" + (f", at a loss of {loss:.4g}" if weight else "")
    clipping = f"clip more (clip is {clip:g})" if clip is not None else "clip the gradients (clip=0.4)"
    return DivergedError(
        f"the step was not taken, and the state is as it was: {reason}. Training has diverged: lower lr (it is {lr:g}) "
        f"or {clipping}, and go on from an earlier state",
        weight,
        quantity,
        reason,
    )
