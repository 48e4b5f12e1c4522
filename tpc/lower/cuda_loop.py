"""Loops over stored atoms as CUDA: products and sums are matrix products, between them runs one generated kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tpc.lower.c_elementwise import device_function
from tpc.lower.native_loop import Argument, NativeLoop
from tpc.lower.places import MULTIPLIER

KERNELS = Path(__file__).with_name("cuda_kernels.h")


def cuda_loop(loop: NativeLoop) -> str:
    """The device function of one element, and the kernel that calls it for every atom and lane of a chunk.

    The arguments of the kernel, after the numbers of rows and lanes, are those of `arguments` and `results`, in order.
    """
    element = f"{loop.name}_element"
    values = [_read(name, a, loop) for name, a in loop.arguments.items()]
    results = [f"w{i + 1}" for i in range(len(loop.results))]
    parameters = ["tpc_int rows", "tpc_int lanes"]
    parameters += [p for name, a in loop.arguments.items() for p in _parameters(name, a, loop)]
    for w in results:
        parameters += [f"void *{w}", *(f"tpc_int {w}_{part}" for part in ("stride", "from", "low"))]
    call = [*values, *(f"&x{w}" for w in results)]
    lines = [
        device_function(element, list(loop.arguments), loop.operations, dict(zip(results, loop.results))),
        *wrapped(f"TPC_KERNEL void {loop.name}(", parameters),
        "{",
        "    const unsigned i = (unsigned)tpc_index(), row = i / (unsigned)lanes, lane = i - row * (unsigned)lanes;",
        "    if (row >= rows)",
        "        return;",
        f"    float {', '.join(f'x{w}' for w in results)};",
        *wrapped(f"    {element}(", call, ");", "        "),
        *(f"    tpc_put({w}, {w}_from + row * {w}_stride + lane, {w}_low, x{w});" for w in results),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _parameters(name: str, argument: Argument, loop: NativeLoop) -> list[str]:
    if argument.kind == "product":
        layout = [f"tpc_int {name}_{part}" for part in ("stride", "from", "low")]
        return [f"const float *{name}", *(layout if loop.by_lane(loop.products[argument.index]) else [])]
    if argument.kind == "number":
        kind = "double" if loop.columns[argument.index] == MULTIPLIER else "float"
        return [f"const {kind} *{name}"]
    return [f"const float *{name}", f"tpc_int {name}_step", f"float {name}_number"]


def _read(name: str, argument: Argument, loop: NativeLoop) -> str:
    """The number of an atom and lane."""
    if argument.kind == "product" and loop.by_lane(loop.products[argument.index]):
        return f"tpc_get({name}, {name}_from + row * {name}_stride + lane, {name}_low)"
    if argument.kind == "captured":  # an array, or a number that the host knows
        return f"{name} ? {name}[lane * {name}_step] : {name}_number"
    return f"(float){name}[row]"


def wrapped(head: str, words: list[str], end: str = ")", indent: str = "    ", width: int = 118) -> Iterator[str]:
    """A list of words over as many lines as it takes."""
    line = head
    for k, word in enumerate(words):
        text = word + (end if k + 1 == len(words) else ", ")
        if len(line) + len(text.rstrip()) > width:
            yield line.rstrip()
            line = indent
        line += text
    yield line
