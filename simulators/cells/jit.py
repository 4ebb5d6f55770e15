"""The compiler of the simulated cells: numba, with its cache on disk, seen by type checkers.

No fast-math: the same input gives the same bits. Division by zero gives inf, as in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` as machine code: compiled at its first call, then loaded from the cache."""
    jitted = numba.njit(cache=True, error_model="numpy", _nrt=False)(function)
    return cast("Callable[P, R]", jitted)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As ``compiled``, and always copied into its callers."""
    jitted = numba.njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)(function)
    return cast("Callable[P, R]", jitted)
