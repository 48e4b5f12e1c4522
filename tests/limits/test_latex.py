"""The derivation as a LaTeX document: its structure, its numbers, and that LaTeX takes it where there is one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

import tpc
from tpc.gaussian.latex import escaped, expression, name
from tpc.limits import origin
from tpc.limits.latex_rules import RULES
from tpc.limits.numbering import numbering
from tpc.limits.text import limit_names
from tpc.program import functions as F
from tpc.program.functions import X
from tpc.report.compile_report import compile_report

PROGRAMS = Path(__file__).parents[2] / "programs"
ENGINE = next((path for engine in ("pdflatex", "lualatex", "xelatex") if (path := shutil.which(engine))), None)
GATED = '''"""A gate, long kernels, and names that are no LaTeX."""
import tpc


def gated_net(x, *, classes=3):
    h = tpc.dense(x, name="ein_gang") + tpc.bias("ein_gang")
    gate = tpc.dense(tpc.erf(h), name="größe") + tpc.bias("größe")
    h = tpc.dense(tpc.gelu(h), name="φ_2", space="größe") + tpc.bias("φ_2")
    return tpc.readout(h * tpc.erf(gate), classes, name="层")
'''
SMOOTH = """import tpc


def smooth(x, *, classes=3):
    return tpc.readout(tpc.silu(tpc.dense(tpc.tanh(tpc.dense(x, name="a")), name="b")), classes)
