"""Neware step files (type "Step File", version 17): what a channel runs, as XML.

Units in the file, and how exactly they are kept: :mod:`labctl.drivers.neware_bts.fileunits`. The
values, and how far the format is known: :mod:`labctl.drivers.neware_bts.steps`.

Sources: the writers in aurora-unicycler and neware-utils, and files saved by BTS Client 8.0 that
are quoted in public projects. Head_Info/Scale is written as 1.
"""

from __future__ import annotations

import re
from decimal import Decimal
from xml.sax.saxutils import quoteattr

from labctl.drivers.neware_bts.conditions import read_conditions, written_conditions
from labctl.drivers.neware_bts.fileunits import (
    AMPERE,
    AMPERE_HOUR,
    OHM,
    ONE,
    SECOND,
    UNSCALED,
    VOLT,
    VOLT_PER_SECOND,
    WATT,
    Unit,
    read_value,
    written,
)
from labctl.drivers.neware_bts.steps import (
    RESISTANCE_TAG,
    Condition,
    FileStep,
    Jump,
    Protection,
    RecordConditions,
    StepFile,
    StepType,
    Sweep,
)
from labctl.drivers.neware_bts.xmltree import Element, XmlError, parse_xml
from labctl.errors import InstrumentError

__all__ = [
    "Condition",
    "FileStep",
    "Jump",
    "Protection",
    "RecordConditions",
    "StepFile",
    "StepType",
    "Sweep",
    "read_step_file",
    "write_step_file",
]

CLIENT_VERSION = "BTS Client 8.0.0.478(2024.06.24)(R3)"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPED = {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}

# In <Limit><Main>: field of FileStep, name in the file, unit.
_LIMITS: tuple[tuple[str, str, Unit], ...] = (
    ("current_A", "Curr", AMPERE),
    ("power_W", "Pow", WATT),
    ("resistance_ohm", RESISTANCE_TAG, OHM),
    ("voltage_V", "Volt", VOLT),
    ("time_s", "Time", SECOND),
    ("stop_voltage_V", "Stop_Volt", VOLT),
    ("stop_current_A", "Stop_Curr", AMPERE),
    ("stop_capacity_Ah", "Cap", AMPERE_HOUR),
)
_LOOP = (("start_step", "Start_Step"), ("cycle_count", "Cycle_Count"))
_RECORDS: tuple[tuple[str, str, Unit], ...] = (
    ("time_s", "Time", SECOND),
    ("voltage_change_V", "Volt", VOLT),
    ("current_change_A", "Curr", AMPERE),
)
_PROTECTIONS: tuple[tuple[str, tuple[str, ...], Unit], ...] = (
    ("voltage_upper_V", ("Volt", "Upper"), VOLT),
    ("voltage_lower_V", ("Volt", "Lower"), VOLT),
    ("current_upper_A", ("Curr", "Upper"), AMPERE),
    ("current_lower_A", ("Curr", "Lower"), AMPERE),
    ("delay_s", ("Delay_Time",), SECOND),
    ("capacity_upper_Ah", ("Cap", "Upper"), AMPERE_HOUR),
)


def write_step_file(file: StepFile) -> bytes:
    """The file as UTF-8 XML; :func:`read_step_file` of it is equal to ``file``.

    Raises:
        ValueError: a number that is not finite, a text that XML cannot carry, or steps that are not
            numbered 1, 2, 3 in their order.
    """
    about_file = f"date={_quoted(file.date)} Guid={_quoted(file.guid)}"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<root>",
        f'  <config type="Step File" version="17" client_version="{CLIENT_VERSION}" {about_file}>',
        "    <Head_Info>",
        '      <Operate Value="66" />',
        '      <Scale Value="1" />',
        '      <Start_Step Value="1" Hide_Ctrl_Step="0" />',
        f"      <Creator Value={_quoted(file.creator)} />",
        f"      <Remark Value={_quoted(file.remark)} />",
        '      <RateType Value="103" />',
        "    </Head_Info>",
        "    <Whole_Prt>",
        *_written_protection(file.protection, "      "),
        *_written_record(file.record, "      "),
        "    </Whole_Prt>",
        f'    <Step_Info Num="{len(file.steps)}">',
    ]
    for place, step in enumerate(file.steps, start=1):
        if step.number != place:
            raise ValueError(f"step {step.number} of a step file stands in place {place}")
        lines += _written_step(step)
    lines += [
        "    </Step_Info>",
        "    <SMBUS>",
        '      <SMBUS_Info Num="0" AdjacentInterval="0" />',
        "    </SMBUS>",
        "  </config>",
        "</root>",
        "",
    ]
    return "\n".join(lines).encode("utf-8")


