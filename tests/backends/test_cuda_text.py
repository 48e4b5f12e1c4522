"""The CUDA that is generated: NVRTC compiles all of it, for two generations of devices and without one at hand."""

import re

import pytest
from cupy_backends.cuda.libs import nvrtc
from test_c_elementwise import HOMOGENEOUS, PAIRS

import tpc
from backends.cupy_device import OPTIONS
from tests.support.cuda_cpu.host_device import kernels_of
from tests.support.loops import CLASSES, NONLINEARITIES, Problem, network
from tpc.gaussian import kernel
from tpc.gaussian.symbols import RHO, C, P, Q
from tpc.lower.c_elementwise import FUNCTIONS, KNOWN, device_function
from tpc.lower.cuda_loop import KERNELS
from tpc.lower.cuda_module import cuda_module, cuda_source
from tpc.lower.elementwise import Builder
from tpc.lower.lowered import lower
from tpc.lower.operations import ARITY, Operation, Value

DEVICES = pytest.mark.parametrize("device", ["sm_80", "sm_90"])


def compiled(source, device):
    """The machine code of a text; its log where it does not compile."""
    program = nvrtc.createProgram(source, "limit.cu", (), ())
    try:
        try:
            nvrtc.compileProgram(program, (*OPTIONS, f"-arch={device}"))
        except nvrtc.NVRTCError:
            raise AssertionError(nvrtc.getProgramLog(program)) from None
        assert "warning" not in nvrtc.getProgramLog(program)
        return nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)


@DEVICES
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_programs(programs_dir, name, momentum, device):
    limit = tpc.compile(tpc.load(programs_dir / f"{name}.py"))
    made = cuda_module(lower(limit.graph(), momentum))
    code = compiled(made.cuda, device)
    assert len(made.loops) >= 6
    for loop in made.loops:
        assert f"TPC_DEV void {loop.name}_element(" in made.cuda
        assert loop.name.encode() in code


@DEVICES
def test_folded_programs(programs_dir, device):
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py"))
    assert limit.emit("cuda", 2) == cuda_source(lower(limit.graph(degree=2)))
    compiled(limit.emit("cuda", 2), device)


@DEVICES
@pytest.mark.parametrize("name", NONLINEARITIES)
def test_nonlinearities(name, device):
    compiled(cuda_source(Problem(network(NONLINEARITIES[name]), momentum=True).lowered), device)


@DEVICES
def test_every_operation_and_every_kernel_with_a_closed_form(device):
    parts = [FUNCTIONS.read_text(encoding="utf-8")]
    for name in sorted(KNOWN):
        arguments = "xyz"[: ARITY[name]]
        target = Value("t")
        operation = Operation(target, name, tuple(Value(a) for a in arguments))
        parts.append(device_function(f"op_{name}", arguments, [operation], {"value": target}))
    for k, (_, phi, psi) in enumerate(PAIRS):
        parts.append(function(f"value{k}", kernel(phi, psi).value, {P: "p", Q: "q", C: "c"}))
    for k, (_, phi, psi) in enumerate(HOMOGENEOUS):
        parts.append(function(f"kappa{k}", kernel(phi, psi).kappa, {RHO: "rho"}))
    calls = [
        f"    {name}({', '.join('x[0]' for _ in range(text.count('float') - 1))}, x);"
        for name, text in re.findall(r"TPC_DEV void (\w+)\(([^)]*)\)", "\n".join(parts))
    ]
    body = "\n".join(calls)
    compiled("\n".join([*parts, f'extern "C" __global__ void all(float *x)\n{{\n{body}\n}}\n']), device)


def function(name, expression, symbols):
    count = iter(range(10**6))
    builder = Builder(lambda: f"t{next(count)}")
    result = builder.expression(expression, {s: Value(text) for s, text in symbols.items()})
    return device_function(name, list(symbols.values()), builder.operations, {"value": result})


def test_the_text_needs_no_header_and_is_reproducible(programs_dir):
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))
    source = limit.emit("cuda")
    assert source == tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES)).emit("cuda")
    assert re.findall(r"#include.*", source) == ["#include <math.h>"]  # which NVRTC does without
    assert len(list(kernels_of(source))) == len(re.findall(r"^TPC_KERNEL", source, re.MULTILINE))


def test_kernels_of_one_text_have_one_name_each(programs_dir):
    source = cuda_source(lower(tpc.compile(tpc.load(programs_dir / "resmlp.py")).graph()))
    names = [name for name, _, _ in kernels_of(source)]
    assert len(names) == len(set(names))
    assert {name for name, _, _ in kernels_of(KERNELS.read_text(encoding="utf-8"))} < set(names)


def test_a_text_that_is_wrong_is_told():
    with pytest.raises(AssertionError, match="undefined"):
        compiled('extern "C" __global__ void f(float *x) { *x = nothing; }', "sm_90")
