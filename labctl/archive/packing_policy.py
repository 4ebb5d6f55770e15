"""How long raw data stay where they are: what ``[archive]`` in ``labctl.toml`` says of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from labctl.errors import LabctlError
from labctl.kinds import Kind
from labctl.units import QuantityError, parse_quantity

YEAR_S = 365.25 * 86400.0
_YEARS = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:a|y|yr|year|years)")


class PolicyError(LabctlError):
    """A policy that cannot be carried out."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Ages of a run are counted from its end.

    pack_after_s: older runs are packed; None: none is.
    raw_kept_for_s: the samples of older runs, once packed, are deleted; None: never.
    said: how the latter was written.
    """

    pack_after_s: float | None = None
    raw_kept_for_s: float | None = None
    said: str = ""


def policy_of(pack_after: str, raw_kept_for: str) -> Policy:
    """A policy as it is written in a file: ``"90 d"`` and ``"5 years"``; '' for never.

    Raises:
        PolicyError: a text is no time, or samples would be deleted before their run is packed.
    """
    pack_after_s = _age_s("pack_after", pack_after)
    raw_kept_for_s = _age_s("raw_kept_for", raw_kept_for)
    if raw_kept_for_s is not None and (pack_after_s is None or raw_kept_for_s <= pack_after_s):
        raise PolicyError(
            "raw_kept_for must be longer than pack_after: only the samples of packed runs are "
            "deleted"
        )
    return Policy(pack_after_s, raw_kept_for_s, raw_kept_for)


def age_s(text: str) -> float:
    """A time above 0 in seconds: ``90 d``, ``12 weeks``, ``5 years`` (of 365.25 days).

    Raises:
        PolicyError: it is not.
    """
    years = _YEARS.fullmatch(text.strip())
    try:
        found = float(years[1]) * YEAR_S if years else parse_quantity(text, Kind.DURATION)
    except QuantityError as error:
        raise PolicyError(f"{text!r} is no time: write 90 d or 5 years ({error})") from error
    if not found > 0:
        raise PolicyError(f"{text!r} is not above 0")
    return found


def _age_s(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        return age_s(text)
    except PolicyError as error:
        raise PolicyError(f"{name}: {error}") from error
