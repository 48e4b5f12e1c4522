"""Mistakes in a program are told with what was expected, what came, the user's file and line, and the fix."""

import pytest

import tpc
from tpc.errors import ProgramError, SourceLine, UsageError, UserError

HEAD = "import tpc\nfrom tpc import relu\n\n\ndef network(x, *, hidden=2, scale=1.0, name='a', deep=False):\n"
HIDDEN = "h = tpc.dense(x, name='embed')"
OUT = "f = tpc.readout(relu(h), 3)"


def write(tmp_path, text):
    file = tmp_path / "net.py"
    file.write_text(text, encoding="utf-8")
    return file


def body(*lines):
    return HEAD + "".join(f"    {line}\n" for line in lines)


def mistake(tmp_path, *lines):
    """The error of a network whose last line but comments is the wrong one, with its line number."""
    file = write(tmp_path, body(*lines))
    wrong = next((i for i, line in enumerate(lines) if line.endswith("# here")), len(lines) - 1)
    with pytest.raises(ProgramError) as e:
        tpc.load(file)
    return file, len(HEAD.splitlines()) + 1 + wrong, lines[wrong].strip(), e.value


CASES = {
    "a nonlinearity of data": (
        ["return relu(x)"],
        "tpc.relu expects a vector (one value per neuron), got a scalar (finite axes only)",
        "embed data first: h = tpc.dense(x, name='embed'), then apply the operation to h",
    ),
    "a nonlinearity of a moment": (
        [HIDDEN, "return tpc.erf(tpc.moment(h, h))"],
        "tpc.erf expects a vector (one value per neuron), got a scalar (finite axes only)",
        "embed data first",
    ),
    "a nonlinearity of a number": (
        ["return tpc.gelu(0.5)"],
        "tpc.gelu expects a vector, got float",
        "pass the result of tpc.dense",
    ),
    "a nonlinearity of one's own on a scalar": (
        ["return tpc.nonlin('x*erf(x)')(x)"],
        "the nonlinearity x*erf(x) expects a vector (one value per neuron), got a scalar",
        "embed data first",
    ),
    "adding vectors of different spaces": (
        ["a = tpc.dense(x, 'a', space='left')", "b = tpc.dense(x, 'b', space='right')", "return tpc.readout(a + b, 3)"],
        "vectors of different spaces meet: expected both in 'left', got 'left' and 'right'",
        "give both layers the same space=…, or map one of them with tpc.dense into the other's space",
    ),
    "multiplying vectors of different spaces": (
        ["a = tpc.dense(x, 'a', space='left')", "b = tpc.dense(x, 'b', space='right')", "return tpc.readout(b * a, 3)"],
        "vectors of different spaces meet: expected both in 'right', got 'right' and 'left'",
        "give both layers the same space=…",
    ),
    "spaces that meet by way of a third": (
        [
            "a = tpc.dense(x, 'a', space='left')",
            "b = tpc.dense(x, 'b', space='right')",
            "c = tpc.dense(x, 'c') + a",
            "return tpc.readout(c + b, 3)",
        ],
        "vectors of different spaces meet",
        "give both layers the same space=…",
    ),
    "an unknown operation": (["return tpc.foo(x)"], "unknown operation tpc.foo", "tpc.__all__ lists them"),
    "a misspelt operation": (["return tpc.reluu(x)"], "unknown operation tpc.reluu", "Did you mean 'relu'?"),
    "numpy's exp": (
        ["import numpy as np", HIDDEN, "return np.exp(h)"],
        "unknown operation numpy.exp on a vector",
        "write tpc.exp, or tpc.nonlin('expression in x') for a nonlinearity of your own",
    ),
    "numpy's multiply": (
        ["import numpy as np", HIDDEN, "return np.ones(3) * h"],
        "unknown operation numpy.multiply on a vector",
        "use the operations of tpc, or tpc.nonlin('expression in x')",
    ),
    "a matrix product": (
        [HIDDEN, "return h @ h"],
        "unknown operation @ on a vector",
        "a matrix product is tpc.dense(x, name=…)",
    ),
    "a matrix product with an array": (
        ["import numpy as np", HIDDEN, "return h @ np.ones((3, 3))"],
        "unknown operation @ on a vector",
        "a matrix product is tpc.dense(x, name=…)",
    ),
    "an array inside": (
        ["import numpy as np", HIDDEN, "return h * np.ones(3)"],
        "expected a number or a traced value, got ndarray",
        "pass arrays as data to the trained model, not inside the program",
    ),
    "a transpose": (
        [HIDDEN, "return h.T"],
        "unknown operation .T on a vector: a vector has no transpose",
        "tpc.moment(q, k) is (1/n) Σ qk",
    ),
    "a method": ([HIDDEN, "return h.relu()"], "unknown operation .relu on a vector", "as in tpc.relu(h)"),
    "a remainder": (["return x % 2"], "unknown operation % on a scalar", "networks have + - * / and ** with a number"),
    "a remainder the other way": (["return 2 % x"], "unknown operation % on a scalar", "networks have"),
    "an exponential": (["return 2 ** x"], "unknown operation ** with a scalar as exponent", "networks have"),
    "Python's abs": ([HIDDEN, "return abs(h)"], "unknown operation abs() on a vector", "tpc.abs(h)"),
    "a quotient of vectors": ([HIDDEN, "return h / h"], "a vector divided by a vector", "divide by a scalar"),
    "one over a vector": ([HIDDEN, "return 1 / h"], "division by a vector", "divide by a scalar"),
    "division by zero": ([HIDDEN, "return h / 0"], "division by zero", ""),
    "a hidden layer after a readout": (
        [HIDDEN, OUT, "return tpc.dense(f, name='next')"],
        "tpc.dense expects a vector (one value per neuron), got the output of a readout",
        "put the readout last: apply it once all hidden layers are done",
    ),
    "a nonlinearity after a readout": (
        [HIDDEN, OUT, "return relu(2 * f + tpc.bias('readout'))"],
        "tpc.relu expects a vector (one value per neuron), got the output of a readout",
        "put the readout last",
    ),
    "a readout of a readout": (
        [HIDDEN, OUT, "return tpc.readout(tpc.softmax(f, 'class'), 3, name='again')"],
        "tpc.readout expects a vector (one value per neuron), got the output of a readout",
        "put the readout last",
    ),
    "a readout added to a hidden layer": (
        [HIDDEN, OUT, "return h + f"],
        "expected two vectors or two scalars to add, got a scalar and a vector",
        "a scalar multiplies a vector; a bias of a readout is made after it, with tpc.bias(<its name>)",
    ),
    "a branch": (
        [HIDDEN, "if tpc.moment(h, h) > 1:  # here", "    h = h / 2", "return tpc.readout(relu(h), 3)"],
        "the program branches on the value of a scalar, but a traced network has no values yet",
        "branch on settings (keyword arguments) only; for behaviour that depends on data use tpc.relu, tpc.step",
    ),
    "a branch on truth": (
        [HIDDEN, "if h:  # here", "    h = h / 2", "return tpc.readout(relu(h), 3)"],
        "the program branches on the value of a vector",
        "branch on settings",
    ),
    "a branch on equality": (
        [HIDDEN, "while h == 0:  # here", "    h = h / 2", "return tpc.readout(relu(h), 3)"],
        "the program branches on the value of a vector",
        "branch on settings",
    ),
    "a branch on membership": (
        ["return 1 if x in (0, 1) else 2"],
        "the program branches on the value of a scalar",
        "branch on settings",
    ),
    "a number asked for": (
        ["import math", HIDDEN, "return h * math.sqrt(tpc.moment(h, h))"],
        "expected a traced operation, got Python asking for the value of a scalar",
        "a network only combines tpc operations; numbers come from settings or data",
    ),
    "a loop over data": (
        ["for row in x:  # here", "    pass"],
        "Python asking for the value of a scalar",
        "a network only",
    ),
    "an index": ([HIDDEN, "return h[0]"], "Python asking for the value of a vector", "a network only"),
    "an array made of it": (
        ["import numpy as np", HIDDEN, "return np.array(h)"],
        "Python asking for the value of a vector",
        "a network only",
    ),
    "a vector returned": (
        [HIDDEN, "return relu(h)"],
        "a network must return its logits (a scalar with a class axis), got a vector",
        "end with tpc.readout(x, classes, name='readout')",
    ),
    "a moment returned": (
        [HIDDEN, "return tpc.moment(h, h)"],
        "a network must return logits with axes (sample, class), got a scalar with sample",
        "return the result of tpc.readout(x, classes, name='readout')",
    ),
    "a bad name": (
        ["return tpc.dense(x, name='a b')"],
        "tpc.dense expects a name of letters, digits and _, got 'a b'",
        "for example name='hidden1'",
    ),
    "a name used for two layers": (
        [HIDDEN, "return tpc.dense(relu(h), name='embed')"],
        "layer 'embed' is used again as something else: expected an input layer as before, got a hidden layer",
        "give the second layer a name of its own (the same name shares the same weights)",
    ),
    "a bias before its readout": (
        [HIDDEN, "b = tpc.bias('readout')", "return tpc.readout(relu(h), 3) + b"],
        "the name 'readout' is taken by a bias made before its readout",
        "make the readout before its bias",
    ),
    "weights tied to an embedding": (
        [HIDDEN, "h = h + tpc.bias('embed')", "return tpc.readout(relu(h), 3, name='embed')"],
        "tpc.readout('embed') would share its weights with an input layer of that name, which it cannot",
        "give the readout a name of its own",
    ),
    "scores of two heads": (
        [HIDDEN, "q, k = tpc.dense(h, 'q'), tpc.dense(h, 'k')", "return tpc.softmax(q @ k.T, 'sample')"],
        "unknown operation .T on a vector",
        "tpc.moment(q, k) is (1/n) Σ qk",
    ),
    "heads cut from a vector": ([HIDDEN, "return h.chunk(2)"], "splitting, into heads or others", "for each part"),
    "layer normalisation": (
        [HIDDEN, "return tpc.readout(relu(tpc.layer_norm(h)), 3)"],
        "unknown operation tpc.layer_norm: layer normalisation with its mean, gain and bias is not in this version",
        "tpc.rms_norm(h) before the nonlinearity; see docs/writing_programs.md",
    ),
    "dropout": ([HIDDEN, "return tpc.readout(tpc.dropout(h, 0.5), 3)"], "unknown operation tpc.dropout", "leave it"),
    "a convolution": (["return tpc.conv2d(x, 3)"], "a convolution is tpc.conv", "tpc.conv(x, name="),
    "a numpy nonlinearity": (
        ["import numpy as np", HIDDEN, "return tpc.nonlin(np.tanh)(h)"],
        "tpc.nonlin expects an expression in x, as text or from sympy, got the function tanh",
        "",
    ),
    "a lambda as nonlinearity": ([HIDDEN, "return tpc.nonlin(lambda x: x)(h)"], "got the function <lambda>", ""),
    "nothing as nonlinearity": ([HIDDEN, "return tpc.nonlin(None)(h)"], "got NoneType", ""),
    "a list as nonlinearity": ([HIDDEN, "return tpc.nonlin([1])(h)"], "got list", ""),
    "a factor beyond floats": (
        [HIDDEN, "return tpc.nonlin('1e308*x*x')(h)"],
        "expected 0 or a size of 1e-100 to 1e+100, got 1.00E+308",
        "",
    ),
    "an expression of sympy beyond floats": (
        ["import sympy", HIDDEN, "return tpc.nonlin(sympy.Symbol('x') * 10**400)(h)"],
        "expected 0 or a size of 1e-100 to 1e+100, got 1.00E+400",
        "",
    ),
    "a huge factor": ([HIDDEN, "return tpc.readout(h * 1e300, 3)"], "a size of 1e-100 to 1e+100, got 1e+300", ""),
    "a tiny initialization": (["return tpc.dense(x, 'a', weight_std=1e-320)"], "weight_std: expected 0 or a size", ""),
    "a slope that is no number": (
        [HIDDEN, "return tpc.leaky_relu(h, float('nan'))"],
        "the parameter of leaky_relu: expected a finite number, got nan",
        "",
    ),
    "an infinite parameter": ([HIDDEN, "return tpc.elu(h, float('inf'))"], "expected a finite number, got inf", ""),
    "a negative width of an initialization": (
        ["return tpc.dense(x, 'a', weight_std=-1)"],
        "expected a standard deviation weight_std ≥ 0, got -1",
        "",
    ),
    "no classes": ([HIDDEN, "return tpc.readout(h, 0)"], "tpc.readout expects a positive number of classes, got 0", ""),
    "half a class": ([HIDDEN, "return tpc.readout(h, 2.5)"], "a positive number of classes, got 2.5", ""),
    "a root of a vector": (
        [HIDDEN, "return tpc.readout(h ** 0.5, 3)"],
        "expected a positive whole exponent of a vector, got 0.5",
        "write tpc.nonlin('…') instead",
    ),
    "a traced exponent": (["return x ** x"], "expected a number as exponent, got TracedTensor", ""),
    "infinity": ([HIDDEN, "return tpc.readout(h * float('inf'), 3)"], "expected a finite number, got inf", ""),
    "text as a factor": (
        [HIDDEN, "return tpc.readout(h * 'two', 3)"],
        "expected a number or a traced value, got str",
        "arrays as data",
    ),
    "True as a factor": (
        [HIDDEN, "return tpc.readout(h * True, 3)"],
        "expected a number or a traced value, got bool",
        "",
    ),
    "an unknown axis": (
        [HIDDEN, OUT, "return tpc.softmax(f, 'row')"],
        "expected one of the axes sample, class, got 'row'",
        "",
    ),
    "an unknown function": ([HIDDEN, "return tpc.nonlin('foo(x)')(h)"], "unknown name 'foo'", ""),
    "two variables": (
        [HIDDEN, "return tpc.nonlin('x*y')(h)"],
        "expected a nonlinearity of one variable x, got 'x*y'",
        "",
    ),
    "too many parameters": ([HIDDEN, "return tpc.leaky_relu(h, 1, 2)"], "tpc.leaky_relu got 2 parameters too many", ""),
    "a traced parameter": (
        [HIDDEN, "return tpc.leaky_relu(h, x)"],
        "must be a number from the settings, got a traced value",
        "",
    ),
    "text as a parameter": (
        [HIDDEN, "return tpc.leaky_relu(h, 'a')"],
        "the parameter of leaky_relu must be a number, got 'a'",
        "",
    ),
    "an exception of the user's": ([HIDDEN, "return {}['key']"], "KeyError: 'key'", ""),
    "a failed assertion": (["assert hidden == 3, 'three layers'"], "AssertionError: three layers", ""),
    "a missing argument": (
        ["return tpc.dense(x)"],
        "TypeError: dense() missing 1 required positional argument: 'name'",
        "",
    ),
    "a division by zero": (["return x * (1 / 0)"], "ZeroDivisionError: division by zero", ""),
    "endless recursion": (["return network(x)"], "RecursionError", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_at_its_line(tmp_path, name):
    lines, message, fix = CASES[name]
    file, number, text, error = mistake(tmp_path, *lines)
    assert error.where == SourceLine(str(file), number, text)
    told = str(error)
    assert told.startswith(f"{file}:{number}: ")
    assert message in told
    assert f"\n    {text}" in told
    if fix:
        assert fix in error.fix
        assert f"\n  Fix: {error.fix}" in told
    assert "internal error" not in told


@pytest.mark.parametrize("several", ["f, f", "[f, f]", "{'a': f, 'b': f}"])
def test_several_outputs_are_told_at_the_function(tmp_path, several):
    with pytest.raises(ProgramError, match=r"a network returns one output, got a .* of 2: several outputs, each with"):
        tpc.load(write(tmp_path, body(HIDDEN, OUT, f"return {several}")))


@pytest.mark.parametrize(("value", "shown"), [("None", "NoneType"), ("3", "int"), ("[x]", "list")])
def test_something_else_returned(tmp_path, value, shown):
    file = write(tmp_path, body(f"return {value}"))
    with pytest.raises(ProgramError, match=f"a network must return its logits, got {shown}") as e:
        tpc.load(file)
    assert (e.value.where.file, e.value.where.line) == (str(file), 5)
    assert e.value.fix == "return the result of tpc.readout"


def test_the_input_returned_is_told_at_the_function(tmp_path):
    file = write(tmp_path, body("return x"))
    with pytest.raises(ProgramError, match="got a scalar with sample, feature") as e:
        tpc.load(file)
    assert (e.value.where.file, e.value.where.line) == (str(file), 5)


def test_a_mistake_in_a_helper_of_the_file_is_told_there(tmp_path):
    helper = "import tpc\n\n\ndef _block(h):\n    return h @ h\n\n\n"
    text = helper + "def network(x):\n    return _block(tpc.dense(x, 'a'))\n"
    with pytest.raises(ProgramError) as e:
        tpc.load(write(tmp_path, text))
    assert e.value.where.line == 5


def test_what_the_limit_cannot_express_is_told_when_compiled(tmp_path):
    file = write(tmp_path, body(HIDDEN, "y = relu(relu(h) + tpc.erf(h))", "return tpc.readout(y, 3)"))
    limit = tpc.compile(tpc.load(file))
    with pytest.raises(ProgramError, match="a nonlinearity meets a sum of stored nonlinearities") as e:
        limit.graph()
    assert (e.value.where.line, e.value.where.text) == (7, "y = relu(relu(h) + tpc.erf(h))")
    assert e.value.fix == "put a tpc.dense layer between them"


@pytest.mark.parametrize(("factor", "lost"), [("0 * f", "sample, class"), ("0 * f + tpc.bias('readout')", "sample")])
def test_logits_that_are_lost_are_told(tmp_path, factor, lost):
    file = write(tmp_path, body(HIDDEN, OUT, f"return {factor}"))
    with pytest.raises(ProgramError, match=f"the logits do not depend on {lost}: a factor is zero") as e:
        tpc.load(file)
    assert (e.value.where.line, e.value.fix) == (8, "check the numbers and settings that multiply them")


def test_a_vector_that_is_zero_is_told_when_compiled(tmp_path):
    file = write(tmp_path, body("h = 0 * tpc.dense(x, name='embed')", "return tpc.readout(relu(h), 3)"))
    with pytest.raises(ProgramError, match="'readout' is applied to a vector that is zero whatever the weights") as e:
        tpc.compile(tpc.load(file)).graph()
    assert e.value.where.line == 6


def test_an_unknown_limit_or_loss(tmp_path):
    program = tpc.load(write(tmp_path, body(HIDDEN, "return tpc.readout(relu(h), 3)")))
    with pytest.raises(UsageError, match=r"expected a limit among pi.*, got 'phi'"):
        tpc.compile(program, limit="phi")
    with pytest.raises(UsageError, match="expected a loss among cross_entropy, mse, got 'hinge'"):
        tpc.compile(program).graph("hinge")


# --- files -----------------------------------------------------------------------------------------------------------


FIRST = "import tpc\n\n\ndef first(x):\n    return tpc.readout(tpc.relu(tpc.dense(x, 'a')), 2)\n\n\n"
TWO = FIRST + "def second(x):\n    return first(x)\n"


def test_the_network_proposed_is_not_a_helper(tmp_path):
    helper = "import tpc\n\n\ndef block(h):\n    return tpc.relu(h)\n\n\n"
    text = helper + "def main(x):\n    return tpc.readout(block(tpc.dense(x, 'a')), 2)\n"
    with pytest.raises(ProgramError, match="choose one with --function main, or"):
        tpc.load(write(tmp_path, text))
    with pytest.raises(ProgramError, match="choose one with --function net, or"):
        tpc.load(write(tmp_path, text + "\n\n" + text.split("\n\n\n")[2].replace("main", "net") + TWO[12:]))


def test_two_networks_in_a_file(tmp_path):
    file = write(tmp_path, TWO)
    with pytest.raises(ProgramError) as e:
        tpc.load(file)
    assert str(e.value) == (
        f"{file}:8: expected one network, found 2: first, second\n    def second(…)\n"
        "  Fix: choose one with --function second, or start the names of helpers with _"
    )
    assert tpc.load(file, function="second").name == "second"
    assert tpc.load(file, function="first").name == "first"


def test_an_unknown_function(tmp_path):
    file = write(tmp_path, TWO)
    with pytest.raises(UsageError) as e:
        tpc.load(file, function="secnd")
    assert str(e.value) == f"{file} has no network named 'secnd'; it has: first, second. Did you mean 'second'?"


def test_no_network_in_a_file(tmp_path):
    with pytest.raises(ProgramError, match=r"expected one network \(a public function of x\), found none") as e:
        tpc.load(write(tmp_path, "import tpc\nfrom tpc import relu\nx = 1\n\n\ndef _helper(x):\n    return x\n"))
    assert "programs/mlp.py" in e.value.fix


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"expected a program file, found none at .*nowhere\.py\."):
        tpc.load(tmp_path / "nowhere.py")
    with pytest.raises(UsageError, match="expected a program file, found none"):
        tpc.load(tmp_path)


def test_a_syntax_error(tmp_path):
    file = write(tmp_path, "import tpc\n\n\ndef network(x)\n    return x\n")
    with pytest.raises(ProgramError) as e:
        tpc.load(file)
    assert str(e.value) == f"{file}:4: not valid Python: expected ':'\n    def network(x)"


def test_binary_data(tmp_path):
    file = tmp_path / "net.py"
    file.write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(ProgramError, match=r"net\.py") as e:
        tpc.load(file)
    assert "Traceback" not in str(e.value)


def test_an_exception_while_the_file_is_read(tmp_path):
    file = write(tmp_path, "import tpc\nvalue = {}['key']\n\n\ndef network(x):\n    return x\n")
    with pytest.raises(ProgramError) as e:
        tpc.load(file)
    assert str(e.value) == f"{file}:2: KeyError: 'key'\n    value = {{}}['key']"


def test_a_missing_module(tmp_path):
    file = write(tmp_path, "import no_such_module_at_all\n\n\ndef network(x):\n    return x\n")
    with pytest.raises(ProgramError, match="ModuleNotFoundError: No module named 'no_such_module_at_all'") as e:
        tpc.load(file)
    assert e.value.where.line == 1


def test_an_operation_outside_a_function(tmp_path):
    with pytest.raises(UsageError, match="run only while one is traced"):
        tpc.load(write(tmp_path, "import tpc\nb = tpc.bias('a')\n\n\ndef network(x):\n    return x\n"))


# --- settings --------------------------------------------------------------------------------------------------------


LOOP = ("for k in range(1, hidden):", "    h = tpc.dense(relu(h), f'h{k}')")
GOOD = body(HIDDEN, *LOOP, "return scale * tpc.readout(relu(h), 3)")


def test_settings_reach_the_network(tmp_path):
    program = tpc.load(write(tmp_path, GOOD), hidden=4, scale=2)
    assert [w.name for w in program.weights] == ["embed", "h1", "h2", "h3", "readout"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiden": 3}, "has no setting 'hiden'; it has: hidden, scale, name, deep. Did you mean 'hidden'?"),
        ({"width": 3}, "has no setting 'width'; it has: hidden, scale, name, deep."),
        ({"x": 3}, "has no setting 'x'"),
        ({"hidden": 2.5}, "setting hidden of network expects int (default 2), got 2.5."),
        ({"hidden": "three"}, "setting hidden of network expects int (default 2), got 'three'."),
        ({"hidden": True}, "setting hidden of network expects int (default 2), got True."),
        ({"scale": "big"}, "setting scale of network expects float (default 1.0), got 'big'."),
        ({"name": 3}, "setting name of network expects str (default 'a'), got 3."),
        ({"deep": 1}, "setting deep of network expects bool (default False), got 1."),
    ],
)
def test_wrong_settings(tmp_path, settings, message):
    with pytest.raises(UsageError) as e:
        tpc.load(write(tmp_path, GOOD), **settings)
    assert message in str(e.value)


