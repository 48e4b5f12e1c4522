"""A perceptron of width n by hand in NumPy, in each parametrization as papers write it, with its own SGD."""

import numpy as np

BIAS = {"embed.bias": 0.5, "hidden.bias": 0.3, "readout.bias": 1.0}  # what they are multiplied with
OUT = 2.0
BIAS_STD = 0.4
WEIGHT_STD = {"embed": 1.5, "hidden": 1.2, "readout": 0.7}


def relu(x):
    return np.maximum(x, 0)


class PlainNetwork:
    """Trained entries w with W = m·w; every w has learning rate `rate`·η, as the tables of the parametrizations say."""

    def __init__(self, effective, width, dim, parametrization):
        n = width
        if parametrization == "standard":
            self.m = dict.fromkeys(effective, 1.0)
            self.rate = 1 / n
        elif parametrization == "ntk":
            fan_in = {"embed": dim, "hidden": n, "readout": n}
            self.m = {name: WEIGHT_STD[name] / np.sqrt(fan_in[name]) for name in fan_in}
            self.m |= dict.fromkeys(BIAS, BIAS_STD)
            self.rate = 1.0
        else:
            root = np.sqrt(n)
            self.m = {"embed": root, "embed.bias": root, "hidden": 1.0, "hidden.bias": root}
            self.m |= {"readout": 1 / root, "readout.bias": 1.0}
            self.rate = 1.0
        self.w = {name: np.array(value, np.float64) / self.m[name] for name, value in effective.items()}
        self.velocity = dict.fromkeys(self.w, 0.0)

    @property
    def effective(self):
        return {name: self.m[name] * w for name, w in self.w.items()}

    def forward(self, x):
        e = self.effective
        h1 = x @ e["embed"] + BIAS["embed.bias"] * e["embed.bias"]
        h2 = relu(h1) @ e["hidden"].T + BIAS["hidden.bias"] * e["hidden.bias"]
        return h1, h2, OUT * (relu(h2) @ e["readout"].T + e["readout.bias"])

    def gradients(self, x, y):
        e = self.effective
        h1, h2, f = self.forward(x)
        p = np.exp(f - f.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        loss = -(y * np.log(p)).sum(axis=1).mean()
        df = OUT * (p - y) / len(x)
        dh2 = (df @ e["readout"]) * (h2 > 0)
        dh1 = (dh2 @ e["hidden"]) * (h1 > 0)
        found = {
            "embed": x.T @ dh1,
            "embed.bias": BIAS["embed.bias"] * dh1.sum(axis=0),
            "hidden": dh2.T @ relu(h1),
            "hidden.bias": BIAS["hidden.bias"] * dh2.sum(axis=0),
            "readout": df.T @ relu(h2),
            "readout.bias": df.sum(axis=0),
        }
        return loss, {name: self.m[name] * g for name, g in found.items()}

    def step(self, x, y, lr, lr_mult, weight_decay, momentum, clip, clip_mode, projections=None):
        loss, grads = self.gradients(x, y)
        if projections is not None:
            for name, basis in projections.items():
                inside = grads[name] if name == "hidden" else grads[name].T
                inside = basis @ (basis.T @ inside)
                grads[name] = inside if name == "hidden" else inside.T
        norms = {name: np.linalg.norm(g) for name, g in grads.items()}
        whole = np.linalg.norm(list(norms.values()))
        for name, g in grads.items():
            norm = whole if clip_mode == "global" else norms[name]
            factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
            self.velocity[name] = momentum * self.velocity[name] + factor * g
            step = lr * self.rate * lr_mult.get(name, 1.0) * self.velocity[name]
            self.w[name] = (1 - lr * weight_decay) * self.w[name] - step
        return loss
