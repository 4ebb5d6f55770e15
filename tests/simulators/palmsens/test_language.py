"""Scripts are refused with the code, line and column that a person can go by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.simulators.palmsens.errors import Code, ScriptError
from labctl.simulators.palmsens.language import parse
from labctl.simulators.palmsens.values import Value, encoded, parse_literal
from labctl.simulators.palmsens.vocabulary import SIGNATURES


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", 0.5),
        ("-2", -2.0),
        ("0", 0.0),
        ("100k", 1e5),
        ("5850535u", 5.850535),
        ("10i", 10),
        ("-3i", -3),
        ("0x1Fi", 31),
        ("0b101i", 5),
    ],
)
def test_numbers_are_whole_with_a_prefix(text: str, value: float) -> None:
    """MethodSCRIPT manual v1.8, chapter 4."""
    found = parse_literal(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["1.5", "5x", "--1", "m", "1e3", "99999999999i", ""])
def test_what_is_no_number_is_none(text: str) -> None:
    assert parse_literal(text) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(0.01, "ba", 0, -1, 1000.0), "ba800000Am"),
        (Value(-0.01, "ba", 0, -1, 1000.0), "ba7FFFFF6m"),
        (Value(0.4, "da", 0, -1, 200.0), "da8000190m"),
        (Value(0.01, "ba", 4, 0x0B, 1000.0), "ba800000Am,14,20B"),
        (Value(7, "ee"), "ee8000007i"),
        (Value(float("nan"), "ba", 2), "ba     nan,12"),
    ],
)
def test_values_are_written_as_in_the_manual(value: Value, text: str) -> None:
    """MethodSCRIPT manual v1.8, chapter 5."""
    assert encoded(value) == text


def test_comments_indents_and_text_are_read_as_the_manual_has_them() -> None:
    parsed = parse(
        [
            "# a comment alone",
            "\tvar p # and one behind",
            "   var c2",
            'send_string "E # is no comment"',
            'send_string f"E = {p} V"',
            "",
        ]
    )
    assert [command.name for command in parsed.commands] == [
        "var",
        "var",
        "send_string",
        "send_string",
    ]
    assert parsed.variables == {"p", "c2"}


@pytest.mark.parametrize(
    ("script", "code", "line", "column"),
    [
        ("var p\nmeas_lop_ca p", Code.UNKNOWN_SCRIPT_COMMAND, 2, 1),
        ("var p\n\tmeas 100m q ab", Code.NOT_DECLARED, 2, 12),
        ("var p\nvar p", Code.DECLARED_TWICE, 2, 5),
        ("var 1p", Code.BAD_NAME, 1, 5),
        ("var P", Code.BAD_NAME, 1, 5),
        (f"var {'p' * 40}", Code.NAME_TOO_LONG, 1, 5),
        ("wait 1.5", Code.BAD_LITERAL, 1, 6),
        ("wait 1 2", Code.EXTRA_ARGUMENT, 1, 8),
        ("wait", Code.ENDED_EARLY, 1, 5),
        ("set_pgstat_mode 3 now(1)", Code.BAD_OPTION, 1, 19),
        ("var p\nif p >> 1\nendif", Code.BAD_CHARACTER, 2, 6),
        ("var p\nif p > 1", Code.ENDED_EARLY, 3, 0),
        ("endif", Code.BAD_SCOPE, 1, 1),
        ("var p\nloop p < 1\nendif", Code.BAD_SCOPE, 3, 1),
        ("var p\nif p < 1\nelse\nelse\nendif", Code.BAD_SCOPE, 4, 1),
        ("breakloop", Code.NOT_THERE, 1, 1),
        ("store_var p 1 ab", Code.NOT_DECLARED, 1, 11),
        ("var p\nadd_var 1 p", Code.NEEDS_A_VARIABLE, 2, 9),
        ("var p\nstore_var p 1 a", Code.BAD_VARIABLE_TYPE, 2, 15),
        ("pck_start\npck_start", Code.BAD_PACKAGE, 2, 1),
        ("var p\npck_add p", Code.BAD_PACKAGE, 2, 1),
        ("pck_start", Code.BAD_PACKAGE, 2, 0),
        ("meas_loop_npv 1", Code.NOT_ON_THIS_DEVICE, 1, 1),
        ("array a 3i\nvar p\ncopy_var a[p] p\ncopy_var b[0i] p", Code.NOT_DECLARED, 4, 10),
        ("array a 3i\nvar p\ncopy_var a[1] p", Code.WRONG_DATATYPE, 3, 10),
        ("on_finished:\non_finished:", Code.BAD_SCOPE, 2, 1),
        ("wait 1 \u00b5", Code.BAD_CHARACTER, 1, 8),
        ("!", Code.BAD_CHARACTER, 1, 1),
        ("x" * 300, Code.TOO_LONG, 1, 0),
        (
            "var p\nmeas_loop_ocp p 1 2\nmeas_loop_ocp p 1 2\nendloop\nendloop",
            Code.NESTED_MEASUREMENT,
            3,
            1,
        ),
        ("var p\nmeas_loop_ocp p 1 2\ncell_on\nendloop", Code.NOT_IN_MEASUREMENT, 3, 1),
        ("var p\n" + "if p < 1\n" * 17 + "endif\n" * 17, Code.TOO_DEEP, 18, 1),
    ],
)
def test_a_mistake_is_refused_where_it_is(script: str, code: Code, line: int, column: int) -> None:
    """MethodSCRIPT manual v1.8, appendix A."""
    with pytest.raises(ScriptError) as caught:
        parse(script.split("\n"))
    error = caught.value
    assert (error.code, error.line, error.column) == (code, line, column)


def test_an_error_is_written_as_the_protocol_has_it() -> None:
    """Communication protocol EmStat4 v1.3, chapter 8: e!4001: Line 3, Col 9."""
    assert ScriptError(Code.UNKNOWN_SCRIPT_COMMAND, 3, 9).text == "!4001: Line 3, Col 9"
    assert ScriptError(Code.CRITICAL_OVERLOAD, 12).text == "!0032: Line 12"
    assert ScriptError(Code.NOT_NOW).text == "!0006"


def test_a_script_that_is_too_large_is_refused() -> None:
    with pytest.raises(ScriptError) as caught:
        parse(["wait 1"] * 100, largest_bytes=500)
    assert caught.value.code is Code.SCRIPT_TOO_LARGE


def test_a_model_without_a_galvanostat_knows_no_current_to_hold() -> None:
    with pytest.raises(ScriptError) as caught:
        parse(["set_i 1m"], missing=frozenset({"set_i"}))
    assert caught.value.code is Code.NOT_ON_THIS_DEVICE


WORDS = st.sampled_from(
    [*SIGNATURES, "p", "c", "1", "500m", "-2i", "<", ">=", "ab", "ba", "#", '"x"', "a[0i]", "x(1)"]
)


@given(st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=12))
def test_every_text_is_a_script_or_is_refused(lines: list[str]) -> None:
    try:
        parsed = parse(["var p", "var c", "array a 3i", *lines])
    except ScriptError:
        return
    for command in parsed.commands:
        assert command.name in SIGNATURES
        if command.name in {"if", "loop"} or command.name.startswith("meas_loop"):
            assert command.end > 0


@given(st.lists(st.text(max_size=40), max_size=6))
def test_no_text_at_all_does_anything_else(lines: list[str]) -> None:
    try:
        parse(lines)
    except ScriptError:
        return
