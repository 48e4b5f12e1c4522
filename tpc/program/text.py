"""Print a program as a listing, and parse a listing back to the identical program."""

from __future__ import annotations

from tpc.program.program import Program


def listing(program: Program) -> str:
    """The program as text; `parse` gives the same object back."""
    return program.listing


def parse(text: str, file: str = "<listing>") -> Program:
    """The program a listing describes; raises ProgramError naming the line that cannot be read."""
    return Program.listed(text, file)
