"""The command line in tests: called here or as a process, and what a run directory holds afterwards."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import cli
import tpc
from tpc.runtime.training.rundir import RunDir

ROOT = Path(__file__).parents[2]


def invoke(*arguments):
    return CliRunner().invoke(cli.main, [str(a) for a in arguments], prog_name="tpc", catch_exceptions=False)


def tpc_process(*arguments, **options):
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def records(path):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in RunDir(path).read_metrics()]


def steps(path):
    return [r for r in RunDir(path).read_metrics() if r["kind"] == "step"]


def state(path):
    return tpc.Model.load(RunDir(path).checkpoints.require().model_path, backend="numpy").state()


def assert_same_run(a, b):
    assert records(a) == records(b)
    first, second = state(a), state(b)
    assert list(first) == list(second)
    for name in first:
        assert np.asarray(first[name]).tobytes() == np.asarray(second[name]).tobytes(), name


class Page(HTMLParser):
    """Collects tags, ids and addresses."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.ids.add(values.get("id"))
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
