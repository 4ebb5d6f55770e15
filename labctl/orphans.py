"""Child processes that die with their parent: nothing is left to hold a port or a journal."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(how: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """A ``preexec_fn``: the child gets the signal ``how`` when the thread that made it is gone.

    Linux only, prctl(2) PR_SET_PDEATHSIG; elsewhere it does nothing. A child that changes its user
    afterwards loses it.
    """
    parent = os.getpid()

    def in_the_child() -> None:
        if hasattr(_libc, "prctl"):
            _libc.prctl(_PR_SET_PDEATHSIG, how)
            if os.getppid() != parent:
                os._exit(1)

    return in_the_child
