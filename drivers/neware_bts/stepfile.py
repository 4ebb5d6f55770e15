"""Neware step files (type "Step File", version 17): what a channel runs, as XML.

Units in the file: voltage 0.1 mV, current mA, time ms, capacity mA s (mAh * 3600); here SI and Ah.
Currents in a step are magnitudes: the step's type says the direction. Conversion is decimal, so
that a file read back gives exactly the numbers that were written.

No vendor document of the format is public. Sources: the writers in aurora-unicycler and
neware-utils, and files saved by BTS Client 8.0 that are quoted in public projects. Head_Info/Scale
multiplies currents and capacities in files of the vendor's window; here it is written as 1.
"""

from __future__ import annotations

import decimal
import enum
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from xml.sax.saxutils import quoteattr

from labctl.drivers.neware_bts.xmltree import Element, XmlError, parse_xml
from labctl.errors import InstrumentError

CLIENT_VERSION = "BTS Client 8.0.0.478(2024.06.24)(R3)"

_EXACT = decimal.Context(prec=60, Emax=999_999, Emin=-999_999)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPED = {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
_LONGEST_NUMBER = 400


class StepType(enum.IntEnum):
    CC_CHARGE = 1
    CC_DISCHARGE = 2
    CV_CHARGE = 3
    REST = 4
    CYCLE = 5
    END = 6
    CCCV_CHARGE = 7
    PAUSE = 13
    CV_DISCHARGE = 19
    CCCV_DISCHARGE = 20


@dataclass(frozen=True, slots=True)
class Protection:
    """Passing any of these ends the test in state ``protect``; None is off. Currents signed."""

    voltage_upper_V: float | None = None
    voltage_lower_V: float | None = None
    current_upper_A: float | None = None
    current_lower_A: float | None = None
    capacity_upper_Ah: float | None = None
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class RecordConditions:
    """A record is made when any is reached; None is off."""

    time_s: float | None = None
    voltage_change_V: float | None = None
    current_change_A: float | None = None


@dataclass(frozen=True, slots=True)
class FileStep:
    """One ``<StepN>``; ``number`` counts from 1. Only what its type uses is not None.

    A CYCLE step goes back to ``start_step`` until the block has run ``cycle_count`` times in all.
    """

    number: int
    type: StepType
    current_A: float | None = None
    voltage_V: float | None = None
    time_s: float | None = None
    stop_voltage_V: float | None = None
    stop_current_A: float | None = None
    stop_capacity_Ah: float | None = None
    start_step: int | None = None
    cycle_count: int | None = None
    record: RecordConditions | None = None
    protection: Protection | None = None


@dataclass(frozen=True, slots=True)
class StepFile:
    """A whole file. ``remark`` carries labctl's run id.

    ``date`` is ``YYYYMMDDHHMMSS`` in the host's time; ``guid`` tells two files apart to BTS.
    """

    steps: tuple[FileStep, ...]
    protection: Protection
    record: RecordConditions
    creator: str = "labctl"
    remark: str = ""
    date: str = ""
    guid: str = ""


@dataclass(frozen=True, slots=True)
class _Unit:
    """``factor`` units of the file in one of ours; ``scaled`` if Head_Info/Scale multiplies it."""

    factor: Decimal
    scaled: bool = False


_V = _Unit(Decimal(10_000))
_A = _Unit(Decimal(1_000), scaled=True)
_S = _Unit(Decimal(1_000))
_AH = _Unit(Decimal(3_600_000), scaled=True)
_ONE = _Unit(Decimal(1))

# In <Limit><Main>: field of FileStep, name in the file, unit.
_LIMITS: tuple[tuple[str, str, _Unit], ...] = (
    ("current_A", "Curr", _A),
    ("voltage_V", "Volt", _V),
    ("time_s", "Time", _S),
    ("stop_voltage_V", "Stop_Volt", _V),
    ("stop_current_A", "Stop_Curr", _A),
    ("stop_capacity_Ah", "Cap", _AH),
)
_LOOP = (("start_step", "Start_Step"), ("cycle_count", "Cycle_Count"))
_RECORDS: tuple[tuple[str, str, _Unit], ...] = (
    ("time_s", "Time", _S),
    ("voltage_change_V", "Volt", _V),
    ("current_change_A", "Curr", _A),
)
_PROTECTIONS: tuple[tuple[str, tuple[str, ...], _Unit], ...] = (
    ("voltage_upper_V", ("Volt", "Upper"), _V),
    ("voltage_lower_V", ("Volt", "Lower"), _V),
    ("current_upper_A", ("Curr", "Upper"), _A),
    ("current_lower_A", ("Curr", "Lower"), _A),
    ("delay_s", ("Delay_Time",), _S),
    ("capacity_upper_Ah", ("Cap", "Upper"), _AH),
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
    scale = _read_number(config.find("Head_Info", "Scale"), _ONE)
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


def _read_number(element: Element | None, unit: _Unit, scale: Decimal = Decimal(1)) -> float | None:
    if element is None:
        return None
    text = element.attributes.get("Value", "").strip()
    if len(text) > _LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        raise XmlError(f"<{element.tag}> is {text[:40]!r}, which is no number", element.line)
    factor = _EXACT.multiply(unit.factor, scale) if unit.scaled else unit.factor
    value = float(_EXACT.divide(Decimal(text), factor))
    if not math.isfinite(value):
        raise XmlError(f"<{element.tag}> is {text[:40]}, which is too large", element.line)
    return value


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
        f"            <{tag} Value={_written_number(value, unit)} />"
        for field_name, tag, unit in _LIMITS
        if (value := getattr(step, field_name)) is not None
    ]
    other = [
        f'            <{tag} Value="{value:d}" />'
        for field_name, tag in _LOOP
        if (value := getattr(step, field_name)) is not None
    ]
    inside: list[str] = []
    if main or other:
        inside.append("        <Limit>")
        if main:
            inside += ["          <Main>", *main, "          </Main>"]
        if other:
            inside += ["          <Other>", *other, "          </Other>"]
        inside.append("        </Limit>")
    if step.protection is not None:
        inside += _written_protection(step.protection, "        ")
    if step.record is not None:
        inside += _written_record(step.record, "        ")
    head = f'      <Step{step.number} Step_ID="{step.number}" Step_Type="{int(step.type)}"'
    return [f"{head}>", *inside, f"      </Step{step.number}>"] if inside else [f"{head} />"]


def _written_protection(protection: Protection, indent: str) -> list[str]:
    groups: dict[str, list[str]] = {}
    for field_name, path, unit in _PROTECTIONS:
        if (value := getattr(protection, field_name)) is not None:
            line = f"<{path[-1]} Value={_written_number(value, unit)} />"
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
            f"{indent}    <{tag} Value={_written_number(value, unit)} />"
            for field_name, tag, unit in _RECORDS
            if (value := getattr(record, field_name)) is not None
        ),
        f"{indent}  </Main>",
        f"{indent}</Record>",
    ]


def _written_number(value: float, unit: _Unit) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite and cannot stand in a step file")
    written = _EXACT.multiply(Decimal(repr(float(value))), unit.factor)
    text = f"{written:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f'"{text}"'


def _quoted(text: str) -> str:
    if _NOT_XML.search(text):
        raise ValueError(f"{text!r} holds a character that XML cannot carry")
    return quoteattr(text, _ESCAPED)
