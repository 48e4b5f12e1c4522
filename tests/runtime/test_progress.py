"""The display: plain lines in a pipe, a bar on a terminal."""

import io

import pytest

from tpc.runtime.training.progress import Display
from tpc.words import human_bytes, human_time


class Terminal(io.StringIO):
    def isatty(self):
        return True


FIELDS = {"loss": "0.123", "accuracy": "97.0%", "atoms": "1200", "memory": "3.4 MB"}


def test_a_pipe_gets_lines_and_nothing_else():
    stream = io.StringIO()
    with Display(10, "digits", stream) as display:
        display.step(5, FIELDS)
        display.say("epoch 1/2  [test] 97 %")
    assert stream.getvalue() == "epoch 1/2  [test] 97 %\n"


def test_a_terminal_gets_a_bar_with_the_fields_and_lines_above_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    stream = Terminal()
    with Display(10, "digits", stream) as display:
        display.step(5, FIELDS)
        display._progress.refresh()
        display.say("epoch 1/2  [test] 97 %")
    shown = stream.getvalue()
    for part in ("digits", "50%", "loss 0.123", "accuracy 97.0%", "atoms 1200", "memory 3.4 MB", "left"):
        assert part in shown
    assert "epoch 1/2  [test] 97 %" in shown


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (44e6, "44.0 MB"), (2.5e12, "2.5 TB")]
)
def test_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (75.2, "1 min 15 s"), (7322, "2 h 2 min")]
)
def test_times(seconds, text):
    assert human_time(seconds) == text
