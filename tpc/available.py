"""How much memory this process may still take: physical memory, control groups, the address space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 1 << 60  # what version 1 of control groups writes for "no limit" is above


@dataclass(frozen=True)
class Available:
    """Bytes that can still be taken, and what sets that limit."""

    bytes: int
    limit: str


def available(root: Path = Path("/")) -> Available | None:
    """The least of all limits that are known, None where none is.

    Files kept in memory for speed count as free: the kernel drops them first. `root` is where proc and sys are.
    """
    found = [*_physical(root), *_groups(root), *_address_space(root)]
    return min(found, key=lambda a: a.bytes, default=None)


def _physical(root: Path) -> Iterator[Available]:
    free = _fields(root / "proc/meminfo").get("MemAvailable")
    if free is not None:
        yield Available(free * 1024, "free memory of the machine")


def _groups(root: Path) -> Iterator[Available]:
    """The control group of this process and those it lies in, of either version."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            base, limit, used, prefix = root / "sys/fs/cgroup", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            base, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            prefix = "total_"
        else:
            continue
        place = Path(path.lstrip("/"))
        for folder in (base / place, *(base / p for p in place.parents)):
            most, taken = _number(folder / limit), _number(folder / used)
            if most is not None and taken is not None and most < UNLIMITED:
                kept = _fields(folder / "memory.stat")
                files = sum(kept.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
                yield Available(max(0, most - max(0, taken - files)), "memory limit of the control group")


def _address_space(root: Path) -> Iterator[Available]:
    try:
        import resource
    except ImportError:  # not a Unix
        return
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = _fields(root / "proc/self/status").get("VmSize")
    if most != resource.RLIM_INFINITY and taken is not None:
        yield Available(max(0, most - taken * 1024), "limit of the address space (ulimit -v)")


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file with a name and a number in each line."""
    words = [line.replace(":", " ").split() for line in _text(path).splitlines()]
    return {w[0]: int(w[1]) for w in words if len(w) > 1 and w[1].isdigit()}


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
