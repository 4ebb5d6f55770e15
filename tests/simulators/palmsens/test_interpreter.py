"""Commands do what the manual says that they do."""

from __future__ import annotations

from typing import Any

import pytest

from labctl.drivers.palmsens.packages import parse_package
from labctl.simulators.palmsens.interpreter import Interpreter


def text_of(run: Any) -> list[str]:
    return [line[1:] for line in run.written if line.startswith("T")]


def test_arithmetic_is_done_in_place(run_script: Any) -> None:
    run = run_script(
        """
        var a
        var i
        store_var a 7 ja
        add_var a 3
        mul_var a 2
        sub_var a 500m
        div_var a 3
        send_string f"{a}"
        store_var a 10 ja
        mod_var a 4
        pow_var a 3
        send_string f"{a}"
        store_var i 7i ja
        div_var i 2i
        mul_var i -3i
        mod_var i 5i
        send_string f"{i}"
        """
    )
    assert text_of(run) == ["6.5", "8", "-4"]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("div_var a 0", "0028"),
        ("add_var a 1i", "4207"),
        ("if a < 1i\nendif", "4041"),
        ("store_var a 1000E ja\nmul_var a 1000E\nmul_var a 1000E", "4037"),
        ("store_var a 2147483647i ja\nadd_var a 1i", "4037"),
        ("store_var a -1 ja\npow_var a 500m", "0010"),
        ("copy_var b[3i] a", "400F"),
        ("wait -1", "4200"),
        ("set_gpio 1i", "00BA"),
        ("set_gpio_cfg 0x100i 1i", "0055"),
        ("set_range eb 1", "0084"),
        ("set_range ba 1", "4205"),
        ("set_e 7", "000F"),
        ("set_pgstat_mode 9", "0021"),
        ("cell_on", "0023"),
        ("set_pgstat_mode 3\ncell_on\nmeas_loop_ocp a 1 2\nendloop", "0014"),
        ("set_pgstat_mode 3\nmeas_loop_ca a a 1 1 2\nendloop", "4027"),
        ("set_pgstat_mode 6\ncell_on\nmeas_loop_ca a a 1 1 2\nendloop", "0023"),
        ("set_pgstat_mode 3\ncell_on\nmeas_loop_cp a a 1 1 2\nendloop", "0023"),
        ("set_pgstat_mode 3\ncell_on\nmeas_loop_lsv a a 0 1 10u 1\nendloop", "001C"),
        ("set_pgstat_mode 3\ncell_on\nmeas_loop_lsv a a 1 1 10m 1\nendloop", "4029"),
        ("set_pgstat_mode 3\ncell_on\nmeas_loop_lsv a a 0 1 1m 100\nendloop", "005A"),
        ("set_pgstat_mode 3\ncell_on\nmeas_loop_ca a a 1 0 2\nendloop", "005A"),
        ("set_pgstat_mode 3\ncell_on\nmeas_loop_ca a a 1 1 0\nendloop", "4204"),
        (
            "set_pgstat_mode 3\ncell_on\nmeas_loop_eis a a a 10m 1M 1 5i 0\nendloop",
            "0011",
        ),
        ("set_pgstat_mode 3\ncell_on\nmeas_loop_eis a a a 2 1k 1 5i 0\nendloop", "0012"),
    ],
)
def test_what_cannot_be_done_ends_the_script_without_its_clean_up(
    run_script: Any, lines: str, code: str
) -> None:
    """MethodSCRIPT manual v1.8, chapter 10.1 and appendix A."""
    run = run_script(f'var a\narray b 3i\n{lines}\non_finished:\nsend_string "cleaned up"')
    errors = [line for line in run.written if line.startswith("!")]
    assert len(errors) == 1
    assert errors[0].startswith(f"!{code}: Line ")
    assert text_of(run) == []


def test_the_first_branch_that_holds_is_taken(run_script: Any) -> None:
    run = run_script(
        """
        var a
        var n
        store_var n 0i ja
        loop n < 4i
            if n == 0i
                send_string "none"
            elseif n == 1i
                send_string "one"
            elseif n < 3i
                send_string "two"
            else
                send_string "many"
            endif
            add_var n 1i
        endloop
        """
    )
    assert text_of(run) == ["none", "one", "two", "many"]


