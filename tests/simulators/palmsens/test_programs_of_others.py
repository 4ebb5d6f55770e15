"""What programs that others wrote rely on.

Expected are: the descriptions in PalmSens/MethodSCRIPT_Examples, Measurement_Loops 004 (CV), 006
(SWV) and 008 (CA); the worked package ``Pda8000190m;ba800000Am,14,20B``; MethodSCRIPT manual v1.8,
14.11, for the order of arguments.
"""

from __future__ import annotations

from typing import Any

import pytest

from labctl.drivers.palmsens.packages import parse_package

OHM = 1000.0


def test_chronoamperometry_gives_the_set_potential_and_the_measured_current(
    run_script: Any,
) -> None:
    run = run_script(
        """
        var p
        var c
        set_pgstat_mode 3
        set_range ba 1m
        set_e 400m
        cell_on
        meas_loop_ca p c 400m 100m 200m
            pck_start
            pck_add p
            pck_add c
            pck_end
        endloop
        """
    )
    assert len(run.packages) == 2
    for line in run.packages:
        assert line.startswith("Pda")
        package = parse_package(line)
        assert package["da"].value == pytest.approx(0.4, abs=1e-3)
        assert package["ba"].value == pytest.approx(0.4 / OHM, rel=0.01)


def test_differential_pulses_give_the_current_after_less_that_before(run_script: Any) -> None:
    run = run_script(
        """
        var p
        var c
        set_pgstat_mode 3
        set_range ba 1m
        set_e 0
        cell_on
        meas_loop_dpv p c 0 100m 10m 50m 50m 50m
            pck_start
            pck_add p
            pck_add c
            pck_end
        endloop
        """
    )
    assert run.written[0] == "M0001"
    packages = [parse_package(line) for line in run.packages]
    assert len(packages) == 11
    for place, package in enumerate(packages):
        assert package["da"].value == pytest.approx(0.01 * place, abs=1e-3)
        assert package["ba"].value == pytest.approx(0.05 / OHM, rel=0.02)
    assert run.device.now_s == pytest.approx(11 * 0.2)


def test_pulses_that_leave_no_time_between_them_are_refused(run_script: Any) -> None:
    run = run_script(
        """
        var p
        var c
        set_pgstat_mode 3
        set_e 0
        cell_on
        meas_loop_dpv p c 0 100m 10m 50m 150m 50m
        endloop
        """
    )
    assert run.written[-1].startswith("!005A")


def test_square_waves_give_the_difference_and_both_currents(run_script: Any) -> None:
    run = run_script(
        """
        var p
        var c
        var f
        var r
        set_pgstat_mode 3
        set_range ba 1m
        set_e -100m
        cell_on
        meas_loop_swv p c f r -100m 100m 10m 15m 10
            pck_start
            pck_add p
            pck_add c
            pck_end
            pck_start
            pck_add f
            pck_end
            pck_start
            pck_add r
            pck_end
        endloop
        """
    )
    assert run.written[0] == "M0002"
    packages = [parse_package(line) for line in run.packages]
    assert len(packages) == 3 * 21
    assert run.device.now_s == pytest.approx(21 * 0.1)
    for place in range(21):
        both, forward, reverse = packages[3 * place : 3 * place + 3]
        level_V = -0.1 + 0.01 * place
        assert both["ba"].value == pytest.approx(0.03 / OHM, rel=0.05)
        assert forward["ba"].value == pytest.approx((level_V + 0.015) / OHM, abs=1e-6)
        assert reverse["ba"].value == pytest.approx((level_V - 0.015) / OHM, abs=1e-6)


def test_a_cyclic_sweep_may_end_at_the_potential_at_which_it_begins(run_script: Any) -> None:
    run = run_script(
        """
        var p
        var c
        set_pgstat_mode 3
        set_e -200m
        cell_on
        meas_loop_cv p c -200m 200m -200m 10m 1 nscans(1)
            pck_start
            pck_add p
            pck_end
        endloop
        """
    )
    levels = [parse_package(line)["da"].value for line in run.packages]
    assert len(levels) == 81
    assert (levels[0], levels[40], levels[-1]) == pytest.approx((-0.2, 0.2, -0.2), abs=1e-3)


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("EmStat Pico", "set_autoranging ba 100n 5m"),
        ("EmStat4S HR", "set_autoranging ba 210m 210m"),
    ],
)
def test_a_range_may_be_asked_for_that_is_larger_than_the_largest_current(
    run_script: Any, model: str, asked: str
) -> None:
    run = run_script(f'set_pgstat_mode 2\n{asked}\nsend_string "taken"', model=model)
    assert run.written == ["Ttaken"]
