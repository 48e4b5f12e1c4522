"""A model as one .npz file: the program's listing, dimensions and the exact state."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tpc.derivation import derived
from tpc.errors import DataError, ProgramError, UsageError
from tpc.limits.store import Store
from tpc.lower.places import moment_column
from tpc.program.text import listing, parse
from tpc.runtime.files.archive import write_npz
from tpc.runtime.files.npz import Npz, check_entries
from tpc.runtime.models.base import ModelBase
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.initial import shape_of
from tpc.runtime.models.model_state import folded_shapes

Array = NDArray[Any]
M = TypeVar("M", bound=ModelBase)
FORMAT = 2
DAMAGED = (  # what reading a file that `save` did not write, or not to its end, may raise
    *(ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, UsageError, ProgramError),
)


def save(model: ModelBase, path: str | Path) -> None:
    """Write a model; stores are streamed."""
    with open(path, "wb") as f:
        write(model, f)


def write(model: ModelBase, stream: IO[bytes]) -> None:
    """Write a model to an open file."""
    meta = {
        "format": FORMAT,
        "program": listing(model.limit.program),
        "limit": model.limit.kind,
        "input_dim": model.input_dim if len(model.input_shape) == 1 else list(model.input_shape),
        "rank": model.rank,
        "dtype": model.dtype,
        "mode": model.mode,
        "backend": model.backend.NAME,
        "momentum": model.has_momentum,
        "storage": model.storage,
        "fold": asdict(model.fold) if model.folds else None,
    }
    text = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
    write_npz(stream, {"meta": [text], **_dumped(model)})


def _dumped(model: ModelBase) -> dict[str, list[Array]]:
    """The arrays of a file, in pieces."""
    columns: dict[str, list[Array]] = {}
    dumped = {s.name for s in model.graph.stores} | {f"{name}.folded" for name in model.folds}
    for name, value in model.raw_state.items():
        if name in dumped:
            columns.update({f"{name}/{column}": pieces for column, pieces in value.dump().items()})
        else:
            columns[f"array/{name}"] = [model.backend.to_numpy(value)]
    return columns


def load(kind: type[M], path: str | Path, backend: str | None) -> M:
    """A model from a file written by `save`, on any backend. Raises DataError for a damaged file."""
    try:
        with open(path, "rb") as stream:
            return read(kind, stream, str(path), backend)
    except FileNotFoundError:
        raise DataError(f"expected a saved model at {path}, found none") from None
    except DAMAGED as e:
        raise DataError(f"{path} is not a complete saved model ({e})") from e


def read(kind: type[M], stream: IO[bytes], name: str, backend: str | None) -> M:
    """A model from an open file. Nothing of the size of an array is allocated before all shapes are known to fit."""
    file = Npz(stream)
    meta = file.meta()
    check_format(meta, name)
    limit = derived(parse(meta["program"], name), meta["limit"])
    if limit.is_kernel or "logits" not in limit.program:
        raise ValueError(f"its {limit.kind}-limit is no model that is trained")
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
    if not isinstance(meta["momentum"], bool):
        raise ValueError(f"expected momentum to be true or false, got {meta['momentum']!r}")
    check_entries(file, {"meta": file.shapes["meta"], **_shapes(model, meta["momentum"])})
    model.restore(_stored(model, file), meta["momentum"])
    return model


def check_format(meta: Mapping[str, Any], name: str) -> None:
    """Raise DataError for a file of another format."""
    if meta["format"] != FORMAT:
        raise DataError(f"{name} has format {meta['format']}; this version of tpc reads format {FORMAT}")


def _shapes(model: ModelBase, momentum: bool) -> dict[str, tuple[int | None, ...]]:
    """The entries of a file with a model's state; None is a number of atoms."""
    wanted: dict[str, tuple[int | None, ...]] = {}
    for u in model.graph.accumulated:
        for name in (u.state.name, *([f"{u.state.name}.velocity"] if momentum else [])):
            wanted[f"array/{name}"] = shape_of(u.state.axes, model.sizes, model.rank)
    for s in model.graph.stores:
        wanted |= {f"{s.name}/{column}": (None, *width) for column, width in model.widths(s).items()}
        wanted[f"{s.name}/scale"] = (1,)
        if momentum:
            wanted |= {f"{s.name}/{column}": (None,) for column in ("scales", "velocities")}
    for name, f in model.folds.items():
        shapes = folded_shapes(model, f)
        wanted |= {f"{name}.folded/{moment_column(m.order)}": shapes[m.state.name] for m in f.moments}
        wanted |= {f"{name}.folded/numbers": (4,), f"{name}.folded/weights": shapes[f"{name}.w"]}
        wanted[f"{name}.folded/sums"] = shapes[f"{name}.sums"]
        if f.tail:
            wanted |= {f"{name}.folded/Z": shapes[f.tail.points.name], f"{name}.folded/T": shapes[f.tail.values.name]}
    return wanted


def to_bytes(model: ModelBase) -> bytes:
    """What `save` writes."""
    stream = BytesIO()
    write(model, stream)
    return stream.getvalue()


def from_bytes(kind: type[M], data: bytes) -> M:
    """The inverse of `to_bytes`."""
    return read(kind, BytesIO(data), "a pickled model", None)


def copied(model: M) -> M:
    """An equal model of the same limit, which shares no numbers."""
    made = _empty(model)
    made.restore(_stored(made, _Pieces(_dumped(model))), model.has_momentum)
    return made


def twin(model: M, path: str | Path) -> M:
    """A model like this one, of the same limit, with the state of a file that `save` wrote of it."""
    try:
        with open(path, "rb") as stream:
            file = Npz(stream)
            momentum = bool(file.meta()["momentum"])
            made = _empty(model)
            check_entries(file, {"meta": file.shapes["meta"], **_shapes(made, momentum)})
            made.restore(_stored(made, file), momentum)
    except DAMAGED as e:
        raise DataError(f"{path} is not a complete saved model of this kind ({e})") from e
    return made


def _empty(model: M) -> M:
    """A model of the same limit, without a state."""
    return type(model)(
        model.limit,
        model.input_shape,
        model.rank,
        backend=model.backend.NAME,
        dtype=model.dtype,
        mode=model.mode,
        storage=model.storage,
        fold=model.fold if model.mode == "folded" else None,
    )


class _Pieces(Mapping[str, Array]):
    """Arrays that are put together when asked for."""

    def __init__(self, pieces: Mapping[str, list[Array]]) -> None:
        self._pieces = pieces

    def __getitem__(self, name: str) -> Array:
        parts = [np.asarray(piece) for piece in self._pieces[name]]
        return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return len(self._pieces)


def _stored(model: ModelBase, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """The state of a model, read from the arrays of a file."""
    state: dict[str, Any] = {}
    for u in model.graph.accumulated:
        name = u.state.name
        for key in (name, f"{name}.velocity"):
            if f"array/{key}" in arrays:
                state[key] = model.backend.array(arrays[f"array/{key}"], model.dtype)
    for s in model.graph.stores:
        widths = model.widths(s)
        state[s.name] = model.backend.restore_atoms(
            _reader(s, arrays), widths, model.dtype, model.storage, model.segment_rows
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


def _reader(s: Store, arrays: Mapping[str, Array]) -> Callable[[str], Array | None]:
    """Reads one column of a store at a time."""

    return lambda column: arrays.get(f"{s.name}/{column}")


def _column(arrays: Mapping[str, Array], name: str) -> Callable[[str], Array]:
    return lambda column: arrays[f"{name}/{column}"]
