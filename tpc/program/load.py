"""Load the network of a program file."""

from __future__ import annotations

import inspect
import linecache
import runpy
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tpc.errors import ProgramError, SourceLine, TpcError, UsageError, did_you_mean, text_of
from tpc.program.absent import PAGE, absent
from tpc.program.program import Program
from tpc.program.tracing import trace


def load(
    path: str | Path, function: str | None = None, *, input_shape: Sequence[int] | None = None, **settings: Any
) -> Program:
    """Trace the network in a Python file.

    The file holds one public function (or `function` names it); its keyword arguments are the settings. `input_shape`
    is that of a sample, where the annotation of x leaves lengths open that the network needs.
    Raises ProgramError with the user's file and line, UsageError for unknown settings.
    """
    file = Path(path)
    network = _pick(_networks(file), function, file)
    _check_settings(network, settings, file)
    try:
        return trace(network, input_shape=input_shape, **settings)
    except TpcError:
        raise
    except (Exception, SystemExit) as e:  # whatever the user's code raises is told at the user's line
        raise _translated(e, file) from e


def _networks(file: Path) -> dict[str, Callable[..., Any]]:
    if not file.is_file():
        raise UsageError(
            f"expected a program file, found none at {file}. A program is a Python file such as programs/mlp.py."
            + did_you_mean(str(file), map(str, file.parent.glob("*.py")))
        )
    try:
        linecache.checkcache(str(file))
        names = runpy.run_path(str(file))
    except TpcError:
        raise
    except SyntaxError as e:
        where = SourceLine(str(file), e.lineno or 0, (e.text or "").strip())
        raise ProgramError(f"not valid Python: {e.msg}", where) from e
    except UnicodeDecodeError as e:
        raise ProgramError("expected a Python file, got binary data", SourceLine(str(file), 0)) from e
    except (Exception, SystemExit) as e:
        raise _translated(e, file) from e
    return {
        name: value
        for name, value in names.items()
        if inspect.isfunction(value) and value.__code__.co_filename == str(file) and not name.startswith("_")
    }


def _pick(found: dict[str, Callable[..., Any]], function: str | None, file: Path) -> Callable[..., Any]:
    listed = ", ".join(found) or "none"
    if function is not None:
        if function not in found:
            raise UsageError(
                f"{file} has no network named {function!r}; it has: {listed}.{did_you_mean(function, found)}"
            )
        return found[function]
    if not found:
        raise ProgramError(
            "expected one network (a public function of x), found none",
            SourceLine(str(file), 1),
            "define one, as programs/mlp.py does",
        )
    if len(found) > 1:
        second = list(found.values())[1]
        likely = _likely(found, file)
        raise ProgramError(
            f"expected one network, found {len(found)}: {listed}",
            SourceLine(str(file), second.__code__.co_firstlineno, f"def {second.__name__}(…)"),
            f"choose one with --function {likely}, or start the names of helpers with _",
        )
    return next(iter(found.values()))


def _likely(found: dict[str, Callable[..., Any]], file: Path) -> str:
    """The function that is meant: the file's name, else the last that no other one calls."""
    called = {name for f in found.values() for name in f.__code__.co_names if name != f.__name__}
    top = [name for name in found if name not in called] or list(found)
    return file.stem if file.stem in top else top[-1]


def _check_settings(network: Callable[..., Any], settings: dict[str, Any], file: Path) -> None:
    parameters = list(inspect.signature(network).parameters.values())
    if not parameters:
        raise ProgramError(
            f"expected a function of the data, {network.__name__}(x, …), got one without arguments",
            SourceLine(str(file), network.__code__.co_firstlineno),
        )
    valid = {p.name: p for p in parameters[1:] if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name, value in settings.items():
        if name not in valid:
            if open_ended:
                continue
            raise UsageError(
                f"{network.__name__} in {file} has no setting {name!r}; it has: {', '.join(valid) or 'none'}."
                + did_you_mean(name, valid)
            )
        default = valid[name].default
        if isinstance(default, bool | int | float | str) and not _compatible(value, default):
            raise UsageError(
                f"setting {name} of {network.__name__} expects {type(default).__name__} (default {default!r}), "
                f"got {value!r}."
            )
    missing = [n for n, p in valid.items() if p.default is p.empty and n not in settings]
    if missing:
        raise UsageError(
            f"{network.__name__} in {file} needs a value for: {', '.join(missing)}. Give it with --set {missing[0]}=…."
        )


def _compatible(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


def _translated(e: BaseException, file: Path) -> ProgramError:
    """The user's exception, at the user's line."""
    frames = [f for f in traceback.extract_tb(e.__traceback__) if f.filename == str(file)]
    where = SourceLine(frames[-1].filename, frames[-1].lineno or 0, (frames[-1].line or "").strip()) if frames else None
    if isinstance(e, AttributeError) and getattr(e.obj, "__name__", "") == "tpc":
        name = e.name or ""
        told = absent(name)
        if told is not None:
            return ProgramError(f"unknown operation tpc.{name}: {told[0]}", where, f"{told[1]}; see {PAGE}")
        near = did_you_mean(name, getattr(e.obj, "__all__", ())).strip()
        return ProgramError(f"unknown operation tpc.{name}", where, near or "tpc.__all__ lists them")
    return ProgramError(f"{type(e).__name__}: {text_of(e)}", where)