def read_step_file(data: bytes, *, name: str = "") -> StepFile:
    """What a step file says; elements that labctl has no use for are passed over.

    ``name`` stands in errors for the file.

    Raises:
        InstrumentError: not XML, with a DOCTYPE, not a step file, cut off, with a step of a type
            that is not known here, or with a value that is no number.
    """
    try:
        return _read(parse_xml(data))
    except XmlError as error:
        place = f", line {error.line}" if error.line else ""
        raise InstrumentError(
            f"step file {name or '(no name)'}{place}: {error}",
            reply=data[:200].decode("utf-8", "replace"),
        ) from error


def _read(root: Element) -> StepFile:
    config = root if root.tag == "config" else root.find("config")
    if config is None or config.attributes.get("type") != "Step File":
        raise XmlError('there is no <config type="Step File">: this is no step file', root.line)
    scale = _read_number(config.find("Head_Info", "Scale"), ONE)
    if scale is not None and scale <= 0:
        raise XmlError(f"<Scale> is {scale:g}, it must be above 0", config.line)
    scale_factor = Decimal(repr(scale or 1.0))
    step_info = config.find("Step_Info")
    if step_info is None:
        raise XmlError("there is no <Step_Info>", config.line)
    number_of_steps = step_info.attributes.get("Num", str(len(step_info.children)))
    if number_of_steps.strip() != str(len(step_info.children)):
        raise XmlError(
            f"<Step_Info> announces {number_of_steps} steps and holds {len(step_info.children)}",
            step_info.line,
        )
    whole_prt = config.find("Whole_Prt")
    return StepFile(
        steps=tuple(
            _read_step(element, place, scale_factor)
            for place, element in enumerate(step_info.children, start=1)
        ),
        protection=_read_protection(whole_prt, scale_factor) or Protection(),
        record=_read_record(whole_prt, scale_factor) or RecordConditions(),
        creator=_read_text(config.find("Head_Info", "Creator")),
        remark=_read_text(config.find("Head_Info", "Remark")),
        date=config.attributes.get("date", ""),
        guid=config.attributes.get("Guid", ""),
    )


def _read_step(element: Element, place: int, scale: Decimal) -> FileStep:
    number = element.attributes.get("Step_ID", "").strip()
    if element.tag != f"Step{place}" or number != str(place):
        raise XmlError(
            f"step {place} is expected here, not <{element.tag} Step_ID={number!r}>", element.line
        )
    type_text = element.attributes.get("Step_Type", "").strip()
    try:
        step_type = StepType(int(type_text))
    except ValueError:
        raise XmlError(
            f"step {place} has type {type_text!r}, which is not known here", element.line
        ) from None
    main = element.find("Limit", "Main")
    other = element.find("Limit", "Other")
    numbers: dict[str, float | None] = {}
    for field_name, tag, unit in _LIMITS:
        numbers[field_name] = _read_number(main.find(tag) if main else None, unit, scale)
    return FileStep(
        number=place,
        type=step_type,
        **numbers,
        start_step=_read_count(other.find("Start_Step") if other else None),
        cycle_count=_read_count(other.find("Cycle_Count") if other else None),
        record=_read_record(element, scale),
        protection=_read_protection(element, scale),
        sweep=_read_sweep(element.find("Limit", "Slope")),
        conditions=read_conditions(other, scale) if other else (),
    )


def _read_sweep(slope: Element | None) -> Sweep | None:
    if slope is None:
        return None
    leg = slope.find("Slope1")
    if leg is None or len(slope.children) != 1:
        raise XmlError(f"<Slope> has {len(slope.children)} legs, one is known here", slope.line)
    return Sweep(
        from_V=(
            read_value(leg, VOLT, attribute="StartValue")
            if "StartValue" in leg.attributes
            else None
        ),
        to_V=read_value(leg, VOLT, attribute="EndValue"),
        rate_V_per_s=read_value(leg, VOLT_PER_SECOND),
    )


