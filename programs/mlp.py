"""Multi-layer perceptron (Yang, Santacroce, Hu 2022, §4): h1 = U ξ + b1, h2 = W φ(h1) + b2, …, f = v φ(h) + c."""

import tpc
from tpc import relu


def mlp(
    x: tpc.Scalar,
    *,
    hidden: int = 2,
    classes: int = 10,
    input_scale: float = 1.0,
    output_scale: float = 0.5,
    bias_scale: float = 0.5,
    bias_std: float = 0.0,
) -> tpc.Scalar:
    h = input_scale * (tpc.dense(x, name="embed") + bias_scale * tpc.bias("embed", std=bias_std))
    for layer in range(1, hidden):
        h = tpc.dense(relu(h), name=f"hidden{layer}") + bias_scale * tpc.bias(f"hidden{layer}", std=bias_std)
    f = tpc.readout(relu(h), classes, name="readout") + bias_scale * tpc.bias("readout", std=bias_std)
    return output_scale * f
