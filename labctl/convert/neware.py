"""Neware step files (XML): currents in amperes, so they are of one cell; rates come by its mass.

The direction of a loop is back: a CYCLE step runs its block ``cycle_count`` times in all.
"""

from __future__ import annotations

import math
from typing import Final

from labctl.convert.parts import left_out
from labctl.convert.told import (
    Converted,
    Told,
    ToldRecipe,
    Unrolled,
    Value,
    amount,
    cannot,
    write_recipe,
)
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.stepfile import (
    FileStep,
    Protection,
    RecordConditions,
    StepFile,
    StepType,
    read_step_file,
    write_step_file,
)
from labctl.drivers.neware_bts.translate import translate
from labctl.errors import InstrumentError, PlanError
from labctl.program import Program
from labctl.units import Kind


def to_neware(program: Program) -> Converted:
    """The program as a step file for the channel that labctl takes where none is configured.

    Raises:
        ConversionError: with every reason why BTS could not run it.
    """
    channel = NewareConfig(host="localhost", step_file_dir=".").capabilities
    try:
        translation = translate(
            program, channel, temperature_watched_elsewhere=True, remark=program.name
        )
    except PlanError as error:
        raise cannot(*error.refusals) from error
    lost = left_out(program, limits=False, records=False)
    if math.isfinite(program.limits.temperature_max_degC):
        lost.append("the temperature limits")
    lost.append("the longest duration of the whole run")
    return Converted(write_step_file(translation.file).decode(), tuple(lost))


_CURRENT: Final = {StepType.CC_CHARGE: "charge", StepType.CC_DISCHARGE: "discharge"}
_BOTH: Final = {StepType.CCCV_CHARGE: "charge", StepType.CCCV_DISCHARGE: "discharge"}
_VOLTAGE: Final = {StepType.CV_CHARGE: "charge", StepType.CV_DISCHARGE: "discharge"}
_UNUSED: Final = ("conditions", "slope", "jumps", "others")


def from_neware(data: bytes, name: str) -> Converted:
    """A recipe out of a step file, in milliamperes as it is written there.

    Raises:
        ConversionError: the file is no step file, or has steps that a recipe cannot say.
    """
    try:
        file = read_step_file(data, name=name)
    except InstrumentError as error:
        raise cannot(str(error)) from error
    told = Unrolled()
    problems: list[str] = []
    for step in file.steps:
        if step.type is StepType.CYCLE:
            told.again(step.number, step.start_step or 1, step.cycle_count or 1)
        elif step.type is StepType.END:
            break
        else:
            found = _step(step, file)
            if isinstance(found, str):
                problems.append(f"step {step.number}: {found}")
            else:
                told.add(step.number, found)
    if problems:
        raise cannot(*problems)
    recipe = ToldRecipe(
        name=file.remark or name,
        about="From a Neware step file.",
        body=told.body(),
        limits=_limits(file.protection),
        record=_record(file.record),
    )
    lost = ["rates: the file has amperes, which are right for one mass alone"]
    if file.protection.delay_s:
        lost.append("the delay of the protections: here they act at once")
    if any(step.protection is not None for step in file.steps):
        lost.append("the protections of single steps")
    return Converted(write_recipe(recipe), tuple(lost))


def _step(step: FileStep, file: StepFile) -> Told | str:
    keys: dict[str, Value] = {}
    time = "" if step.time_s is None else amount(step.time_s, Kind.DURATION)
    ends: list[str] = []
    if step.stop_capacity_Ah is not None:
        ends.append(amount(step.stop_capacity_Ah, Kind.CHARGE))
    if any(getattr(step, extra, None) for extra in _UNUSED):
        return "it has extra conditions that jump, which a recipe says as branches: write them"
    if step.type is StepType.REST:
        if not time:
            return "a rest without a time"
        keys["for"] = time
        word = "rest"
    elif step.type in _CURRENT or step.type in _BOTH:
        word = _CURRENT.get(step.type) or _BOTH[step.type]
        if step.current_A is None:
            return "it has no current"
        keys["at"] = amount(step.current_A, Kind.CURRENT)
        stop_V = step.voltage_V if step.type in _BOTH else step.stop_voltage_V
        if stop_V is not None:
            ends.insert(0, amount(stop_V, Kind.VOLTAGE))
        if step.type in _BOTH:
            if stop_V is None or step.stop_current_A is None:
                return "it has no voltage to hold, or no current that ends it"
            keys["hold_until"] = amount(step.stop_current_A, Kind.CURRENT)
    elif step.type in _VOLTAGE:
        word = "hold"
        if step.voltage_V is None:
            return "it has no voltage"
        keys["voltage"] = amount(step.voltage_V, Kind.VOLTAGE)
        keys["direction"] = _VOLTAGE[step.type]
        if step.current_A is not None:
            keys["max_current"] = amount(step.current_A, Kind.CURRENT)
        if step.stop_current_A is not None:
            ends.insert(0, amount(step.stop_current_A, Kind.CURRENT))
    else:
        return f"its type {step.type.name} is nothing that is converted"
    if word != "rest":
        if ends:
            keys["until"] = ends if len(ends) > 1 else ends[0]
        if time:
            keys["at_most" if ends else "for"] = time
    if step.record is not None and step.record != file.record:
        keys["record"] = {key: str(value) for key, value in _record(step.record).items()}
    return Told(word, keys)


def _limits(protection: Protection) -> dict[str, Value]:
    limits: dict[str, Value] = {}
    low, high = protection.voltage_lower_V, protection.voltage_upper_V
    if low is not None and high is not None:
        limits["voltage"] = f"{amount(low, Kind.VOLTAGE)} .. {amount(high, Kind.VOLTAGE)}"
    low, high = protection.current_lower_A, protection.current_upper_A
    if low is not None and high is not None and low < 0 < high:
        limits["current"] = f"{amount(low, Kind.CURRENT)} .. {amount(high, Kind.CURRENT)}"
    if protection.capacity_upper_Ah is not None:
        limits["step charge"] = amount(protection.capacity_upper_Ah, Kind.CHARGE)
    return limits


def _record(rule: RecordConditions) -> dict[str, Value]:
    record: dict[str, Value] = {}
    if rule.time_s is not None:
        record["every"] = amount(rule.time_s, Kind.DURATION)
    if rule.voltage_change_V is not None:
        record["voltage_change"] = amount(rule.voltage_change_V, Kind.VOLTAGE)
    if rule.current_change_A is not None:
        record["current_change"] = amount(rule.current_change_A, Kind.CURRENT)
    return record