def _read_protection(parent: Element | None, scale: Decimal) -> Protection | None:
    protect = parent.find("Protect") if parent else None
    if protect is None:
        return None
    main = protect.find("Main")
    numbers: dict[str, float | None] = {}
    for field_name, path, unit in _PROTECTIONS:
        numbers[field_name] = _read_number(main.find(*path) if main else None, unit, scale)
    return Protection(**numbers)


def _read_record(parent: Element | None, scale: Decimal) -> RecordConditions | None:
    record = parent.find("Record") if parent else None
    if record is None:
        return None
    main = record.find("Main")
    numbers: dict[str, float | None] = {}
    for field_name, tag, unit in _RECORDS:
        numbers[field_name] = _read_number(main.find(tag) if main else None, unit, scale)
    return RecordConditions(**numbers)


def _read_number(element: Element | None, unit: Unit, scale: Decimal = UNSCALED) -> float | None:
    return None if element is None else read_value(element, unit, scale)


def _read_count(element: Element | None) -> int | None:
    if element is None:
        return None
    text = element.attributes.get("Value", "").strip()
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise XmlError(f"<{element.tag}> is {text[:40]!r}, which is no count", element.line)
    return int(text)


def _read_text(element: Element | None) -> str:
    return "" if element is None else element.attributes.get("Value", "")


def _written_step(step: FileStep) -> list[str]:
    main = [
        f'            <{tag} Value="{written(value, unit)}" />'
        for field_name, tag, unit in _LIMITS
        if (value := getattr(step, field_name)) is not None
    ]
    other = [
        f'            <{tag} Value="{value:d}" />'
        for field_name, tag in _LOOP
        if (value := getattr(step, field_name)) is not None
    ]
    other += [f"            {line}" for line in written_conditions(step.conditions)]
    inside: list[str] = []
    if main or other or step.sweep is not None:
        inside.append("        <Limit>")
        if main:
            inside += ["          <Main>", *main, "          </Main>"]
        if step.sweep is not None:
            inside += [f"          {line}" for line in _written_sweep(step.sweep)]
        if other:
            count = f' CndCount="{len(step.conditions)}"' if step.conditions else ""
            inside += [f"          <Other{count}>", *other, "          </Other>"]
        inside.append("        </Limit>")
    if step.protection is not None:
        inside += _written_protection(step.protection, "        ")
    if step.record is not None:
        inside += _written_record(step.record, "        ")
    head = f'      <Step{step.number} Step_ID="{step.number}" Step_Type="{int(step.type)}"'
    return [f"{head}>", *inside, f"      </Step{step.number}>"] if inside else [f"{head} />"]


def _written_sweep(sweep: Sweep) -> list[str]:
    start = "" if sweep.from_V is None else f'StartValue="{written(sweep.from_V, VOLT)}" '
    rate = written(sweep.rate_V_per_s, VOLT_PER_SECOND)
    return [
        '<Slope SlopeType="1" Cycle_Count="1" ItemCount="1">',
        f'  <Slope1 {start}EndValue="{written(sweep.to_V, VOLT)}" Value="{rate}" />',
        "</Slope>",
    ]


def _written_protection(protection: Protection, indent: str) -> list[str]:
    groups: dict[str, list[str]] = {}
    for field_name, path, unit in _PROTECTIONS:
        if (value := getattr(protection, field_name)) is not None:
            line = f'<{path[-1]} Value="{written(value, unit)}" />'
            groups.setdefault(path[0], []).append(line)
    lines = [f"{indent}<Protect>", f"{indent}  <Main>"]
    for group, inside in groups.items():
        if group == "Delay_Time":
            lines += [f"{indent}    {line}" for line in inside]
        else:
            lines += [
                f"{indent}    <{group}>",
                *(f"{indent}      {line}" for line in inside),
                f"{indent}    </{group}>",
            ]
    return [*lines, f"{indent}  </Main>", f"{indent}</Protect>"]


def _written_record(record: RecordConditions, indent: str) -> list[str]:
    return [
        f"{indent}<Record>",
        f"{indent}  <Main>",
        *(
            f'{indent}    <{tag} Value="{written(value, unit)}" />'
            for field_name, tag, unit in _RECORDS
            if (value := getattr(record, field_name)) is not None
        ),
        f"{indent}  </Main>",
        f"{indent}</Record>",
    ]


def _quoted(text: str) -> str:
    if _NOT_XML.search(text):
        raise ValueError(f"{text!r} holds a character that XML cannot carry")
    return quoteattr(text, _ESCAPED)
