"""Runs a kernel of elementwise work outside loops on a device."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from backends.device import THREADS, Device, Kernel
from tpc.lower.cuda_group import Group


class ElementwiseKernel:
    """A group of a compiled text; its arrays are given and returned in the order of the group."""

    def __init__(self, device: Device, kernel: Kernel, group: Group) -> None:
        self._device, self._kernel = device, kernel
        self._leaves = [group.places(x) for x in group.leaves]
        self._results = [group.places(x) for x in group.results]
        self._rank = len(group.axes)

    def __call__(self, *given: Any) -> tuple[Any, ...]:
        """Numbers may be Python's own or the device's."""
        lengths = [1] * max(1, self._rank)
        arguments: list[Any] = []
        for places, x in zip(self._leaves, given):
            if not places:
                there = hasattr(x, "ndim") and not isinstance(x, np.generic)
                arguments += [self._device.contiguous(x), np.float32(0)] if there else [0, np.float32(x)]
                continue
            for place, length in zip(places, x.shape):
                lengths[place] = int(length)
            arguments.append(self._device.contiguous(x))
        made = [self._device.xp.empty(tuple(lengths[p] for p in places), np.float32) for places in self._results]
        count = prod(lengths)
        if count:
            self._kernel(-(-count // THREADS), THREADS, (*lengths, *arguments, *made))
        return tuple(made)
