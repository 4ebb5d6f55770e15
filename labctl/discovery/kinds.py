"""The drivers that labctl has, and what the instruments that they drive can do. Nothing is sent."""

from __future__ import annotations

import inspect

import msgspec

from labctl.clock import RealClock
from labctl.drivers import DRIVERS, build_driver, driver_class, probe_of
from labctl.drivers.base import (
    CHAMBER,
    SEQUENCER,
    SOURCE,
    Capabilities,
    Driver,
)
from labctl.drivers.probe import Wire


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One model, with what its driver says of it. Currents are full scales, ascending."""

    name: str
    techniques: tuple[str, ...] = ()
    voltage_min_V: float | None = None
    voltage_max_V: float | None = None
    currents_A: tuple[float, ...] = ()
    fastest_record_s: float | None = None
    failsafe: str = ""
    outputs: tuple[str, ...] = ()


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One driver. ``role`` is sequencer, source or chamber; ``found_by`` what a scan looks at."""

    driver: str
    about: str
    role: str
    models: tuple[Model, ...]
    found_by: tuple[str, ...]
    options: tuple[str, ...]


def kinds() -> tuple[Kind, ...]:
    """Every driver of the table."""
    return tuple(_kind(name) for name in sorted(DRIVERS))


def _kind(name: str) -> Kind:
    made = driver_class(name)
    probe = probe_of(name)
    module = inspect.getmodule(made)
    drivers = {
        model: build_driver(name, dict(options), name=name, clock=RealClock())
        for model, options in (probe.examples if probe else {}).items()
    }
    found_by: list[str] = []
    if probe is not None:
        if probe.serial:
            found_by.append(str(Wire.SERIAL))
        if probe.visa:
            found_by.append("USB, GPIB")
        found_by += [f"{Wire.TCP} {port}" for port in probe.tcp_ports or ()]
    return Kind(
        driver=name,
        about=((module.__doc__ if module else "") or "").strip().partition("\n")[0].rstrip("."),
        role=_role(made),
        models=tuple(_model(model, driver) for model, driver in drivers.items()),
        found_by=tuple(found_by),
        options=tuple(field.name for field in msgspec.structs.fields(made.Config)),
    )


def _role(made: object) -> str:
    if hasattr(made, "look"):
        return SOURCE
    return SEQUENCER if hasattr(made, "follow") else CHAMBER


def _model(name: str, driver: Driver) -> Model:
    can = getattr(driver, "capabilities", None)
    if not isinstance(can, Capabilities):
        return Model(name=name)
    return Model(
        name=name,
        techniques=tuple(sorted(can.techniques)),
        voltage_min_V=can.voltage_min_V,
        voltage_max_V=can.voltage_max_V,
        currents_A=tuple(sorted(each.full_scale_A for each in can.current_ranges)),
        fastest_record_s=can.fastest_record_s,
        failsafe=str(can.failsafe),
        outputs=tuple(sorted(can.outputs)),
    )
