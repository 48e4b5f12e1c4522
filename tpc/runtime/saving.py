"""A model as one .npz file: the program's listing, dimensions and the exact state."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tpc.errors import DataError, ProgramError, UsageError
from tpc.limits.graph import Store
from tpc.program.text import listing, parse
from tpc.runtime.archive import write_npz
from tpc.runtime.arguments import check_shape
from tpc.runtime.folding import FoldOptions
from tpc.runtime.initial import shape_of

if TYPE_CHECKING:
    from tpc.runtime.model import Model

Array = NDArray[Any]
FORMAT = 2
DAMAGED = (  # what reading a file that `save` did not write, or not to its end, may raise
    *(ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, UsageError, ProgramError),
)


def save(model: Model, path: str | Path) -> None:
    """Write a model; stores are streamed."""
    meta = {
        "format": FORMAT,
        "program": listing(model.limit.program),
        "limit": model.limit.kind,
        "input_dim": model.input_dim,
        "rank": model.rank,
        "dtype": model.dtype,
        "mode": model.mode,
        "backend": model.backend.NAME,
        "momentum": model.has_momentum,
        "storage": model.storage,
        "fold": asdict(model.fold) if model.folds else None,
    }
    columns: dict[str, list[Array]] = {"meta": [np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)]}
    dumped = {s.name for s in model.graph.stores} | {f"{name}.folded" for name in model.folds}
    for name, value in model.raw_state.items():
        if name in dumped:
            columns.update({f"{name}/{column}": pieces for column, pieces in value.dump().items()})
        else:
            columns[f"array/{name}"] = [model.backend.to_numpy(value)]
    with open(path, "wb") as f:
        write_npz(f, columns)


def load(kind: type[Model], path: str | Path, backend: str | None) -> Model:
    """A model from a file written by `save`, on any backend. Raises DataError for a damaged file."""
    from tpc.compiler import compile_program

    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            if meta["format"] != FORMAT:
                raise DataError(f"{path} has format {meta['format']}; this version of tpc reads format {FORMAT}")
            limit = compile_program(parse(meta["program"], str(path)), meta["limit"])
            model = kind(
                limit,
                meta["input_dim"],
                meta["rank"],
                backend=backend or meta["backend"],
                dtype=meta["dtype"],
                mode=meta["mode"],
                storage=meta["storage"],
                fold=FoldOptions(**meta["fold"]) if meta["fold"] else None,
            )
            model.restore(_stored(model, file), bool(meta["momentum"]))
    except FileNotFoundError:
        raise DataError(f"expected a saved model at {path}, found none") from None
    except DAMAGED as e:
        raise DataError(f"{path} is not a complete saved model ({e})") from e
    return model


def _stored(model: Model, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The state of a model, read from the arrays of a file."""
    state: dict[str, Any] = {}
    for u in model.graph.accumulated:
        name = u.state.name
        for key in (name, f"{name}.velocity"):
            if key == name or f"array/{key}" in arrays:
                value = arrays[f"array/{key}"]
                check_shape(key, value, shape_of(u.state.axes, model.sizes, model.rank))
                state[key] = model.backend.array(value, model.dtype)
    for s in model.graph.stores:
        widths = model.widths(s)
        state[s.name] = model.backend.restore_atoms(
            _reader(s, widths, arrays), widths, model.dtype, model.storage, model.segment_rows
        )
    for name, f in model.folds.items():
        state[f"{name}.folded"] = model.backend.restore_moments(
            _column(arrays, f"{name}.folded"),
            *model.moment_shapes(f),
            model.dtype,
            f.points,
            storage=model.storage,
        )
    return state


def _reader(
    s: Store, widths: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Array]
) -> Callable[[str], Array | None]:
    """Reads one column of a store at a time, and checks its shape."""
    counts: list[int] = []

    def read(column: str) -> Array | None:
        if f"{s.name}/{column}" not in arrays:
            return None
        value = arrays[f"{s.name}/{column}"]
        if column != "scale":
            counts.append(len(value))
            check_shape(f"{s.name}.{column}", value, (counts[0], *widths.get(column, ())))
        return value

    return read


def _column(arrays: Mapping[str, Array], name: str) -> Callable[[str], Array]:
    return lambda column: arrays[f"{name}/{column}"]
