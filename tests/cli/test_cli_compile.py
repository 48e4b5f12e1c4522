"""compile, graph, kernel and check, as a user runs them."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from tpc.cli.derive import STAGES

PROGRAMS = Path(__file__).parents[2] / "programs"
MLP, RESMLP = PROGRAMS / "mlp.py", PROGRAMS / "resmlp.py"


def invoke(*arguments):
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments], prog_name="tpc", catch_exceptions=False)
    assert "Traceback" not in result.output
    return result


def output(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("program", [MLP, RESMLP])
def test_summary_fits_one_screen_and_names_the_kernels(program):
    text = output("compile", program)
    assert len(text.splitlines()) <= 50
    assert "relu" in text


def test_one_stage_is_printed_bare_and_several_with_headings(tmp_path):
    program = output("compile", MLP, "--emit", "program")
    update = output("compile", MLP, "--emit", "update")
    both = output("compile", MLP, "--emit", "program", "--emit", "update")
    assert not program.startswith("#")
    assert "# program\n" in both
    assert "# update\n" in both
    assert program.strip() in both
    assert update.strip() in both
    text = output("compile", MLP, "--emit", "program", "--emit", "update", "--out", tmp_path / "new" / "dir")
    assert text.count("wrote ") == 2
    assert (tmp_path / "new" / "dir" / "program.txt").read_text().strip() == program.strip()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_can_be_emitted(stage):
    text = output("compile", MLP, "--set", "hidden=1", "--emit", stage)
    assert len(text) > 50
    if stage == "json":
        json.loads(text)
    if stage == "numpy":
        compile(text, "limit.py", "exec")


@pytest.mark.parametrize("stage", ["limit", "update", "kernels", "latex", "plan", "numpy", "c", "cuda", "dot", "json"])
def test_a_sampled_tail_is_in_every_stage_of_the_limit(stage):
    text, plain = (
        output("compile", MLP, "--set", "hidden=1", "--fold-degree", 2, *points, "--emit", stage)
        for points in (("--fold-points", 32), ())
    )
    assert (text != plain) == (stage not in ("kernels", "c"))  # neither kernels nor loops over atoms change
    if stage == "limit":
        assert "fold readout.T <- readout.T + sum[readout](1/32, readout.A, beyond[2](relu(x))" in text
        assert "readout.T" not in plain


def test_points_need_a_degree():
    result = invoke("compile", MLP, "--fold-points", 32, "--emit", "limit")
    assert result.exit_code == 2
    assert "--fold-degree" in result.output


def test_settings_reach_the_program():
    assert "hidden2" in output("compile", MLP, "--set", "hidden=3", "--emit", "program")
    assert "hidden2" not in output("compile", MLP, "--set", "hidden=2", "--emit", "program")


def test_graph_chooses_the_format_by_the_file_name(tmp_path):
    for name in ("g.svg", "g.html", "g.dot", "g.json"):
        assert output("graph", MLP, "-o", tmp_path / name) == f"wrote {tmp_path / name}\n"
    assert ET.parse(tmp_path / "g.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "g.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "g.dot").read_text().startswith("digraph")
    assert json.loads((tmp_path / "g.json").read_text())["format"] == "tpc-graph"


def test_a_picture_shows_the_network_and_data_the_whole_step():
    forward = json.loads(output("graph", MLP, "--format", "json", "--part", "forward"))
    step = json.loads(output("graph", MLP, "--format", "json"))
    kinds = {node["kind"] for node in forward["nodes"]}
    assert {"input", "state", "latent", "gram", "kernel", "output"} <= kinds
    assert not kinds & {"loss", "update"}
    updated = {node["label"] for node in step["nodes"] if node["kind"] == "update"}
    assert {"update embed", "update hidden1", "update readout"} <= updated
    assert len(step["nodes"]) > 2 * len(forward["nodes"])
    assert "update embed" not in output("graph", MLP)
    assert "update embed" in output("graph", MLP, "--part", "step")


def test_kernel_prints_formula_and_value():
    record = json.loads(output("kernel", "relu", "--at", "1,2,0.5", "--json"))
    theta = math.acos(0.5 / math.sqrt(2))
    expected = math.sqrt(2) / (2 * math.pi) * (math.sin(theta) + (math.pi - theta) * math.cos(theta))
    assert record["at"]["value"] == pytest.approx(expected, rel=1e-12)
    assert "arccos" in output("kernel", "relu")
    assert invoke("kernel", "rleu").exit_code == 2
    assert "relu" in invoke("kernel", "rleu").output


EXIT_CODES = {"right": 0, "wrong": 1, "cannot tell": 3}


def test_check_reports_slopes_and_its_exit_code_follows_them(tmp_path):
    options = ("--set", "hidden=1", "--widths", "64:512", "--seeds", "4", "--steps", "1")
    result = invoke("check", MLP, *options, "--json", "--plot", tmp_path / "p.svg")
    record = json.loads(result.stdout)
    assert record["widths"] == [64, 128, 256, 512]
    assert [row["row"] for row in record["rows"]] == ["step 0", "step 1"]
    assert result.exit_code == EXIT_CODES[record["verdict"]]
    ET.parse(tmp_path / "p.svg")
    assert "slope" in invoke("check", MLP, *options).output


def test_check_of_all_limits_writes_a_report(tmp_path):
    quick = ("--widths", "32:128", "--seeds", 2, "--steps", 1, "--fit-steps", 2, "--rank", 4)
    result = invoke("check", MLP, "--limit", "all", *quick, "--json", "--report", tmp_path / "c.html")
    record = json.loads(result.stdout)
    assert [check["limit"] for check in record["checks"]] == ["pi", "nngp", "ntk"]
    assert [check["rank"] for check in record["checks"]] == [4, None, None]
    assert [check.get("fit_steps") for check in record["checks"]] == [None, 2, 2]
    assert result.exit_code == EXIT_CODES[record["verdict"]]
    assert "ridgeless regression" in (tmp_path / "c.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("limit", ["nngp", "ntk"])
def test_kernel_limits_can_be_emitted_and_drawn(limit, tmp_path):
    for stage in STAGES:
        if stage not in ("update", "cuda"):
            assert len(output("compile", RESMLP, "--limit", limit, "--emit", stage)) > 50
    assert f"output {limit} = " in output("compile", MLP, "--limit", limit, "--emit", "limit")
    text = output("compile", MLP, "--limit", limit)
    assert len(text.splitlines()) <= 50
    assert "N1 × N2" in text
    file = tmp_path / "kernel.svg"
    output("graph", MLP, "--limit", limit, "-o", file)
    assert f"{limit.upper()} limit" in file.read_text()
    told = invoke("compile", MLP, "--limit", limit, "--fold-degree", 2, "--emit", "limit")
    assert told.exit_code == 2
    assert "has no atoms to fold" in told.output
