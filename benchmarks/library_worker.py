"""The other side of `library.py`: trains the same network with pilimit_lib (torch) as it is told on standard input.

    python benchmarks/library_worker.py PATH THREADS DEVICE

PATH is where pilimit_lib lies, or empty if it is installed; DEVICE is torch's name of one. One JSON object per line
comes in and goes out. It runs in an interpreter of its own, so that neither side's threads disturb the other, and needs
no tpc there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

PATH, THREADS, DEVICE = sys.argv[1:]
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = THREADS
sys.path[:0] = [str(Path(__file__).resolve().parents[1]), *([PATH] if PATH else [])]
ANSWERS, sys.stdout = sys.stdout, sys.stderr  # what the library prints must not get between the answers

import torch
from pilimit_lib.inf.layers import InfPiInputLinearReLU, InfPiLinearReLU
from pilimit_lib.inf.optim import PiSGD
from pilimit_lib.inf.utils import clip_grad_norm_, store_pi_grad_norm_

from benchmarks import draw


class Network(torch.nn.Module):
    """programs/mlp.py from the library's layers, with the atoms of `draw.state`."""

    def __init__(self, atoms: int, rank: int) -> None:
        super().__init__()
        alpha = draw.SCALES["bias_scale"]
        self.embed = InfPiInputLinearReLU(draw.INPUTS, rank, bias_alpha=alpha)
        self.hidden1 = InfPiLinearReLU(rank, bias_alpha=alpha)
        self.readout = InfPiLinearReLU(rank, r_out=draw.CLASSES, output_layer=True, bias_alpha=alpha)
        state = {name: torch.from_numpy(value) for name, value in draw.state(atoms, rank).items()}
        for name, value in state.items():
            layer, part = name.split(".")
            getattr(getattr(self, layer), part).data = value.to(DEVICE)
        for layer in (self.hidden1, self.readout):
            layer.Amult.data = torch.ones(atoms, device=DEVICE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        g = draw.SCALES["input_scale"] * self.embed(x)
        return draw.SCALES["output_scale"] * self.readout(self.hidden1(g))

    def optimizer(self) -> PiSGD:
        """A group for every learning rate; decay is lr·λ for all of them, and the library multiplies it by the rate."""
        lr, decay = draw.SETTINGS["lr"], draw.SETTINGS["weight_decay"]

        def group(factor: float, *parameters: torch.Tensor) -> dict[str, object]:
            return {"params": list(parameters), "lr": lr * factor, "weight_decay": decay / factor}

        kernels = (self.hidden1, self.readout)
        mult = draw.SETTINGS["lr_mult"]
        groups = [
            group(mult["embed"], self.embed.A),
            group(1.0, *(layer.bias for layer in (self.embed, *kernels))),
            group(1.0, self.hidden1.Amult),
            group(mult["readout"], self.readout.Amult),
            group(1.0, *(part for layer in kernels for part in (layer.A, layer.B))),
        ]
        return PiSGD(groups, lr, weight_decay=decay)


class Trainer:
    """A network and its optimizer."""

    def __init__(self, atoms: int, rank: int) -> None:
        self.network = Network(atoms, rank).to(DEVICE)
        self.optimizer = self.network.optimizer()

    def step(self, x: draw.Array, y: draw.Labels) -> float:
        """One step of SGD, clipped per parameter; the loss before it."""
        self.optimizer.zero_grad()
        inputs, labels = (torch.from_numpy(a).to(DEVICE) for a in (x, y))
        loss = torch.nn.functional.cross_entropy(self.network(inputs), labels)
        loss.backward()
        store_pi_grad_norm_(self.network.modules())
        for parameter in self.network.parameters():
            clip_grad_norm_(parameter, draw.SETTINGS["clip"])
        self.optimizer.step()
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        return float(loss.detach())


def main() -> None:
    torch.set_num_threads(int(THREADS))
    answer(torch=torch.__version__)
    trainer, source = None, None
    for line in sys.stdin:
        request = json.loads(line)
        if "atoms" in request:
            trainer = None  # before the next one takes memory
            trainer = Trainer(request["atoms"], request["rank"])
            answer(ready=True)
            continue
        if "seed" in request:
            source = draw.batches(request["batch"], request["seed"])
        losses, spent = [], []
        for _ in range(request["steps"]):
            x, y = source()
            start = time.perf_counter()
            losses.append(trainer.step(x, y))
            spent.append(time.perf_counter() - start)
        answer(losses=losses, seconds=spent)


def answer(**values: object) -> None:
    print(json.dumps(values), file=ANSWERS, flush=True)


if __name__ == "__main__":
    main()
