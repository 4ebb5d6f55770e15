"""The compiler of the simulated cells: numba, with its cache on disk, seen by type checkers.

No fast-math: the same input gives the same bits. Division by zero gives inf, as in numpy. The core
allocates nothing, so that numba need not count references (``_nrt``), which would double its time.
The cache follows the source of the core, not this file: after a change here, delete
``__pycache__/*.nbi``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` as machine code: compiled at its first call, then loaded from the cache."""
    return cast("Callable[P, R]", numba.njit(**OPTIONS)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As ``compiled``, and always copied into its callers."""
    return cast("Callable[P, R]", numba.njit(forceinline=True, **OPTIONS)(function))
