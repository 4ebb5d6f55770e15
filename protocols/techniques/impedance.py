"""Impedance: a spectrum over frequency, with a small voltage or a small current.

The unit of ``amplitude`` decides: a voltage makes it potentiostatic, a current galvanostatic. It is
the RMS amplitude; the peak is the square root of 2 larger. ``at`` is what it swings around; for a
current it is signed, positive for charging.

A point may take ten periods and ten seconds, so the longest time of a step is the sum of that over
its frequencies and a minute; an instrument takes less.
"""

from __future__ import annotations

import math

from pydantic import Field

from labctl.program import Impedance, Node, RecordRule
from labctl.protocols.techniques.base import (
    LONGEST_STEP_S,
    Bench,
    Sheet,
    Show,
    Technique,
    time_end,
    whole_s,
)
from labctl.protocols.techniques.leaves import (
    OPEN_CIRCUIT,
    Amplitude,
    Bias,
    Frequency,
    PointsPerDecade,
)
from labctl.protocols.techniques.sweep import said_of_max
from labctl.protocols.written import Current, Fields, Record, Written
from labctl.units import Amount, Kind, format_quantity

USUAL_POINTS = 10
LARGEST_AMPLITUDE_V = 0.1
PERIODS = 10.0
SETTLING_S = 10.0
STARTING_S = 60.0
_RECORD = RecordRule(every_s=10.0)


class ImpedanceFields(Fields):
    """A spectrum of the impedance, from the highest frequency to the lowest."""

    from_: Frequency = Field(alias="from", description="The highest frequency, measured first.")
    to: Frequency = Field(description="The lowest frequency, measured last.")
    amplitude: Amplitude = Field(
        description="RMS: a voltage (potentiostatic) or a current (galvanostatic). The peak is "
        "1.41 times that."
    )
    points: PointsPerDecade | None = Field(
        default=None, description="How many frequencies. If not written: 10 per decade."
    )
    at: Bias | None = Field(
        default=None,
        description="What it swings around: 'open circuit' (if not written); or a voltage; or "
        "with a current as amplitude a current, negative for discharging.",
    )
    max_current: Current | None = Field(
        default=None,
        description="The current never is larger, either way. If not written: 20C, but at most "
        "0.9 of the current limit; with a current as amplitude, its peak.",
    )
    record: Record | None = Field(default=None, description="When readings are kept in this step.")


def _points(fields: ImpedanceFields) -> int:
    return USUAL_POINTS if fields.points is None else fields.points.value


def _bias(fields: ImpedanceFields) -> Written[Amount] | None:
    if fields.at is None or fields.at.value is None:
        return None
    return Written(fields.at.value, fields.at.text)


def _galvanostatic(fields: ImpedanceFields) -> bool:
    return fields.amplitude.value.kind is not Kind.VOLTAGE


def frequencies_Hz(highest_Hz: float, lowest_Hz: float, points_per_decade: int) -> list[float]:
    """Log spaced, from the highest to the lowest, which is among them."""
    count = math.ceil(points_per_decade * math.log10(highest_Hz / lowest_Hz) - 1e-9)
    return [highest_Hz * 10 ** (-k / points_per_decade) for k in range(count)] + [lowest_Hz]


def longest_s(highest_Hz: float, lowest_Hz: float, points_per_decade: int) -> float:
    """The longest that a spectrum can take."""
    points = frequencies_Hz(highest_Hz, lowest_Hz, points_per_decade)
    return whole_s(STARTING_S + sum(SETTLING_S + PERIODS / one for one in points))


def _check(fields: ImpedanceFields, sheet: Sheet) -> None:
    high, low = fields.from_, fields.to
    if high.value <= low.value:
        better = f"exchange the two: 'from: {low}, to: {high}'"
        if str(low).endswith("MHz"):
            better = f"write '{str(low).removesuffix('MHz')}mHz': M is a million"
        sheet.note(low.text, f"a spectrum goes down, and {low} is not below {high}", better)
    elif longest_s(high.value, low.value, _points(fields)) > LONGEST_STEP_S:
        sheet.note(low.text, f"down to {low} a spectrum can take more than ten years")
    amplitude, bias = fields.amplitude, _bias(fields)
    if not sheet.check_positive(amplitude, "an amplitude"):
        return
    if not _galvanostatic(fields) and amplitude.value.value > LARGEST_AMPLITUDE_V:
        most = format_quantity(LARGEST_AMPLITUDE_V, Kind.VOLTAGE)
        sheet.note(
            amplitude.text,
            f"an amplitude of {amplitude} is no small signal: the most is {most}",
            "write for example '10 mV'",
        )
    if fields.max_current is not None:
        sheet.check_positive(fields.max_current, "the largest current")
    if bias is None:
        return
    if (bias.value.kind is not Kind.VOLTAGE) is not _galvanostatic(fields):
        of = "current" if _galvanostatic(fields) else "voltage"
        sheet.note(
            bias.text,
            f"an amplitude of {amplitude} swings around a {of}, not around {bias}",
            f"write '{OPEN_CIRCUIT}' or a {of}",
        )
    elif bias.value.kind is Kind.VOLTAGE:
        sheet.check_voltage(bias)


