"""What generated code of the native backend calls: numpy_runtime, with products of matrices and few samples in C."""

from backends import native_dense
from backends.numpy_runtime import *  # noqa: F403  # all of it, with these four in C

accumulate = native_dense.accumulate
matmul = native_dense.matmul
matvecs = native_dense.matvecs
vecmats = native_dense.vecmats
