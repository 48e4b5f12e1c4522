"""Few-shot classification with one MLP for all tasks: h1 = U ξ + β b1, h2 = W φ(h1) + β b2, f = (v - ε ∇ℓ) φ(h2).

The readout starts at zero and takes K steps of gradient descent on the support set of a task before it answers its
queries (MAML, Finn, Abbeel, Levine 2017); what is trained is what comes before it. The π-limit of it with K = 1 is
that of Yang, Santacroce, Hu (ICLR 2022, §6.2). β is bias_scale, ε step_size.
"""

import tpc
from tpc import relu


def maml(
    x: tpc.Scalar,
    *,
    hidden: int = 2,
    classes: int = 5,
    bias_scale: float = 1.414214,
    steps: int = 1,
    step_size: float = 0.353553,
    order: int = 2,
) -> tpc.Scalar:
    h = tpc.dense(x, name="embed") + bias_scale * tpc.bias("embed")
    for layer in range(1, hidden):
        h = tpc.dense(relu(h), name=f"hidden{layer}") + bias_scale * tpc.bias(f"hidden{layer}")
    f = tpc.readout(relu(h), classes, name="readout")
    return tpc.adapt(f, steps=steps, step_size=step_size, layers="readout", zero="readout", order=order)
