"""A finite network as one .npz file: the program's listing, sizes, weights, momentum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tpc.errors import DataError
from tpc.program.text import listing, parse
from tpc.runtime.archive import write_npz
from tpc.runtime.model import Model
from tpc.runtime.saving import DAMAGED, FORMAT

if TYPE_CHECKING:
    from tpc.runtime.network import Network

Array = NDArray[Any]
SIZES = ("width", "input_dim", "parametrization", "rank", "dtype", "backend")


def save(net: Network, path: str | Path) -> None:
    """Write a network."""
    meta = {"format": FORMAT, "program": listing(net.program)}
    meta |= {"network": {name: getattr(net, name) for name in SIZES}}
    columns = {"meta": [np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)]}
    for kind, arrays in (("array", net.state()), ("velocity", net.velocity)):
        columns |= {f"{kind}/{name}": [np.atleast_1d(value)] for name, value in arrays.items()}
    with open(path, "wb") as f:
        write_npz(f, columns)


def load(kind: type[Network], path: str | Path, backend: str | None) -> Network:
    """A network from a file written by `save`, on any backend. Raises DataError for a damaged file."""
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            if meta["format"] != FORMAT:
                raise DataError(f"{path} has format {meta['format']}; this version of tpc reads format {FORMAT}")
            sizes = dict(meta["network"])
            sizes["backend"] = backend or sizes["backend"]
            net = kind(parse(meta["program"], str(path)), sizes.pop("width"), sizes.pop("input_dim"), **sizes)
            found = {
                start: {
                    name: file[f"{start}/{name}"].reshape(shape)
                    for name, shape in net.shapes.items()
                    if start == "array" or f"{start}/{name}" in file
                }
                for start in ("array", "velocity")
            }
            net.load_state(found["array"])
            net.load_velocity(found["velocity"])
    except FileNotFoundError:
        raise DataError(f"expected a saved network at {path}, found none") from None
    except DAMAGED as e:
        raise DataError(f"{path} is not a complete saved network ({e})") from e
    return net


def is_network(path: str | Path) -> bool:
    """Whether a file holds a finite network, not the model of a limit."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return "network" in json.loads(file["meta"].tobytes())
    except DAMAGED:
        return False  # loading tells what is wrong with it


def load_trained(path: str | Path, backend: str | None = None) -> Model | Network:
    """The model or the network in a file. Raises DataError for a damaged one."""
    from tpc.runtime.network import Network

    return Network.load(path, backend) if is_network(path) else Model.load(path, backend)
