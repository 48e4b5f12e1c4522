"""Functions within functions, lifted out before compiling.

Python's compiler copies the names of a function for every function within it, so that a module of thousands of blocks
would take it minutes. Lifted out, a block is made by a function of the names that it takes from around it.
"""

from __future__ import annotations

import ast

MANY = 64  # blocks; fewer are compiled sooner as they are


def parsed(source: str, file: str) -> str | ast.Module:
    """What to compile for a generated module: its source, or the tree of it with blocks lifted out if there are many.

    What a block takes from around it must have its value where the block is defined, and no other later.
    """
    if source.count("\n    def ") < MANY:
        return source
    module = ast.parse(source, file)
    module.body = [made for s in module.body for made in (_lifted(s) if isinstance(s, ast.FunctionDef) else [s])]
    return module


def _lifted(function: ast.FunctionDef) -> list[ast.stmt]:
    """The makers of the blocks of a function, and the function, which calls them."""
    outside = [s for s in function.body if not isinstance(s, ast.FunctionDef)]
    around = {a.arg for a in function.args.args}.union(*(_names(s, ast.Store) for s in outside))
    makers: list[ast.stmt] = []
    for k, block in enumerate(function.body):
        if isinstance(block, ast.FunctionDef):
            own = {a.arg for a in block.args.args} | _names(block, ast.Store)
            taken = ", ".join(sorted((_names(block, ast.Load) - own) & around))
            maker = f"{function.name}_{block.name}"
            made = _statement(f"def {maker}({taken}):\n    return {block.name}", block)
            assert isinstance(made, ast.FunctionDef)
            made.body.insert(0, block)
            makers.append(made)
            function.body[k] = _statement(f"{block.name} = {maker}({taken})", block)
    return [*makers, function]


def _names(tree: ast.stmt, context: type[ast.expr_context]) -> set[str]:
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def _statement(text: str, place: ast.stmt) -> ast.stmt:
    """A statement at the place of another, which tracebacks show."""
    (made,) = ast.parse(text).body
    for n in ast.walk(made):
        if isinstance(n, ast.stmt | ast.expr | ast.arg):
            n.lineno = n.end_lineno = place.lineno
            n.col_offset = n.end_col_offset = place.col_offset
    return made