def test_a_setting_without_default_is_needed(tmp_path):
    text = "import tpc\n\n\ndef network(x, *, classes):\n    return tpc.readout(tpc.relu(tpc.dense(x, 'a')), classes)\n"
    file = write(tmp_path, text)
    with pytest.raises(UsageError) as e:
        tpc.load(file)
    assert str(e.value) == f"network in {file} needs a value for: classes. Give it with --set classes=…."
    assert tpc.load(file, classes=4)["logits"].axes[-1].size == 4


def test_a_network_takes_the_data(tmp_path):
    with pytest.raises(ProgramError, match=r"expected a function of the data, network\(x, …\), got one without"):
        tpc.load(write(tmp_path, "def network():\n    return 1\n"))


def test_an_open_ended_network_takes_any_setting(tmp_path):
    line = "return rest['a'] * tpc.readout(tpc.relu(tpc.dense(x, 'e')), 3)"
    text = f"import tpc\n\n\ndef network(x, **rest):\n    {line}\n"
    assert tpc.load(write(tmp_path, text), a=2).name == "network"


# --- kinds of errors -------------------------------------------------------------------------------------------------


def test_errors_carry_the_exit_code():
    assert ProgramError("x").exit_code == UsageError("x").exit_code == 2
    assert UserError("x").exit_code == 1
    told = str(ProgramError("wrong", SourceLine("f.py", 3, "code"), "mend it"))
    assert told == "f.py:3: wrong\n    code\n  Fix: mend it"
    assert str(ProgramError("wrong")) == "wrong"