def test_a_broken_loop_goes_on_behind_it(run_script: Any) -> None:
    run = run_script(
        """
        var n
        var m
        store_var n 0i ja
        store_var m 0i ja
        loop n < 3i
            add_var n 1i
            loop m < 100i
                add_var m 1i
                if m >= 5i
                    breakloop
                endif
            endloop
            if n == 2i
                breakloop
            endif
        endloop
        send_string f"{n} {m}"
        """
    )
    assert text_of(run) == ["2 6"]


def test_elements_of_arrays_are_variables(run_script: Any) -> None:
    run = run_script(
        """
        array a 4i
        var i
        var m
        store_var i 0i ja
        loop i < 4i
            int_to_float i
            store_var m 1 ja
            add_var m i
            float_to_int i
            copy_var m a[i]
            mul_var a[i] 10
            add_var i 1i
        endloop
        mean a m
        send_string f"{a[0]} {a[3]} {m}"
        """
    )
    assert text_of(run) == ["10 40 25"]


def test_numbers_are_of_single_precision(run_script: Any) -> None:
    run = run_script(
        'var a\nstore_var a 16777216 ja\nadd_var a 1\nsub_var a 16777216\nsend_string f"{a}"'
    )
    assert text_of(run) == ["0"]


def test_a_measurement_loop_writes_where_it_begins_and_ends(run_script: Any) -> None:
    """Communication protocol EmStat4 v1.3: M and the technique, and a star."""
    run = run_script(
        """
        var p
        var c
        set_pgstat_mode 3
        set_range ba 10m
        cell_on
        meas_loop_ca p c 1 100m 300m
            pck_start
            pck_add c
            pck_end
        endloop
        cell_off
        meas_loop_ocp p 100m 200m
        endloop
        """
    )
    assert [line[:3] for line in run.written] == ["M00", "Pba", "Pba", "Pba", "*", "M00", "*"]
    assert [line for line in run.written if line[0] == "M"] == ["M0007", "M000B"]
    assert run.device.now_s == pytest.approx(0.5)


def test_scans_and_loops_that_write_are_marked(run_script: Any) -> None:
    run = run_script(
        """
        var p
        var c
        var n
        store_var n 0i ja
        set_pgstat_mode 3
        cell_on
        loop n < 2i
            meas_loop_cv p c 0 100m -100m 50m 1 nscans(2)
                pck_start
                pck_add p
                pck_end
            endloop
            add_var n 1i
        endloop
        """
    )
    marks = "".join(line[0] for line in run.written)
    once = "MC" + "P" * 9 + "-C" + "P" * 9 + "-*"
    assert marks == "L" + once + once + "+"


def test_ohms_law_holds_both_ways(run_script: Any) -> None:
    run = run_script(
        """
        var p
        var c
        set_pgstat_mode 6
        set_range db 1m
        set_i 500u
        cell_on
        meas_loop_cp p c 500u 100m 100m
            pck_start
            pck_add p
            pck_add c
            pck_end
        endloop
        set_pgstat_mode 3
        set_range ba 10m
        set_e 2
        cell_on
        meas_loop_ca p c 2 100m 100m
            pck_start
            pck_add p
            pck_add c
            pck_end
        endloop
        """
    )
    held, fixed = (parse_package(line) for line in run.packages)
    assert held["ba"].value == pytest.approx(5e-4, rel=1e-3)
    assert held["ab"].value == pytest.approx(0.5, rel=1e-3)
    assert fixed["da"].value == pytest.approx(2.0, rel=1e-3)
    assert fixed["ba"].value == pytest.approx(2e-3, rel=1e-3)
    assert (held["ba"].range_index, fixed["ba"].range_index) == (21, 24)


def test_a_sweep_is_a_staircase_that_ends_at_its_end(run_script: Any) -> None:
    run = run_script(
        """
        var p
        var c
        set_pgstat_mode 3
        cell_on
        meas_loop_lsv p c 0 1 300m 100m
            pck_start
            pck_add p
            pck_end
        endloop
        """
    )
    volts = [(int(line[3:10], 16) - 2**27) / 1e6 for line in run.packages]
    assert volts == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.0], abs=2e-4)
    assert run.device.now_s == pytest.approx(15.0)


