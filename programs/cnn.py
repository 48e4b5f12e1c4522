"""Convolutional network: h1 = U * x + b1, h2 = W * φ(h1) + b2, …, f = (1/√P) Σ_p v[p] φ(h[p]) + c.

W * x is the convolution (1/√|o|) Σ_o W[o] x[p + o], with a matrix W[o] for every offset o of the window and zeros
beyond the border; in the first layer U has a vector for every offset and channel. Layers from `stride_from` on take
every other place. With readout = "flatten" each of the P places has a readout v[p] of its own; with "mean" they share
one, f = v (1/P) Σ_p φ(h[p]) + c. `input_shape` is the shape of an image: height, width and channels.
"""

import tpc
from tpc import relu


def cnn(
    x: tpc.Image,
    *,
    input_shape: tuple[int, int, int] = (8, 8, 1),
    layers: int = 3,
    size: int = 3,
    classes: int = 10,
    padding: str = "same",
    stride_from: int = 2,
    readout: str = "flatten",
    input_scale: float = 1.0,
    output_scale: float = 0.5,
    bias_scale: float = 0.5,
) -> tpc.Scalar:
    h = input_scale * (tpc.conv(x, "conv1", size, padding=padding) + bias_scale * tpc.bias("conv1"))
    for layer in range(2, layers + 1):
        stride = 2 if layer >= stride_from else 1
        h = tpc.conv(relu(h), f"conv{layer}", size, stride, padding) + bias_scale * tpc.bias(f"conv{layer}")
    places = ("height", "width")
    if readout == "flatten":
        f = tpc.readout(relu(h), classes, over=places)
    else:
        f = tpc.readout(tpc.mean(relu(h), places), classes)
    return output_scale * (f + bias_scale * tpc.bias("readout"))
