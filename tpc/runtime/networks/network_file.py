"""A finite network as one .npz file: the program's listing, sizes, weights, momentum."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tpc.errors import DataError
from tpc.program.program import Program
from tpc.program.text import listing, parse
from tpc.runtime.files.archive import write_npz
from tpc.runtime.files.npz import Npz, check_entries, read_meta
from tpc.runtime.models.saving import DAMAGED, FORMAT, check_format

Array = NDArray[Any]


class Saved(Protocol):
    """What a file holds of a network, besides the entries SIZES."""

    program: Program

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    @property
    def parameters_now(self) -> Mapping[str, Array]: ...

    @property
    def input_shape(self) -> tuple[int, ...]: ...

    @property
    def velocity(self) -> Mapping[str, Array]: ...

    def load_state(self, arrays: Mapping[str, Any]) -> None: ...

    def load_velocity(self, arrays: Mapping[str, Any]) -> None: ...


N = TypeVar("N", bound=Saved)
SIZES = ("width", "input_dim", "parametrization", "rank", "dtype", "backend")


def save(net: Saved, path: str | Path) -> None:
    """Write a network."""
    with open(path, "wb") as f:
        write(net, f)


def write(net: Saved, stream: IO[bytes]) -> None:
    """Write a network to an open file."""
    meta = {"format": FORMAT, "program": listing(net.program)}
    sizes = {name: getattr(net, name) for name in SIZES}
    if len(net.input_shape) > 1:
        sizes["input_dim"] = list(net.input_shape)
    meta |= {"network": sizes}
    columns = {"meta": [np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)]}
    for kind, arrays in (("array", net.parameters_now), ("velocity", net.velocity)):
        columns |= {f"{kind}/{name}": [np.atleast_1d(value)] for name, value in arrays.items()}
    write_npz(stream, columns)


def load(kind: Callable[..., N], path: str | Path, backend: str | None) -> N:
    """A network from a file written by `save`, on any backend. Raises DataError for a damaged file."""
    try:
        with open(path, "rb") as stream:
            return read(kind, stream, str(path), backend)
    except FileNotFoundError:
        raise DataError(f"expected a saved network at {path}, found none") from None
    except DAMAGED as e:
        raise DataError(f"{path} is not a complete saved network ({e})") from e


def read(kind: Callable[..., N], stream: IO[bytes], name: str, backend: str | None) -> N:
    """A network from an open file. Nothing of the size of an array is allocated before all shapes are known to fit."""
    file = Npz(stream)
    meta = file.meta()
    check_format(meta, name)
    sizes = dict(meta["network"])
    sizes["backend"] = backend or sizes["backend"]
    net = kind(parse(meta["program"], name), sizes.pop("width"), sizes.pop("input_dim"), **sizes)
    wanted: dict[str, tuple[int | None, ...]] = {"meta": file.shapes["meta"]}
    for start in ("array", "velocity"):
        wanted |= {f"{start}/{n}": shape or (1,) for n, shape in net.shapes.items()
                   if start == "array" or f"{start}/{n}" in file}  # fmt: skip
    check_entries(file, wanted)
    found = {
        start: {n: file[f"{start}/{n}"].reshape(shape) for n, shape in net.shapes.items() if f"{start}/{n}" in file}
        for start in ("array", "velocity")
    }
    net.load_state(found["array"])
    net.load_velocity(found["velocity"])
    return net


def to_bytes(net: Saved) -> bytes:
    """What `save` writes."""
    stream = BytesIO()
    write(net, stream)
    return stream.getvalue()


def from_bytes(kind: Callable[..., N], data: bytes) -> N:
    """The inverse of `to_bytes`."""
    return read(kind, BytesIO(data), "a pickled network", None)


def is_network(path: str | Path) -> bool:
    """Whether a file holds a finite network, not the model of a limit."""
    try:
        return "network" in read_meta(path)
    except DAMAGED:
        return False  # loading tells what is wrong with it
