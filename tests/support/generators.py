"""Random networks for hypothesis, as the source text of a program, so that a failing one can be read and rerun."""

from __future__ import annotations

import linecache
from itertools import count

from hypothesis import strategies as st

import tpc
from tpc.program.program import Program

CLASSES = 3
HOMOGENEOUS = ("relu", "abs", "leaky_relu")
SMOOTH = ("erf", "gelu", "identity")

_serial = count()


@st.composite
def networks(draw, nonlinearities=(*HOMOGENEOUS, *SMOOTH)) -> str:
    """The text of a network with one to three hidden layers.

    Optional: residual connections, RMS normalisation, weights shared between layers, biases, multiplications by
    numbers and by moments.
    """
    lines = ["import tpc", "", "", "def network(x):"]
    numbers = st.sampled_from(["0.5", "2", "1.25", "-0.75"])
    maybe = st.sampled_from([False, False, True])

    def scaled(value: str) -> str:
        return f"{draw(numbers)} * {value}" if draw(maybe) else value

    def biased(value: str, layer: str) -> str:
        return f"{value} + " + scaled(f"tpc.bias({layer!r})") if draw(st.booleans()) else value

    def activation() -> str:
        phi = draw(st.sampled_from(nonlinearities))
        inside = "tpc.rms_norm(h)" if draw(maybe) else "h"
        if draw(maybe):
            inside = f"{draw(numbers)} * {inside}"
        value = f"tpc.leaky_relu({inside}, 0.2)" if phi == "leaky_relu" else f"tpc.{phi}({inside})"
        return scaled(value)

    def add(line: str) -> None:
        lines.append(f"    {line}")

    add(f"h = {biased(scaled('tpc.dense(x, name=' + repr('embed') + ')'), 'embed')}")
    residual = draw(st.booleans())
    shared = residual and draw(maybe)
    for layer in range(1, draw(st.integers(1, 3))):
        name = "hidden1" if shared else f"hidden{layer}"
        space = ", space='stream'" if shared else ""
        if shared and layer == 1:
            lines[4] = lines[4].replace("name='embed'", "name='embed', space='stream'")
        inner = biased(f"tpc.dense({activation()}, name={name!r}{space})", name)
        add(f"h = h + {inner}" if residual else f"h = {inner}")
        if draw(st.sampled_from([False] * 4 + [True])):
            inside = draw(st.sampled_from(["h, h", "h, tpc.erf(h)", "tpc.relu(h)", "h, tpc.relu(h)"]))
            add(f"h = h * (1 + tpc.moment({inside}) ** 2) ** -0.5")
    add(f"f = {biased(f'tpc.readout({activation()}, {CLASSES})', 'readout')}")
    add(f"return {scaled('f')}")
    return "\n".join(lines) + "\n"


def traced(source: str, **settings) -> Program:
    """The program of a generated text."""
    file = f"<generated {next(_serial)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict = {}
    exec(compile(source, file, "exec"), names)
    return tpc.trace(names["network"], **settings)