def test_a_spectrum_of_a_resistor_is_the_resistor(run_script: Any) -> None:
    run = run_script(
        """
        var f
        var r
        var j
        set_pgstat_mode 3
        cell_on
        meas_loop_eis f r j 10m 100k 10 5i 0
            send_string f"{f} {r} {j}"
        endloop
        """,
    )
    rows = [tuple(map(float, text.split())) for text in text_of(run)]
    assert [row[0] for row in rows] == pytest.approx([1e5, 1e4, 1e3, 1e2, 10])
    assert [row[1] for row in rows] == pytest.approx([1000.0] * 5)
    assert [row[2] for row in rows] == pytest.approx([0.0] * 5, abs=1e-6)


def test_a_current_that_is_too_large_for_its_range_is_overloaded(run_script: Any) -> None:
    script = """
        var p
        var c
        set_pgstat_mode 3
        {ranges}
        set_e 1
        cell_on
        meas 100m c ba
        pck_start
        pck_add c
        pck_end
        """
    over = run_script(script.format(ranges="set_range ba 100u"), ohm=1000.0)
    assert ",12,212" in over.packages[0]
    automatic = run_script(
        script.format(ranges="set_range ba 100u\nset_autoranging ba 100n 10m"), ohm=1000.0
    )
    assert ",10,215" in automatic.packages[0]
    small = run_script(script.format(ranges="set_range ba 10m"), ohm=1e6)
    assert ",14,218" in small.packages[0]


def test_switching_the_mode_switches_the_cell_off(run_script: Any) -> None:
    run = run_script("set_pgstat_mode 3\ncell_on\nset_pgstat_mode 6")
    assert not run.device.on


def test_a_script_without_an_end_leaves_the_cell_as_it_is(run_script: Any) -> None:
    assert run_script("set_pgstat_mode 3\ncell_on").device.on
    assert not run_script("set_pgstat_mode 3\ncell_on\non_finished:\ncell_off").device.on
    assert not run_script("set_pgstat_mode 3\ncell_on\nabort\non_finished:\ncell_off").device.on


def test_an_abort_cleans_up_and_ends_what_runs(run_script: Any) -> None:
    def abort(interpreter: Interpreter, written: list[str]) -> None:
        if len(written) == 4:
            interpreter.say("Z")
            interpreter.abort = True

    run = run_script(
        """
        var p
        var c
        set_pgstat_mode 3
        cell_on
        meas_loop_ca p c 1 100m 100
            pck_start
            pck_add c
            pck_end
        endloop
        send_string "not this"
        on_finished:
        cell_off
        send_string "but this"
        """,
        meanwhile=abort,
    )
    assert [line[0] for line in run.written] == ["M", "P", "P", "P", "Z", "*", "T"]
    assert text_of(run) == ["but this"]
    assert not run.device.on


def test_a_loop_that_is_skipped_is_followed_by_the_rest(run_script: Any) -> None:
    def skip(interpreter: Interpreter, written: list[str]) -> None:
        interpreter.skip_loop = len(written) == 3

    run = run_script(
        """
        var p
        meas_loop_ocp p 1 1000
            pck_start
            pck_add p
            pck_end
        endloop
        send_string "then this"
        """,
        meanwhile=skip,
    )
    assert len(run.packages) == 2
    assert text_of(run) == ["then this"]


def test_output_can_be_switched_off_and_on(run_script: Any) -> None:
    run = run_script(
        'set_script_output 0\nsend_string "hidden"\nset_script_output 1\nsend_string "shown"'
    )
    assert text_of(run) == ["shown"]


def test_time_is_told_since_the_timer_was_started(run_script: Any) -> None:
    run = run_script(
        """
        var t
        wait 5
        timer_start
        wait 2500m
        timer_get t
        set_int 500m
        await_int
        send_string f"{t}"
        """
    )
    assert text_of(run) == ["2.5"]
    assert run.device.now_s == pytest.approx(8.0)


def test_a_loop_body_that_takes_too_long_says_so(run_script: Any) -> None:
    body = "\n".join(["add_var a 1"] * 100)
    run = run_script(
        f"""
        var a
        var p
        meas_loop_ocp p 100u 500u
            {body}
            pck_start
            pck_add p
            pck_end
        endloop
        """
    )
    assert ",10," in run.packages[0]
    assert all(",11," in line for line in run.packages[1:])