"""
CASES = {
    "mlp": ("mlp", "pi", {}, None),
    "resmlp": ("resmlp", "pi", {}, None),
    "maml": ("maml", "pi", {}, None),
    "twelve layers": ("mlp", "pi", {"hidden": 12}, None),
    "gated": ("gated", "pi", {}, None),
    "no closed form": ("smooth", "pi", {}, None),
    "folded": ("mlp", "pi", {}, 3),
    "ntk": ("resmlp", "ntk", {}, None),
    "nngp": ("mlp", "nngp", {}, None),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    program, kind, settings, degree = CASES[request.param]
    path = PROGRAMS / f"{program}.py"
    if not path.exists():
        path = tmp_path_factory.mktemp("programs") / path.name
        path.write_text({"gated": GATED, "smooth": SMOOTH}[program], encoding="utf-8")
    limit = tpc.compile(tpc.load(path, **settings), limit=kind)
    return limit, degree, limit.emit("latex", degree), path.read_text(encoding="utf-8")


def arguments(text, command, count):
    """The arguments in braces of every use of a command."""
    found = []
    for match in re.finditer(re.escape(command) + r"(?=\{)", text):
        at, parts = match.end(), []
        for _ in range(count):
            assert text[at] == "{", text[at : at + 40]
            depth, start = 1, at + 1
            while depth:
                at += 1
                depth += {"{": 1, "}": -1}.get(text[at], 0) if text[at - 1] != "\\" else 0
            parts.append(text[start:at])
            at += 1
        found.append(parts)
    return found


def body(text):
    return text.partition("\\begin{document}\n")[2]


def test_the_document_is_well_formed(case):
    _, _, text, _ = case
    assert text.isascii()
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert len(re.findall(r"\\left\b", text)) == len(re.findall(r"\\right\b", text))
    stack = []
    for what, environment in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if what == "begin":
            stack.append(environment)
        else:
            assert stack.pop() == environment
    assert stack == []
    packages = ",".join(re.findall(r"\\usepackage(?:\[[^]]*\])?\{([^}]*)\}", text)).split(",")
    assert set(packages) == {"amsmath", "amssymb", "multicol", "geometry"}


def test_special_characters_stand_in_commands_only(case):
    text = body(case[2])
    assert not re.search(r"(?<!\\)[#%~]", text)
    for formula, told in [a[1:] for a in arguments(text, r"\entry", 3)]:
        assert "_" not in re.sub(r"\\_", "", told)
        assert "__" not in formula


def test_every_equation_is_there_once_in_order(case):
    limit, degree, text, _ = case
    graph = limit.graph(degree=degree)
    numbers, names = numbering(graph), limit_names(graph)
    entries = [a for a in arguments(body(text), r"\entry", 3) if a[0]]
    results = len(graph.outputs) + len(graph.norms)
    count = len(numbers.tensors)
    equations = entries[:count] + entries[count + results :]
    assert [int(number) for number, _, _ in equations] == list(range(1, len(equations) + 1))
    assert len(equations) == count + len(numbers.kernels) + len(numbers.updates)
    for tensor, number in numbers.tensors.items():
        assert entries[number - 1][1].startswith(rf"\displaystyle {name(names[tensor])} = ")
    for k in numbers.kernels.values():
        assert entries[results + k - 1][1].startswith(r"\displaystyle V_{")
    for k in numbers.updates.values():
        assert r"\leftarrow" in entries[results + k - 1][1]
    for number, formula, _ in entries[count : count + results]:  # what is returned refers to its equation
        symbol = formula.rpartition(" = ")[2]
        assert entries[int(number) - 1][1].startswith(rf"\displaystyle {symbol} = ")


@pytest.mark.parametrize("case", ["mlp", "maml", "folded", "ntk"], indirect=True)
def test_numbers_are_those_of_the_report(case):
    limit, degree, text, source = case
    page = compile_report(limit, "net", source, degree)
    count = len(numbering(limit.graph(degree=degree)).tensors)
    entries = {int(a[0]): a[1] for a in arguments(body(text), r"\entry", 3)[::-1] if a[0]}
    listed = dict(re.findall(r'<span id="eq-(\d+)"><i>\(\d+\)</i>(\S+) : ', page))
    assert len(listed) == count
    for number, symbol in listed.items():
        assert entries[int(number)].startswith(rf"\displaystyle {name(symbol)} = ")
    (data,) = re.findall(r'<script type="application/json" class="data">(.*?)</script>', page, re.DOTALL)
    nodes = json.loads(data)["nodes"]
    shown = {key: node["number"] for key, node in nodes.items() if "number" in node}
    assert len(shown) > len(nodes) / 2
    for key, number in shown.items():
        assert listed.get(str(number)) == key or (nodes[key]["kind"] == "update" and number > count)
    for number in range(1, max(entries) + 1):
        assert f'id="eq-{number}"' in page


def test_the_program_and_every_rule_are_told(case):
    limit, degree, text, _ = case
    told = {a.partition("]")[0] for a in text.split(r"\item[")[1:]}
    used = origin.origins(limit.graph(degree=degree), limit.trained())
    wanted = {used[n].rule.name for n in numbering(limit.graph(degree=degree)).tensors}
    assert wanted <= told
    lines = [a for a in arguments(body(text).partition(r"\subsection*{Rules}")[0], r"\entry", 3) if not a[0]]
    assert len(lines) == sum(not isinstance(n, tpc.program.tensor.Constant) for n in limit.trained().nodes)


def test_the_rules_of_the_table_are_rules_of_derivations():
    known = {value.name for value in vars(origin).values() if isinstance(value, origin.Rule)}
    known |= {rule.name for rule in origin._STEPS.values()}
    assert set(RULES) <= known


@given(st.text(max_size=30))
def test_any_text_is_escaped(text):
    made = escaped(text)
    assert made.isascii()
    bare = re.sub(r"\\[{}#$%&_~^]", "", made)
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[#$%&~^_]", re.sub(r'\\["\'`^~=.]\{', "{", bare))


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a_b", r"a\_b"),
        ("50 % & <lambda>", r"50 \% \& \textless{}lambda\textgreater{}"),
        ("größe", r"gr\"{o}\ss{}e"),
        ("λΩςϛ", r"\ensuremath{\lambda}\ensuremath{\Omega}\ensuremath{\varsigma}\texttt{U+03DB}"),
        ("φ ≥ 0", r"\ensuremath{\phi} \ensuremath{\ge} 0"),
        ("层", r"\texttt{U+5C42}"),
        ("a\nb", "a b"),
    ],
)
def test_escapes(text, made):
    assert escaped(text) == made


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("g12", "g_{12}"),
        ("x", "x"),
        ("hidden1", r"\text{hidden1}"),
        ("hidden1.A", r"A_{\text{hidden1}}"),
        ("hidden1.M2", r"M_{2,\text{hidden1}}"),
        ("a.b.bias", r"\text{bias}_{\text{a.b}}"),
        ("φ2", r"\text{\ensuremath{\phi}2}"),
    ],
)
def test_names(text, made):
    assert name(text) == made


@pytest.mark.parametrize(
    ("expr", "made"),
    [
        (F.relu(X), r"\operatorname{relu}{\left(x \right)}"),
        (F.absolute(X), r"\left|{x}\right|"),
        (sp.Symbol("q") - X**2, "q - x^{2}"),
        (sp.Function("E1")(X) ** 2, r"\mathbb{E}_{1}\left[ x \right]^{2}"),
        (sp.asin(X), r"\arcsin{\left(x \right)}"),
    ],
)
def test_expressions(expr, made):
    assert expression(expr) == made


@pytest.mark.skipif(ENGINE is None, reason="needs a LaTeX (Debian: apt-get install texlive-latex-base)")
def test_latex_takes_the_document(case, tmp_path):
    _, _, text, _ = case
    (tmp_path / "limit.tex").write_text(text, encoding="ascii")
    done = subprocess.run(
        [ENGINE, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "limit.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=300,
    )
    log = (tmp_path / "limit.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert (tmp_path / "limit.pdf").stat().st_size > 10_000
    assert "Missing character" not in log
    assert "LaTeX Warning: Reference" not in log
    assert all(float(points) < 20 for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log))
