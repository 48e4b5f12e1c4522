"""A pickle reader for data files: it interprets the few opcodes such files use and never calls anything.

Python's own unpickler imports and calls what the file names. This one is an interpreter over the opcode
stream (`pickletools.genops`) that knows integers, strings, bytes, lists, tuples, dictionaries and arrays of
fixed-width integers, in the spelling of every pickle protocol and of Python 2. The names NumPy writes into a
pickle are matched as text; there is no import, no attribute access and no call on behalf of the file. Work
and memory are bounded by the size of the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_OPCODES = 1_000_000

INTEGER_CODES = frozenset({"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"})


class UnpickleError(ValueError):
    """The pickle is malformed, or holds something a data file has no business holding."""


class _Name:
    """A name the file mentions, such as numpy.dtype: only ever compared, never looked up."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


class _DType:
    """An integer type under construction: the pickle gives its code first and its byte order afterwards."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code = code
        self.order = "<"

    def build(self, state: Any) -> None:
        plain = isinstance(state, tuple) and len(state) in (7, 8) and state[2:5] == (None, None, None)
        if not plain or text(state[1]) not in ("|", "<", ">", "="):
            raise UnpickleError("an array type with fields, objects or metadata is not allowed")
        self.order = text(state[1])

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """An array under construction: `_reconstruct` makes it empty and BUILD fills it."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: npt.NDArray[Any] | None = None

    def build(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise UnpickleError("an array has a state of the wrong form")
        _, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def text(value: Any) -> str:
    """The string in `value`, which Python 2 pickles as bytes."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise UnpickleError(f"expected a string, got {type(value).__name__}")


def _array(raw: Any, dtype: Any, shape: Any, order: str) -> npt.NDArray[Any]:
    if not isinstance(raw, (bytes, bytearray)):
        raise UnpickleError(f"expected the bytes of an array, got {type(raw).__name__}")
    if not isinstance(dtype, _DType):
        raise UnpickleError("an array has no integer type")
    if not (isinstance(shape, tuple) and len(shape) <= 4 and all(type(n) is int and n >= 0 for n in shape)):
        raise UnpickleError("an array has a shape of the wrong form")
    if order == "F":
        return np.frombuffer(raw, dtype.numpy()).reshape(shape[::-1]).T
    return np.frombuffer(raw, dtype.numpy()).reshape(shape)


class _Machine:
    """The pickle machine: a stack of stacks (one per open mark) and a memo."""

    def __init__(self, budget: int) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.budget = budget  # bytes that `_codecs.encode` may still produce

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise UnpickleError("the stack is empty where a value is needed")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise UnpickleError(f"expected a {kind.__name__} on the stack")
        return self.stack[-1]

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.outer:
            raise UnpickleError("no mark is open")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def push_tuple(self, size: int) -> None:
        items = [self.pop() for _ in range(size)]
        self.push(tuple(reversed(items)))

    def put(self, index: int) -> None:
        self.memo[index] = self.top(object)

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise UnpickleError("a memo entry is used before it is set")
        self.push(self.memo[index])

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def update(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise UnpickleError("a dictionary has a key without a value")
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2]):
            target[text(key)] = value

    def new_dict(self, items: list[Any]) -> None:
        self.push({})
        self.update(items)

    def stack_global(self) -> None:
        name, module = text(self.pop()), text(self.pop())
        self.name(f"{module} {name}")

    def name(self, dotted: str) -> None:
        if dotted not in CONSTRUCTORS and dotted != "numpy ndarray":
            raise UnpickleError(f"it names {dotted.replace(' ', '.')[:80]!r}, which is not allowed in a data file")
        self.push(_Name(dotted))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Name) or function.text not in CONSTRUCTORS or not isinstance(arguments, tuple):
            raise UnpickleError("it calls something that is not an array constructor")
        self.push(CONSTRUCTORS[function.text](self, arguments))

    def build(self) -> None:
        state = self.pop()
        target = self.top(object)
        if not isinstance(target, (_Array, _DType)):
            raise UnpickleError(f"it sets the state of a {type(target).__name__}")
        target.build(state)


def _reconstruct(_: _Machine, arguments: tuple[Any, ...]) -> _Array:
    first = arguments[0] if arguments else None
    if not isinstance(first, _Name) or first.text != "numpy ndarray":
        raise UnpickleError("an array of an unknown class is not allowed")
    return _Array()


def _dtype(_: _Machine, arguments: tuple[Any, ...]) -> _DType:
    code = text(arguments[0]) if arguments else ""
    if code not in INTEGER_CODES:
        raise UnpickleError(f"an array of type {code[:20]!r} is not allowed, only integers are")
    return _DType(code)


def _scalar(_: _Machine, arguments: tuple[Any, ...]) -> int:
    if len(arguments) != 2:
        raise UnpickleError("a number has the wrong form")
    return int(_array(arguments[1], arguments[0], (1,), "C")[0])


def _frombuffer(_: _Machine, arguments: tuple[Any, ...]) -> _Array:
    if len(arguments) != 4:
        raise UnpickleError("an array has the wrong form")
    raw, dtype, shape, order = arguments
    array = _Array()
    array.value = _array(raw, dtype, shape, text(order))
    return array


def _encode(machine: _Machine, arguments: tuple[Any, ...]) -> bytes:
    """Protocols 0–2 have no bytes: Python 3 writes them as a string to be encoded."""
    if len(arguments) != 2 or not isinstance(arguments[0], str) or text(arguments[1]) not in ("latin1", "latin-1"):
        raise UnpickleError("bytes have the wrong form")
    machine.budget -= len(arguments[0])
    if machine.budget < 0:
        raise UnpickleError("it repeats its strings into more bytes than the file has")
    return arguments[0].encode("latin-1")


CONSTRUCTORS: dict[str, Callable[[_Machine, tuple[Any, ...]], Any]] = {
    "numpy dtype": _dtype,
    "_codecs encode": _encode,
    **{f"numpy.{core}.multiarray _reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric _frombuffer": _frombuffer for core in ("core", "_core")},
}

INTEGERS = frozenset({"INT", "LONG", "LONG1", "BININT", "BININT1", "BININT2"})
STRINGS = frozenset({"UNICODE", "SHORT_BINUNICODE", "BINUNICODE"})
BYTES = frozenset({"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"})
LITERALS = INTEGERS | STRINGS | BYTES
PYTHON2_STRINGS = frozenset({"STRING", "SHORT_BINSTRING", "BINSTRING"})

WITH_ARGUMENT: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.name,
}

WITHOUT_ARGUMENT: dict[str, Callable[[_Machine], None]] = {
    "NONE": lambda m: m.push(None),
    "NEWTRUE": lambda m: m.push(True),
    "NEWFALSE": lambda m: m.push(False),
    "MARK": _Machine.mark,
    "EMPTY_LIST": lambda m: m.push([]),
    "LIST": lambda m: m.push(m.pop_mark()),
    "APPEND": lambda m: m.extend([m.pop()]),
    "APPENDS": lambda m: m.extend(m.pop_mark()),
    "EMPTY_DICT": lambda m: m.push({}),
    "DICT": lambda m: m.new_dict(m.pop_mark()),
    "SETITEM": lambda m: m.update([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m: m.update(m.pop_mark()),
    "EMPTY_TUPLE": lambda m: m.push(()),
    "TUPLE": lambda m: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m: m.push_tuple(1),
    "TUPLE2": lambda m: m.push_tuple(2),
    "TUPLE3": lambda m: m.push_tuple(3),
    "MEMOIZE": lambda m: m.put(len(m.memo)),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}


def loads(raw: bytes) -> dict[str, Any]:
    """The dictionary in a data pickle: string keys; int, str, bytes, list, tuple, dict or array values.

    Raises UnpickleError where the pickle is truncated, malformed or holds anything else.
    """
    machine = _Machine(budget=len(raw))
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(raw)):
            if count >= MAX_OPCODES:
                raise UnpickleError(f"it has more than {MAX_OPCODES:,} steps")
            if opcode.name in LITERALS:
                machine.push(argument)
            elif opcode.name in PYTHON2_STRINGS:
                machine.push(str(argument).encode("latin-1"))
            elif opcode.name in WITH_ARGUMENT:
                WITH_ARGUMENT[opcode.name](machine, argument)
            elif opcode.name in WITHOUT_ARGUMENT:
                WITHOUT_ARGUMENT[opcode.name](machine)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise UnpickleError(f"the pickle instruction {opcode.name} is not allowed in a data file")
    except UnpickleError:
        raise
    except (ValueError, OverflowError, MemoryError) as error:  # genops on bad bytes, NumPy on a wrong shape
        raise UnpickleError(str(error)[:200]) from error
    result = machine.pop()
    if not isinstance(result, dict):
        raise UnpickleError(f"it holds a {type(result).__name__} and not a dictionary")
    return {key: _finished(value) for key, value in result.items()}


def _finished(value: Any) -> Any:
    if isinstance(value, (_Name, _DType)):
        raise UnpickleError("it holds a name or a type without an array")
    if not isinstance(value, _Array):
        return value
    if value.value is None:
        raise UnpickleError("it holds an array without content")
    return value.value
