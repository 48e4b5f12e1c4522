"""Every tensor of a limit tells the instruction, the rule, the user's line and the code that it has to do with."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import tpc
from tpc.limits.mathml import Equations
from tpc.limits.numbering import numbering
from tpc.limits.origin import STAGES, origins
from tpc.limits.text import limit_names
from tpc.lower.code_lines import code_lines

PROGRAMS = Path(__file__).parents[2] / "programs"


LIMITS = [("mlp", "pi"), ("resmlp", "pi"), ("mlp", "ntk"), ("mlp", "nngp"), ("maml", "pi")]


@pytest.fixture(scope="module", params=LIMITS, ids="-".join)
def limit(request):
    program, kind = request.param
    return tpc.compile(tpc.load(PROGRAMS / f"{program}.py"), limit=kind)


def test_every_tensor_has_an_instruction_and_a_rule(limit):
    program, graph = limit.trained(), limit.graph()
    found = origins(graph, program)
    assert set(found) == set(graph.nodes)
    nodes = set(program.nodes)
    for origin in found.values():
        assert origin.node in nodes
        assert origin.stage in STAGES
        assert origin.rule.equation
        assert origin.step.equation


def test_what_the_network_computes_has_a_line_of_the_program(limit):
    lines = (PROGRAMS / f"{limit.program.name}.py").read_text().splitlines()
    view = limit.to_networkx()
    seen = set()
    for _, data in view.nodes(data=True):
        if data["source"]:
            number = int(data["source"].rpartition(":")[2])
            assert lines[number - 1].strip() == data["line"]
            seen.add(number)
    dense = [k for k, line in enumerate(lines, 1) if "tpc.dense" in line]
    assert set(dense) <= seen
    network = [d for _, d in view.nodes(data=True) if d["stage"] == "network" and d["kind"] not in ("input", "state")]
    assert all(d["source"] for d in network if d["whole"])


def test_every_equation_is_well_formed_mathml(limit):
    graph = limit.graph()
    write = Equations(limit_names(graph))
    texts = [write.equation(n) for n in graph.nodes if limit_names(graph).is_line(n)]
    texts += [line for _, updates in graph.updates for u in updates for line in write.update(u)]
    for text in texts:
        assert "None" not in "".join(ET.fromstring(text).itertext())


def test_numbers_count_equations_once(limit):
    found = numbering(limit.graph())
    numbers = [*found.tensors.values(), *found.kernels.values(), *found.updates.values()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_code_lines_are_those_that_assign_the_tensor(limit):
    graph, source = limit.graph(), limit.emit("numpy")
    text = source.splitlines()
    found = code_lines(graph, source)
    computed = [n for n in graph.nodes if type(n).__name__ not in ("State", "Input", "Constant")]
    assert {type(n).__name__ for n in computed if n not in found} <= {"Rename", "Broadcast"}
    for lines in found.values():
        targets = [text[k - 1].partition(" = ")[0].replace(",", " ").split() for k in lines.lines]
        assert any(lines.name in names for names in targets)


def test_the_module_says_what_the_limit_says():
    """g3 = g1 + g2 of the listing is one line of code that adds the code's names of g1 and g2."""
    limit = tpc.compile(tpc.load(PROGRAMS / "mlp.py"))
    graph, source = limit.graph(), limit.emit("numpy")
    names, found, text = limit_names(graph), code_lines(graph, source), source.splitlines()
    by_name = {names[n]: found.get(n) for n in graph.nodes if names.is_line(n)}
    (line,) = by_name["g3"].lines
    assert text[line - 1].split("#")[0].strip() == f"{by_name['g3'].name} = {by_name['g1'].name} + {by_name['g2'].name}"
    assert by_name["k1"].joined
    assert any("arccos" in text[k - 1] for k in by_name["k1"].lines)  # κ of relu
