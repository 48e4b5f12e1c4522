"""A device that is this machine: NumPy for arrays and products, the C compiler for the text of the kernels.

What runs on a CUDA device through CuPy runs here as it is: the same generated Python and the same kernels.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import numpy as np
import scipy.special

from backends import native_build
from backends.device import Device, Memory
from backends.device_backend import DeviceBackend
from backends.half import from_stored
from tests.support.cuda_cpu.device_arrays import ArrayLibrary, DeviceArray
from tpc.lower.cuda_loop import KERNELS

SHIM = Path(__file__).with_name("shim.h")
FLOAT32 = np.dtype(np.float32)
KERNEL = re.compile(r"^TPC_KERNEL void (\w+)\(([^)]*)\)\s*(\{.*?^\})", re.DOTALL | re.MULTILINE)
TYPES = {"tpc_int": ctypes.c_longlong, "float": ctypes.c_float}


def kernels_of(source):
    """(name, parameters as (type, name), body) of every kernel of a text."""
    for name, parameters, body in KERNEL.findall(source):
        words = [re.fullmatch(r"\s*(.*?)(\w+)\s*", p, re.DOTALL).groups() for p in parameters.split(",")]
        yield name, [(kind.strip(), word) for kind, word in words], body


FIXED = frozenset(name for name, _, _ in kernels_of(KERNELS.read_text()))


def with_launchers(source):
    """The text, and a function per kernel that runs all its threads; the fixed kernels only where they are alone."""
    parts = [SHIM.read_text(), source]
    found = list(kernels_of(source))
    own = [k for k in found if k[0] not in FIXED]
    for name, parameters, body in own or found:
        fields = "".join(f"    {kind} {word};\n" for kind, word in parameters)
        call = ", ".join(f"given->{word}" for _, word in parameters)
        together = int("__syncthreads" in body)
        declared = ", ".join(f"{kind} {word}" for kind, word in parameters)
        values = ", ".join(word for _, word in parameters)
        parts.append(
            f"struct {name}_given {{\n{fields}}};\n"
            f"static void {name}_body(void *p) {{ struct {name}_given *given = p; {name}({call}); }}\n"
            f'__attribute__((visibility("default")))\n'
            f"void {name}_launch(unsigned blocks, unsigned threads, {declared})\n{{\n"
            f"    struct {name}_given given = {{{values}}};\n"
            f"    tpc_run({name}_body, &given, blocks, threads, {together});\n}}\n"
        )
    return "\n".join(parts)


class HostDevice(Device):
    """Every kernel counts its calls; arguments of the wrong type or layout are refused, as a device would not."""

    xp = ArrayLibrary()
    name = "this machine"
    cache_bytes = 1 << 15  # so that stores have several chunks

    def __init__(self):
        self.launches = []
        self.free = self.total = 1 << 40

    def build(self, source):
        library = compiled(with_launchers(source))
        parameters = {name: found for name, found, _ in kernels_of(source)}

        def kernel(name):
            launch = library[f"{name}_launch"]
            types = [TYPES.get(kind, ctypes.c_void_p) for kind, _ in parameters[name]]
            launch.argtypes, launch.restype = [ctypes.c_uint, ctypes.c_uint, *types], None

            def run(blocks, threads, arguments):
                assert 0 < blocks < 2**31
                assert 0 < threads <= 1024
                assert len(arguments) == len(types), name
                self.launches.append(name)
                launch(blocks, threads, *map(checked, arguments, parameters[name]))

            return run

        return kernel

    def gemm(self, a, b, out, *, ta=False, tb=False, add=False):
        assert a.dtype == b.dtype
        assert out.dtype == FLOAT32
        a, b, out = (x.on_host for x in (a, b, out))
        for x in (a, b, out):
            assert x.ndim == 2
            assert x.flags.c_contiguous
        assert (a.shape[1] if ta else a.shape[0], b.shape[0] if tb else b.shape[1]) == out.shape
        if not add:
            out[...] = 0
        step = 128  # rows at a time, for this machine's own numbers of 32 bits are in the way
        for start in range(0, len(a), step):
            rows = slice(start, start + step)
            part = from_stored(a[rows], FLOAT32)
            if ta:
                out += part.T @ (from_stored(b[:, rows], FLOAT32).T if tb else from_stored(b[rows], FLOAT32))
            else:
                out[rows] += part @ (from_stored(b, FLOAT32).T if tb else from_stored(b, FLOAT32))

    def special(self, name, x):
        return DeviceArray(getattr(scipy.special, name)(x.on_host))

    def to_host(self, x):
        return x.on_host.copy() if isinstance(x, DeviceArray) else np.asarray(x)

    def synchronize(self):
        pass

    def versions(self):
        return f"NumPy {np.__version__}"

    def memory(self):
        return Memory(self.free, self.total)


def compiled(source):
    """A library; compiling takes longer here than running."""
    flags = native_build.FLAGS
    native_build.FLAGS = tuple("-O1" if flag == "-O3" else flag for flag in flags)
    try:
        return native_build.load(source)
    finally:
        native_build.FLAGS = flags


def checked(value, parameter):
    """An argument as a launch takes it: arrays of the parameter's type whose numbers lie one after another."""
    kind, name = parameter
    if "*" in kind:
        if isinstance(value, int):
            assert value == 0, name
            return None
        wanted = {"float": "f", "double": "d", "int": "i", "tpc_int": "lq", "unsigned short": "He", "void": "fHe"}
        value = value.on_host
        assert value.dtype.char in wanted[kind.replace("const", "").replace("*", "").strip()], (name, value.dtype)
        assert value.flags.c_contiguous, name
        assert "const" in kind or value.flags.writeable, name
        return value.ctypes.data
    assert isinstance(value, np.float32 if kind == "float" else int), (name, value)
    return value if isinstance(value, int) else float(value)


def host_backend():
    """The device backend on this machine."""
    return DeviceBackend("cuda_cpu", HostDevice)
