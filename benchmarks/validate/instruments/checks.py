"""What every script here says: a line for each thing that was tried, ``ok …`` or ``FAILED …``.

Runs in the environment of the foreign program, and needs nothing but Python.
"""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable


class Checks:
    """What was tried, in order; ``packages`` are named with their versions first."""

    def __init__(self, *packages: str) -> None:
        self.failed = 0
        for package in packages:
            print(f"{package} {importlib.metadata.version(package)}", flush=True)

    def check(self, what: str, work: Callable[[], object]) -> None:
        """Try ``work``; an AssertionError or any other error is a failure."""
        try:
            said = work()
        except Exception as error:  # noqa: BLE001
            self.failed += 1
            print(f"FAILED {what}: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"ok {what}" + ("" if said is None else f": {said}"), flush=True)

    def equal(self, what: str, work: Callable[[], object], wanted: object) -> None:
        """``work`` gives just this."""

        def compare() -> object:
            found = work()
            assert found == wanted, f"{found!r} instead of {wanted!r}"
            return found

        self.check(what, compare)

    def close(self, what: str, work: Callable[[], object], wanted: float, within: float) -> None:
        """``work`` gives a number, which is no farther than ``within`` from ``wanted``."""

        def compare() -> str:
            found = float(str(work()))
            assert abs(found - wanted) <= within, f"{found} is not {wanted} within {within}"
            return f"{found:.6g}"

        self.check(what, compare)

    @property
    def code(self) -> int:
        """What the script exits with."""
        return 1 if self.failed else 0


def until(holds: Callable[[], bool], longest_s: float = 30.0) -> None:
    """Ask until it holds.

    Raises:
        TimeoutError: it did not in ``longest_s``.
    """
    over_s = time.monotonic() + longest_s
    while not holds():
        if time.monotonic() > over_s:
            raise TimeoutError(f"not in {longest_s:g} s")
        time.sleep(0.05)
