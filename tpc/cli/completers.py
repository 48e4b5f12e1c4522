"""What a shell offers at TAB: programs, their settings, run directories. Nothing is run or imported to tell."""

from __future__ import annotations

import ast
from pathlib import Path

import click
from click.shell_completion import CompletionItem

DEFAULT_PROGRAMS = {"train": "mlp.py", "fewshot": "maml.py"}


def program_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Python files that begin so, those of programs/ too, and folders."""
    folder, start = _split(incomplete)
    found = sorted(folder.glob("*.py"))
    if folder == Path() and not incomplete.startswith("."):
        found += sorted(Path("programs").glob("*.py"))
    names = [str(p) for p in found if str(p).startswith(incomplete.removeprefix("./")) or p.name.startswith(start)]
    head = "./" if incomplete.startswith("./") else ""
    return [CompletionItem(incomplete, type="dir"), *(CompletionItem(head + name) for name in names)]


def run_directories(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run directories that begin so, those of runs/ too, and folders."""
    folder, _ = _split(incomplete)
    found = [p.parent for p in (*folder.glob("*/config.toml"), *Path("runs").glob("*/config.toml"))]
    names = sorted({str(p) for p in found if str(p).startswith(incomplete)})
    return [CompletionItem(incomplete, type="dir"), *map(CompletionItem, names)]


def program_settings(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The keyword arguments of the program as NAME=DEFAULT, read from its text: it is not run."""
    path = ctx.params.get("program") or Path("programs") / DEFAULT_PROGRAMS.get(ctx.info_name or "", "")
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return []
    found: dict[str, None] = {}
    for function in (n for n in tree.body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")):
        for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults):
            found[f"{argument.arg}={'' if default is None else ast.unparse(default)}"] = None
    return [CompletionItem(text) for text in found if text.startswith(incomplete)]


def _split(incomplete: str) -> tuple[Path, str]:
    """The folder that is complete, and how a name in it begins."""
    folder, _, start = incomplete.rpartition("/")
    return Path(folder or ("/" if incomplete.startswith("/") else ".")), start
