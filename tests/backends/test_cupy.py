"""CuPy where there is no device: imported late, and one line tells what is missing; what is used of it is there."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import cupy
import pytest
from click.testing import CliRunner

import cli
import tpc
from backends import cupy_device
from tests.support.loops import NONLINEARITIES, Problem, network
from tpc.errors import UserError
from tpc.lower.cuda_module import cuda_module
from tpc.lower.lowered import lower

ROOT = Path(__file__).parents[2]
MLP = str(ROOT / "programs" / "mlp.py")


def test_cupy_is_imported_when_a_device_is_asked_for():
    code = (
        "import sys, cli, tpc, backends.cupy_backend, backends.device_backend, tpc.tasks.classify\n"
        "assert not {'cupy', 'cupyx', 'cupy_backends'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- what is missing -------------------------------------------------------------------------------------------------


class CUDARuntimeError(RuntimeError):
    pass


def modules(monkeypatch, **found):
    """What is importable; an exception stands for a module that is not."""

    def load(name):
        module = found[name.rpartition(".")[2]]
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(cupy_device, "import_module", load)


def cupy_with(count):
    def devices():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = SimpleNamespace(getDeviceCount=devices, CUDARuntimeError=CUDARuntimeError)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))


class Libraries:
    """Of CUDA: each is there, or an exception."""

    def __init__(self, cublas, nvrtc=None):
        self._cublas, self._nvrtc = cublas, nvrtc

    @property
    def cublas(self):
        return self._found(self._cublas)

    @property
    def nvrtc(self):
        return SimpleNamespace(getVersion=lambda: self._found(self._nvrtc))

    @staticmethod
    def _found(what):
        if isinstance(what, Exception):
            raise what
        return what


MISSING = {
    "CuPy": (
        {"cupy": ImportError("No module named 'cupy'")},
        "--backend cupy needs CuPy, which cannot be imported (No module named 'cupy'). Install it (python -m pip "
        "install 'tpc[cuda]'), or choose --backend native, which needs none.",
    ),
    "driver": (
        {"cupy": cupy_with(CUDARuntimeError("cudaErrorInsufficientDriver: too old\nmore"))},
        "needs a CUDA device, and none was found (cudaErrorInsufficientDriver: too old). Run on a machine with",
    ),
    "device": ({"cupy": cupy_with(0)}, "none was found (CuPy sees none)"),
    "cuBLAS": (
        {"cupy": cupy_with(1), "libs": Libraries(ImportError("no libcublas.so.12"))},
        "needs cuBLAS and NVRTC, which CuPy does not find (no libcublas.so.12). Install CUDA 12",
    ),
    "NVRTC": (
        {"cupy": cupy_with(1), "libs": Libraries(None, RuntimeError("no libnvrtc.so.12"))},
        "needs cuBLAS and NVRTC, which CuPy does not find (no libnvrtc.so.12). Install CUDA 12",
    ),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_is_told(monkeypatch, what):
    found, message = MISSING[what]
    modules(monkeypatch, **found)
    with pytest.raises(UserError) as e:
        cupy_device.find()
    assert message in str(e.value)
    assert "\n" not in str(e.value)
    assert e.value.exit_code == 1


def test_commands_without_a_device_end_with_one_line(monkeypatch, tmp_path):
    modules(monkeypatch, cupy=cupy_with(0))
    monkeypatch.delitem(sys.modules, "backends.cupy_backend", raising=False)  # which remembers a device it found
    run = str(tmp_path / "run")
    result = CliRunner().invoke(cli.main, ["train", MLP, "--backend", "cupy", "--out", run])
    assert result.exit_code == 1
    assert result.output.startswith("error: --backend cupy needs a CUDA device, and none was found")
    assert result.output.count("\n") == 1
    assert not Path(run).exists()
    small = ["--rank", "5", "--epochs", "1", "--limit-train-size", "40", "--no-report"]
    assert CliRunner().invoke(cli.main, ["train", MLP, "--out", run, *small]).exit_code == 0
    resume = ["train", "--resume", run, "--backend", "cupy", "--epochs", "2"]
    for command in (["eval", run, "--backend", "cupy"], resume):
        result = CliRunner().invoke(cli.main, command)
        assert result.exit_code == 1
        assert "none was found" in result.output
    assert CliRunner().invoke(cli.main, ["eval", run]).exit_code == 0  # the checkpoint is as it was
    monkeypatch.delitem(sys.modules, "backends.cupy_backend")


# --- functions -------------------------------------------------------------------------------------------------------


def used(text, prefix):
    return set(re.findall(rf"\b{prefix}\.([a-z]\w*)\b", text))


def test_functions_of_the_array_library_are_cupys(programs_dir):
    texts = [
        cuda_module(lower(tpc.compile(tpc.load(programs_dir / f"{name}.py")).graph(loss, degree), momentum)).python
        for name in ("mlp", "resmlp")
        for loss in ("cross_entropy", "mse")
        for degree in (None, 2)
        for momentum in (False, True)
    ]
    texts += [cuda_module(Problem(network(phi)).lowered).python for phi in (*NONLINEARITIES.values(), tpc.tanh)]
    names = used("\n".join(texts), "np")
    for file in ("device", "device_runtime", "device_tables", "device_powers", "device_loops", "atoms", "folded_atoms"):
        names |= used((ROOT / "backends" / f"{file}.py").read_text(), "xp")
    assert {n for n in names if not hasattr(cupy, n)} == set()
    assert len(names) > 15
    special = import_module("cupyx.scipy.special")
    assert all(hasattr(special, name) for name in ("erf", "erfc", "erfcx"))


def test_what_is_used_of_cupys_own():
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)
    assert cupy.RawModule
    assert cupy.get_default_memory_pool().free_bytes
    assert {"getDeviceCount", "getDeviceProperties", "memGetInfo", "getDevice"} <= set(dir(cupy.cuda.runtime))
    assert cupy.cuda.device.get_cublas_handle


# --- on a device -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_a_run_on_a_device_goes_on_without_one(tmp_path):
    run = str(tmp_path / "run")
    small = ["--rank", "20", "--epochs", "2", "--storage", "bfloat16", "--no-report", "--clip", "0.4"]
    result = CliRunner().invoke(cli.main, ["train", MLP, "--backend", "cupy", "--out", run, *small])
    assert result.exit_code == 0, result.output
    more = ["--resume", run, "--backend", "native", "--epochs", "3", "--no-report"]
    result = CliRunner().invoke(cli.main, ["train", *more])
    assert result.exit_code == 0, result.output


@pytest.mark.gpu
def test_too_much_for_a_device_is_a_memory_error():
    from backends.cupy_backend import BACKEND

    with pytest.raises(MemoryError, match="Out of memory allocating"):
        BACKEND.device.xp.empty(2 * BACKEND.available().bytes, "u1")


# --- the benchmark ---------------------------------------------------------------------------------------------------


def test_the_benchmark_runs_on_any_device(cuda_cpu, capsys):
    from benchmarks import gpu

    small = ["--quick", "--turns", "1", "--atoms", "300", "--rank", "4", "--ranks", "4"]
    gpu.main(small, cuda_cpu.NAME)
    told = capsys.readouterr().out
    assert "copy" in told
    assert len(re.findall(r"^\s*(float32|bfloat16|float16)\s+300\s+8\s.*%$", told, re.MULTILINE)) == 3
    assert "312,500 steps" in told
    assert "Skipped: pilimit_lib" in told


def test_the_benchmark_without_a_device_says_so_in_one_line(monkeypatch, capsys):
    from benchmarks import gpu

    modules(monkeypatch, cupy=cupy_with(0))
    monkeypatch.delitem(sys.modules, "backends.cupy_backend", raising=False)
    gpu.main([])
    told = capsys.readouterr().out
    assert told.startswith("Nothing measured: --backend cupy needs a CUDA device, and none was found")
    assert told.count("\n") == 1
    monkeypatch.delitem(sys.modules, "backends.cupy_backend")
