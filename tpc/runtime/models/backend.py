"""How a backend is found by name: the one place that knows where they are."""

from __future__ import annotations

import importlib
from typing import Any, cast

from tpc.available import Available
from tpc.errors import UsageError
from tpc.lower.protocol import Backend

BACKENDS = ("numpy", "native", "cupy")


def load_backend(name: str) -> Backend:
    """The backend of a name; raises UsageError listing the known ones."""
    if name not in BACKENDS:
        raise UsageError(f"expected a backend among {', '.join(BACKENDS)}, got {name!r}")
    return cast(Backend, importlib.import_module(f"backends.{name}_backend").BACKEND)


def free_memory(model: Any) -> Available | None:
    """What the backend of a model or a network may still take; None where nothing is known."""
    backend = getattr(model, "backend", None)
    if isinstance(backend, str):
        backend = load_backend(backend)
    found: Available | None = None if backend is None else backend.available()
    return found
