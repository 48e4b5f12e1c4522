"""Arrays that are as strict as CuPy's: they never turn into NumPy arrays by themselves, nor mix with them.

Only functions that CuPy has exist, a single number of an array is an array, and what comes from the host says so.
"""

from __future__ import annotations

import cupy
import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

FROM_HOST = ("asarray", "array", "ascontiguousarray")


class DeviceArray(NDArrayOperatorsMixin):
    """An array that pretends to lie on a device; `on_host` is what it holds."""

    def __init__(self, on_host):
        self.on_host = on_host

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion of a device array to a NumPy array")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return wrapped(getattr(ufunc, method)(*map(unwrapped, inputs), **unwrapped(options)), options.get("out"))

    def __array_function__(self, function, _types, args, options):
        return call(function, args, options)

    def __getitem__(self, key):
        return DeviceArray(np.asarray(self.on_host[unwrapped(key)]))

    def __setitem__(self, key, value):
        self.on_host[unwrapped(key)] = unwrapped(value)

    def __len__(self):
        return len(self.on_host)

    def __float__(self):
        return float(self.on_host)

    def __bool__(self):
        return bool(self.on_host)

    def __getattr__(self, name):
        if name.startswith("__") or not hasattr(cupy.ndarray, name):
            raise AttributeError(name)
        found = getattr(self.on_host, name)
        if callable(found):
            return lambda *args, **options: call(found, args, options)
        return wrapped(found) if isinstance(found, np.ndarray) else found


def unwrapped(x):
    """What a device array holds, in tuples, lists and dictionaries too; arrays of the host have no place there."""
    if isinstance(x, DeviceArray):
        return x.on_host
    if isinstance(x, np.ndarray) and x.ndim:
        raise TypeError("a NumPy array among device arrays")
    if isinstance(x, tuple | list):
        return type(x)(map(unwrapped, x))
    return {key: unwrapped(value) for key, value in x.items()} if isinstance(x, dict) else x


def wrapped(result, out=None):
    """A result as a device array; the array that it was written to, if any."""
    target = out[0] if isinstance(out, tuple) else out
    if target is not None:
        return target
    return DeviceArray(np.asarray(result)) if isinstance(result, np.ndarray | np.generic) else result


def call(function, args, options):
    return wrapped(function(*map(unwrapped, args), **unwrapped(options)), options.get("out"))


class ArrayLibrary:
    """NumPy's functions, those that CuPy has too, on device arrays."""

    def __getattr__(self, name):
        if not hasattr(cupy, name):
            raise AttributeError(f"CuPy has no {name}")
        function = getattr(np, name)

        def run(*args, **options):
            if name in FROM_HOST and isinstance(args[0], np.ndarray):
                return DeviceArray(np.array(function(args[0], *args[1:], **options)))
            return call(function, args, options)

        return run
