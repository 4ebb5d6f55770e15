"""Addresses that messages for people go to."""

from __future__ import annotations

import hashlib
import logging
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from labctl.errors import ConfigError, Problem

ANSWER_S: Final = 20.0
"""So long an address may take to answer, unless it says otherwise (``rto=``). One that has taken a
message and is given up too early gets it again."""
_LONGEST_PROBLEM: Final = 300


class Sender(Protocol):
    """Something that takes a message to people."""

    def __call__(self, *, title: str, body: str, priority: str) -> str:
        """Deliver; gives what went wrong, '' for nothing. May take its time."""
        ...


class AppriseSender:
    """One address of the apprise library.

    Raises:
        ConfigError: the library is not there, or does not know such an address.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        kind = url.split(":", 1)[0]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                import apprise

                self._apprise = apprise.Apprise()
                known = self._apprise.add(url)
        except ImportError as error:
            raise ConfigError(
                [
                    Problem(
                        "[notifications] needs the apprise library",
                        suggestion="pip install 'labctl[notifications]'",
                    )
                ]
            ) from error
        if not known:
            raise ConfigError(
                [
                    Problem(
                        f"[notifications] the address {kind}:… is not understood",
                        suggestion="the apprise library's documentation says how each is written",
                    )
                ]
            )
        if "rto=" not in url:
            for service in self._apprise:
                service.socket_read_timeout = ANSWER_S
        self.name = kind

    def __call__(self, *, title: str, body: str, priority: str) -> str:
        """See :class:`Sender`."""
        import apprise

        kind = {"high": apprise.NotifyType.FAILURE, "low": apprise.NotifyType.INFO}.get(
            priority, apprise.NotifyType.WARNING
        )
        capture: Any = apprise.LogCapture
        with capture(level=logging.WARNING, fmt="%(message)s") as said:
            done = self._apprise.notify(title=title, body=body, notify_type=kind)
            problem = said.getvalue().strip().replace(self._url, "…")
        return "" if done else (problem.splitlines() or ["it was not taken"])[-1][:_LONGEST_PROBLEM]


def senders_of(urls: Sequence[str]) -> dict[str, AppriseSender]:
    """A sender for each address, by what stands for it in the database: a digest, for addresses
    have passwords in them.

    Raises:
        ConfigError: see :class:`AppriseSender`.
    """
    return {digest_of(url): AppriseSender(url) for url in urls}


def digest_of(url: str) -> str:
    """What stands for an address in the database."""
    return hashlib.sha256(url.encode()).hexdigest()[:12]


def ask_for(url: str, timeout_s: float = 10.0) -> str:
    """Ask an address of HTTP; gives what went wrong, '' for nothing."""
    try:
        # The configuration has seen to it that this is HTTP.
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310
            answer.read(1000)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


def guarded(send: Callable[[], str]) -> str:
    """What ``send`` gives, or what it raised."""
    try:
        return send()
    except Exception as error:  # noqa: BLE001 - whatever a library for a hundred services raises
        return f"{type(error).__name__}: {error}"[:_LONGEST_PROBLEM]
