"""Time and memory of training steps, in ratios to plain transcriptions of the same steps: `python -m benchmarks`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(ROOT),
    str(ROOT / "tests"),
]  # the checkout's own tpc, and the plain transcriptions in tests/reference
