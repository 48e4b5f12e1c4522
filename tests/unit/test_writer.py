"""Lines of generated code know what they give and use."""

import keyword
import re

import pytest

import tpc
from tpc.lower.code_lines import code_lines
from tpc.lower.lowered import lower
from tpc.lower.numpy_module import module_writers

WORD = re.compile(r"[A-Za-z_]\w*")


@pytest.fixture(params=["mlp", "resmlp"])
def limit(programs_dir, request):
    return tpc.compile(tpc.load(programs_dir / f"{request.param}.py"))


def test_lines_tell_all_names_they_use(limit):
    for w in module_writers(lower(limit.graph())):
        given = {name for line in w.lines for name in line.gives}
        for line in (line for line in w.lines if not line.text.startswith("def ")):
            text = re.sub(r'"[^"]*"', "", line.text.partition("#")[0]).partition(" = ")
            words = {word for word in WORD.findall(text[2] or text[0]) if not keyword.iskeyword(word)}
            assert words & given - set(line.gives) <= set(line.uses) | set(line.gives), line.text
            assert not line.uses & {"np", "rt", "state"}


def test_states_are_read_where_they_are_used(limit):
    for w in module_writers(lower(limit.graph())):
        reads = [line for line in w.lines if line.text.endswith('"]') and " = state[" in line.text]
        assert bool(reads) == (w.function.name != "norms")
        for line in reads:
            assert any(set(line.gives) & other.uses for other in w.lines)


def test_a_store_is_not_taken_for_the_function_of_a_block(programs_dir):
    limit = tpc.compile(tpc.load(programs_dir / "resmlp.py"))
    source = limit.emit("numpy")
    lines = source.splitlines()
    for found in code_lines(limit.graph(), source).values():
        shown = [lines[k - 1] for k in found.lines]
        if shown[-1].strip().startswith(found.name) and "0.5 * block" in shown[-1]:
            assert len(shown) == 2, shown  # the bias is read, and halved
