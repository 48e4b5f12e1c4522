"""How each kind of node looks: a shape and a colour, so that neither is needed alone; light and dark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Outline = Callable[[float, float], str]


@dataclass(frozen=True)
class Look:
    """Outline, graphviz shape, (fill, line) colours in light and in dark, and what the kind means."""

    outline: Outline
    dot: str
    light: tuple[str, str]
    dark: tuple[str, str]
    meaning: str


def _polygon(*points: tuple[float, float]) -> str:
    return "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in points) + " Z"


def _rounded(radius: float) -> Outline:
    def outline(w: float, h: float) -> str:
        r = min(radius, w / 2, h / 2)
        a = f"A{r:.1f},{r:.1f} 0 0 1"
        x, y = w / 2, h / 2
        return (
            f"M{-x + r:.1f},{-y:.1f} H{x - r:.1f} {a} {x:.1f},{-y + r:.1f} V{y - r:.1f} "
            f"{a} {x - r:.1f},{y:.1f} H{-x + r:.1f} {a} {-x:.1f},{y - r:.1f} "
            f"V{-y + r:.1f} {a} {-x + r:.1f},{-y:.1f} Z"
        )

    return outline


def _slanted(w: float, h: float) -> str:
    x, y, s = w / 2, h / 2, h / 3
    return _polygon((-x + s, -y), (x, -y), (x - s, y), (-x, y))


def _drum(w: float, h: float) -> str:
    x, y, e = w / 2, h / 2, 4.0
    return (
        f"M{-x:.1f},{-y + e:.1f} A{x:.1f},{e} 0 0 1 {x:.1f},{-y + e:.1f} V{y - e:.1f} "
        f"A{x:.1f},{e} 0 0 1 {-x:.1f},{y - e:.1f} Z "
        f"M{-x:.1f},{-y + e:.1f} A{x:.1f},{e} 0 0 0 {x:.1f},{-y + e:.1f}"
    )


def _hexagon(w: float, h: float) -> str:
    x, y, s = w / 2, h / 2, h / 3
    return _polygon((-x + s, -y), (x - s, -y), (x, 0), (x - s, y), (-x + s, y), (-x, 0))


def _octagon(w: float, h: float) -> str:
    x, y, s = w / 2, h / 2, h / 4
    return _polygon(
        (-x + s, -y), (x - s, -y), (x, -y + s), (x, y - s), (x - s, y), (-x + s, y), (-x, y - s), (-x, -y + s)
    )


def _funnel(w: float, h: float) -> str:
    x, y, s = w / 2, h / 2, h / 3
    return _polygon((-x, -y), (x, -y), (x - s, y), (-x + s, y))


def _house(w: float, h: float) -> str:
    x, y, s = w / 2, h / 2, h / 4
    return _polygon((-x, -y + s), (0, -y), (x, -y + s), (x, y), (-x, y))


def _note(w: float, h: float) -> str:
    x, y, s = w / 2, h / 2, h / 3
    fold = f" M{x - s:.1f},{-y:.1f} V{-y + s:.1f} H{x:.1f}"
    return _polygon((-x, -y), (x - s, -y), (x, -y + s), (x, y), (-x, y)) + fold


def _double(w: float, h: float) -> str:
    return _rounded(3)(w, h) + " " + _rounded(2)(w - 6, h - 6)


LOOKS: dict[str, Look] = {
    "input": Look(_slanted, "parallelogram", ("#e3e7ec", "#4a5560"), ("#39424c", "#b7c2cd"), "input of the network"),
    "state": Look(_drum, "cylinder", ("#fbe3b5", "#9a6700"), ("#4d3a12", "#e0b354"), "trained state (A, B)"),
    "latent": Look(_rounded(12), "box", ("#d7e8fb", "#1f5fa8"), ("#1d3a59", "#8bbdf2"), "vector in r dimensions"),
    "gram": Look(_hexagon, "hexagon", ("#d5f0ea", "#117a65"), ("#144a40", "#7fd6c2"), "inner products (variances)"),
    "kernel": Look(_octagon, "octagon", ("#e9dcf8", "#6b35a8"), ("#3e2759", "#c7a6ee"), "kernel V[φ,ψ]"),
    "contract": Look(_funnel, "invtrapezium", ("#d9f2d4", "#2e7d25"), ("#22451d", "#9bd992"), "sum over an axis"),
    "map": Look(_rounded(3), "box", ("#f2f2f0", "#5d5d58"), ("#3a3a38", "#c4c4bd"), "elementwise operation"),
    "loss": Look(_house, "house", ("#fbd9d7", "#b3261e"), ("#571f1b", "#f0a39c"), "compared with the labels"),
    "update": Look(_note, "note", ("#fbdcec", "#a3246b"), ("#52203b", "#f0a1cb"), "update of the state"),
    "output": Look(_double, "box", ("#ffffff", "#222222"), ("#22262b", "#f0f0f0"), "output of the network"),
}
OTHER = Look(_rounded(0), "box", ("#ffffff", "#777777"), ("#2a2a2a", "#999999"), "other")


def look(kind: str) -> Look:
    """The look of a kind; unknown kinds are plain boxes."""
    return LOOKS.get(kind, OTHER)


def kind_css() -> str:
    """One rule per kind, with the dark colours under prefers-color-scheme."""
    kinds = {**LOOKS, "other": OTHER}

    def rules(dark: bool) -> str:
        return "".join(
            f".tpc .k-{kind}>path{{fill:{pair[0]};stroke:{pair[1]}}}"
            for kind, one in kinds.items()
            for pair in [one.dark if dark else one.light]
        )

    return f"{rules(False)}@media (prefers-color-scheme:dark){{{rules(True)}}}"
