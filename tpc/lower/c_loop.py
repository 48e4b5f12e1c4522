"""Loops over stored atoms as C functions, in terms of the kernels of native_kernels.h."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tpc.lower.c_elementwise import device_function
from tpc.lower.native_loop import Argument, NativeLoop

KERNELS = Path(__file__).with_name("native_kernels.h")


def c_loop(loop: NativeLoop) -> str:
    """Three functions: one element, an array of elements, and the whole loop over a range of atoms."""
    return "\n".join([_element(loop), _elements(loop), _whole(loop)])


def _results(loop: NativeLoop) -> list[str]:
    return [f"w{i + 1}" for i in range(len(loop.results))]


def _element(loop: NativeLoop) -> str:
    return device_function(
        f"{loop.name}_element", list(loop.arguments), loop.operations, dict(zip(_results(loop), loop.results))
    )


def _elements(loop: NativeLoop) -> str:
    """The elementwise function on arrays."""
    results = _results(loop)
    pointers = [f"    const float *{a} = in[{i}];" for i, a in enumerate(loop.arguments)]
    pointers += [f"    float *{r} = out[{i}];" for i, r in enumerate(results)]
    call = ", ".join([*(f"{a}[i]" for a in loop.arguments), *(f"&{r}[i]" for r in results)])
    lines = [
        f"TPC_CALL void {loop.name}_elements(int64_t count, const float *const *in, float *const *out)",
        "{",
        *pointers,
        "#pragma omp simd",
        "    for (int64_t i = 0; i < count; i++)",
        f"        {loop.name}_element({call});",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _whole(loop: NativeLoop) -> str:
    openings = list(_openings(loop))
    lines = [
        f"TPC_API int {loop.name}(const tpc_call *call)",
        "{",
        f"    void *taken[{len(openings)}];",
        f"    tpc_arena arena = {{.taken = taken, .size = {len(openings)}}};",
        "    const int64_t batch = call->batch, lanes = tpc_lanes_of(batch), most = call->block_rows * lanes;",
        *openings,
        "    if (arena.failed)",
        "        return tpc_close(&arena);",
        "    tpc_block next = tpc_block_at(call, call->begin);",
        "    for (tpc_block b = next; b.rows > 0; b = next) {",
        "        next = tpc_block_at(call, b.first + b.rows);",
        *(f"        {line}" for line in _block(loop)),
        "    }",
        *(
            f"    tpc_sum_close(sum{i + 1}, {_width(s.column)}, batch, call->sums[{i}]);"
            for i, s in enumerate(loop.sums)
        ),
        "    return tpc_close(&arena);",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _width(column: int | None) -> str:
    return "0" if column is None else f"call->widths[{column}]"


def _array(name: str, argument: Argument, loop: NativeLoop) -> str:
    """The [row][lane] array of an argument."""
    if argument.kind == "product" and loop.by_lane(loop.products[argument.index]):
        return name
    return f"{name}_spread"


def _openings(loop: NativeLoop) -> Iterator[str]:
    """Memory of the call, and what is the same for every block; every line takes one array from the arena."""
    for i in _used_rows(loop):
        yield f"    float *narrow{i + 1} = tpc_take(&arena, call->widths[{i}] < W ? call->block_rows * W : 0);"
    for i, p in enumerate(loop.products):
        room = "most" if loop.by_lane(p) else "call->block_rows"
        yield f"    float *const room{i + 1} = tpc_take(&arena, call->kept[{i}] ? 0 : {room});"
    for c in sorted({p.captured for p in loop.products if p.captured is not None}):
        yield (
            f"    const tpc_vec *latent{c + 1} = "
            f"tpc_pack(&arena, call->captured[{c}], batch, lanes, call->captured_widths[{c}]);"
        )
    for name, argument in loop.arguments.items():
        array = _array(name, argument, loop)
        if argument.kind == "captured":
            c = argument.index
            yield (
                f"    const float *{array} = tpc_spread_lanes(&arena, call->captured[{c}], "
                f"call->captured_widths[{c}], batch, call->block_rows, lanes);"
            )
        elif array != name:
            yield f"    float *{array} = tpc_take(&arena, most);"
    for i, s in enumerate(loop.sums):
        yield f"    float *w{i + 1} = tpc_take(&arena, most);"
        yield f"    float *sum{i + 1} = tpc_sum_open(&arena, {_width(s.column)}, lanes);"


def _used_rows(loop: NativeLoop) -> list[int]:
    columns = [c for p in loop.products for c in (p.column, p.other)] + [s.column for s in loop.sums]
    return sorted({c for c in columns if c is not None})


def _block(loop: NativeLoop) -> Iterator[str]:
    for i in _used_rows(loop):
        yield f"tpc_rows x{i + 1} = tpc_rows_of(call, {i}, b, narrow{i + 1});"
    fetches = _fetches(loop)
    for i, p in enumerate(loop.products):
        each = " * lanes" if loop.by_lane(p) else ""
        yield f"float *q{i + 1} = call->kept[{i}] ? call->kept[{i}] + b.first{each} : room{i + 1};"
        rows = f"x{p.column + 1}" if p.captured is None or i in loop.given else fetches.pop(0)
        call = f"tpc_products({rows}, latent{(p.captured or 0) + 1}, lanes, q{i + 1});"
        if p.captured is None:
            call = f"tpc_row_products({rows}, x{(p.other or 0) + 1}, q{i + 1});"
        if i in loop.given:
            yield f"if (!call->kept[{i}]) /* too large to keep */"
            call = f"    {call}"
        yield call
    for name, argument in loop.arguments.items():
        array = _array(name, argument, loop)
        if argument.kind == "number":
            where = f"call->columns[{argument.index}][b.segment], b.offset, (int)call->kinds[{argument.index}]"
            yield f"tpc_spread_rows({where}, b.rows, lanes, {array});"
        elif argument.kind == "product" and array != name:
            yield f"tpc_spread_rows({name}, 0, TPC_FLOAT, b.rows, lanes, {array});"
    arrays = ", ".join(_array(name, a, loop) for name, a in loop.arguments.items())
    yield f"{loop.name}_elements(b.rows * lanes, (const float *const[]){{{arrays}}},"
    yield f"{' ' * len(loop.name)}          (float *const[]){{{', '.join(_results(loop))}}});"
    for i, s in enumerate(loop.sums):
        if s.column is None:
            yield f"tpc_sum_weights(w{i + 1}, b.rows, lanes, sum{i + 1});"
        else:
            yield f"tpc_sum({fetches.pop(0)}, w{i + 1}, lanes, sum{i + 1});"


def _fetches(loop: NativeLoop) -> list[str]:
    """The rows that each product and sum reads, with those that the next one needs from memory, if any."""
    columns = [p.column for i, p in enumerate(loop.products) if p.captured is not None and i not in loop.given]
    columns += [s.column for s in loop.sums if s.column is not None]
    found = []
    for position, column in enumerate(columns):
        text = f"x{column + 1}"
        if column in loop.long:
            seen = {*columns[: position + 1]}
            later = [c for c in columns[position + 1 :] if c in loop.long and c not in seen]
            first = next(c for c in columns if c in loop.long)
            text = f"tpc_fetch({text}, call, {later[0]}, b)" if later else f"tpc_fetch({text}, call, {first}, next)"
        found.append(text)
    return found
