"""Tables and download progress in a pipe."""

import numpy as np

from tpc.data import FileCheck, Holding
from tpc.report import console
from tpc.report.download_progress import download_progress
from tpc.runtime.training.evaluation import Evaluation


def test_evaluation_lists_every_class_with_its_share(capsys):
    counts = np.array([[8, 2, 0], [0, 5, 0], [0, 0, 0]])
    console.print_evaluation(7, Evaluation(0.25, 13 / 15, counts), ["cat", "dog", "cow"])
    text = capsys.readouterr().out
    assert "step 7: test accuracy 86.67%, test loss 0.2500" in text
    assert "80.0%" in text
    assert "100.0%" in text
    assert "–" in text  # no cow to be right about
    assert "\x1b" not in text


def test_long_paths_are_not_cut_in_a_pipe(capsys):
    path = "/a/long/path/" + "x" * 120
    console.print_holdings([Holding("cifar10", path, 1_700_000, "archive")])
    console.print_checks([FileCheck(path, True, "fine [ok]"), FileCheck("b", False, "truncated")])
    text = capsys.readouterr().out
    assert text.count(path) == 2
    assert "1.7 MB" in text
    assert "fine [ok]" in text
    assert "BROKEN b: truncated" in text


def test_download_progress_is_a_line_per_tenth(capsys):
    with download_progress("cifar10") as progress:
        for done in range(0, 1001, 10):
            progress(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "cifar10: 0 B of 1.0 kB"
    assert lines[-1] == "cifar10: 1.0 kB of 1.0 kB"
