"""Residual perceptron with pre-normalisation: h ← h + W φ(h / √(|h|²/n + ε)), f = v φ(h / √(|h|²/n + ε)) + c."""

import tpc
from tpc import relu


def resmlp(
    x: tpc.Scalar,
    *,
    blocks: int = 2,
    classes: int = 10,
    branch_scale: float = 1.0,
    output_scale: float = 0.5,
    bias_scale: float = 0.5,
    eps: float = 1e-5,
) -> tpc.Scalar:
    h = tpc.dense(x, name="embed") + bias_scale * tpc.bias("embed")
    for block in range(1, blocks + 1):
        branch = tpc.dense(relu(tpc.rms_norm(h, eps)), name=f"block{block}")
        h = h + branch_scale * (branch + bias_scale * tpc.bias(f"block{block}"))
    f = tpc.readout(relu(tpc.rms_norm(h, eps)), classes, name="readout") + bias_scale * tpc.bias("readout")
    return output_scale * f
