"""Drivers: one module an instrument, one line in DRIVERS."""

from __future__ import annotations

import difflib
import importlib
from typing import Protocol

import msgspec

from labctl.clock import Clock
from labctl.drivers.base import Sequencer
from labctl.drivers.probe import Probe
from labctl.errors import ConfigError, Problem

DRIVERS: dict[str, str] = {
    "neware_bts": "labctl.drivers.neware_bts.driver:NewareBts",
    "keithley": "labctl.drivers.keithley.driver:Keithley",
    "palmsens": "labctl.drivers.palmsens.driver:PalmSens",
    "rodeostat": "labctl.drivers.rodeostat.driver:Rodeostat",
    "espec": "labctl.drivers.espec.driver:Espec",
}
"""Kind of instrument, as a configuration names it, and where its class is.

The class has ``Config``, a msgspec Struct of its options, and is made from one of those with the
instrument's name and the clock. It is imported when it is first needed.
"""

PROBES: dict[str, str] = {
    "keithley": "labctl.drivers.keithley.identify:PROBE",
    "palmsens": "labctl.drivers.palmsens.identify:PROBE",
    "espec": "labctl.drivers.espec.identify:PROBE",
    "rodeostat": "labctl.drivers.rodeostat.identify:PROBE",
    "neware_bts": "labctl.drivers.neware_bts.identify:PROBE",
}
"""How each kind of instrument is found, and where that is: see :mod:`labctl.drivers.probe`.

Asked in this order where nothing tells which it may be: the most general question first. A kind
without a line here can be used, and not found.
"""


class DriverClass(Protocol):
    """What the table names; a driver may be a source or a chamber as well."""

    Config: type[msgspec.Struct]

    def __call__(self, config: msgspec.Struct, /, *, name: str, clock: Clock) -> Sequencer: ...


def probe_of(kind: str) -> Probe | None:
    """How a kind of instrument is found; None if it cannot be."""
    place = PROBES.get(kind)
    if place is None:
        return None
    module, _, name = place.partition(":")
    found: Probe = getattr(importlib.import_module(module), name)
    return found


def build_driver(kind: str, options: dict[str, object], *, name: str, clock: Clock) -> Sequencer:
    """The driver of an instrument, not yet connected. No I/O.

    Raises:
        ConfigError: there is no such kind, or an option is unknown, missing or wrong.
    """
    driver = driver_class(kind, name=name)
    return driver(_checked(driver.Config, options, name), name=name, clock=clock)


def checked_options(kind: str, options: dict[str, object], *, name: str) -> msgspec.Struct:
    """The options of an instrument with what is left out filled in. No I/O.

    Raises:
        ConfigError: as :func:`build_driver`.
    """
    return _checked(driver_class(kind, name=name).Config, options, name)


def driver_class(kind: str, *, name: str = "") -> DriverClass:
    """The class of a kind of instrument; ``name`` is the instrument that it is wanted for.

    Raises:
        ConfigError: there is no such kind.
    """
    place = DRIVERS.get(kind)
    if place is None:
        raise ConfigError(
            [
                Problem(
                    f"instrument {name!r}: there is no driver {kind!r}",
                    suggestion=_suggestion(kind, list(DRIVERS)),
                )
            ]
        )
    module, _, class_name = place.partition(":")
    found: DriverClass = getattr(importlib.import_module(module), class_name)
    return found


def _checked(config: type[msgspec.Struct], options: dict[str, object], name: str) -> msgspec.Struct:
    known = {field.name: field for field in msgspec.structs.fields(config)}
    problems = [
        Problem(
            f"instrument {name!r}: there is no option {key!r}",
            suggestion=_suggestion(str(key), list(known)),
        )
        for key in options
        if key not in known
    ]
    problems += [
        Problem(f"instrument {name!r}: the option {key!r} is missing")
        for key, field in known.items()
        if field.required and key not in options
    ]
    for key, field in known.items():
        if key in options:
            try:
                msgspec.convert(options[key], field.type)
            except msgspec.ValidationError as error:
                problems.append(Problem(f"instrument {name!r}: the option {key!r}: {error}"))
    if problems:
        raise ConfigError(problems)
    try:
        return msgspec.convert(options, config)
    except msgspec.ValidationError as error:
        raise ConfigError([Problem(f"instrument {name!r}: {error}")]) from error


def _suggestion(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(known)}"
