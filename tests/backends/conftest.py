"""The backends with loops of their own, each behind one fixture: what holds for one of them holds for all."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from backends import native_backend
from tests.support.cuda_cpu.host_device import host_backend
from tpc.runtime.models import backend as registry
from tpc.runtime.models.backend import load_backend


@pytest.fixture(autouse=True)
def compiled_natively(request, monkeypatch):
    """No test here may pass because NumPy ran instead, but those of that warning."""
    if "fresh_warning" in request.fixturenames:
        return

    def refuse(reason):
        raise AssertionError(reason)

    monkeypatch.setattr(native_backend, "_warn", refuse)


@pytest.fixture
def cuda_cpu(monkeypatch):
    """The device backend on this machine, known as "cuda_cpu" to models, too."""
    made = host_backend()
    monkeypatch.setitem(sys.modules, "backends.cuda_cpu_backend", SimpleNamespace(BACKEND=made))
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, made.NAME))
    return made


@pytest.fixture(params=["native", "cuda_cpu", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request):
    """C loops, CUDA kernels on this machine, CUDA kernels on a device."""
    if request.param == "cuda_cpu":
        return request.getfixturevalue("cuda_cpu")
    return load_backend(request.param)


@pytest.fixture
def exact(backend):
    """The largest error of a backend for a storage, in units of an array's largest entry."""
    split = backend.NAME != "native"  # two parts of 8 bits make a number

    def bound(storage=None):
        return 2e-5 if split and storage == "bfloat16" else 5e-6

    return bound