def _build(fields: ImpedanceFields, bench: Bench) -> tuple[Node, ...]:
    bias, galvanostatic = _bias(fields), _galvanostatic(fields)
    bias_value = None
    if galvanostatic:
        amplitude = bench.amperes(fields.amplitude)
        bias_value = None if bias is None else bench.amperes(bias)
        peak_A = _with_peak(abs(bias_value or 0.0), amplitude)
        if fields.max_current is None:
            largest_A = peak_A
            if not math.isnan(peak_A):
                bench.check_both_ways(fields.amplitude, peak_A, " with its peak")
        else:
            largest_A = bench.largest_A(fields.max_current, fields.amplitude)
            if peak_A > largest_A:
                peak = format_quantity(peak_A, Kind.CURRENT, digits=4)
                bench.note(
                    fields.max_current.text,
                    f"{fields.max_current} is less than the peak of the amplitude, {peak}",
                    "write a larger 'max_current'",
                )
    else:
        amplitude = fields.amplitude.value.value
        largest_A = bench.largest_A(fields.max_current, fields.amplitude)
        if bias is not None:
            bias_value = bias.value.value
            _check_swing(fields, bias, amplitude, bench)
    if math.isnan(largest_A) or math.isnan(amplitude) or math.isnan(bias_value or 0.0):
        return ()
    points = _points(fields)
    control = Impedance(
        galvanostatic=galvanostatic,
        amplitude=amplitude,
        frequency_max_Hz=fields.from_.value,
        frequency_min_Hz=fields.to.value,
        points_per_decade=points,
        max_current_A=largest_A,
        bias=bias_value,
    )
    ends = [time_end(longest_s(fields.from_.value, fields.to.value, points))]
    label = f"impedance from {fields.from_} to {fields.to}, {fields.amplitude}"
    label += "" if bias is None else f" at {bias}"
    return bench.step(label, control, ends, fields.record, _RECORD)


def _with_peak(bias: float, amplitude: float) -> float:
    return float(f"{bias + math.sqrt(2) * amplitude:.6g}")


def _check_swing(
    fields: ImpedanceFields, bias: Written[Amount], amplitude_V: float, bench: Bench
) -> None:
    bench.check_voltage(bias)
    peak_V = math.sqrt(2) * amplitude_V
    low_V, high_V = bias.value.value - peak_V, bias.value.value + peak_V
    inside = bench.voltage_min_V < bias.value.value < bench.voltage_max_V
    if inside and not (bench.voltage_min_V < low_V and high_V < bench.voltage_max_V):
        bench.note(
            fields.amplitude.text,
            f"around {bias} the peaks of {fields.amplitude} reach the voltage limits",
            "write a smaller amplitude, or another voltage",
        )


def _tell(fields: ImpedanceFields, show: Show) -> str:
    way = "current" if _galvanostatic(fields) else "voltage"
    points = "10 per decade" if fields.points is None else show(fields.points)
    at = OPEN_CIRCUIT if fields.at is None else show(fields.at)
    return (
        f"Measure the impedance from {show(fields.from_)} to {show(fields.to)}, {points}, with a "
        f"{way} of {show(fields.amplitude)} (RMS) around {at}"
        f"{said_of_max(fields.max_current, show)}"
    )


IMPEDANCE = Technique(
    word="impedance",
    fields=ImpedanceFields,
    about="Measure the impedance over frequency (EIS).",
    check=_check,
    build=_build,
    tell=_tell,
    example="impedance: {from: 100 kHz, to: 10 mHz, amplitude: 10 mV}",
)
