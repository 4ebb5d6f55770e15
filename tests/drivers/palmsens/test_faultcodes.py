from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers.palmsens.faultcodes import Refusal, parse_refusal


@pytest.mark.parametrize(
    ("reply", "refusal"),
    [
        ("t!0003", Refusal("t", 0x0003)),
        ("e!4001: Line 3, Col 9", Refusal("e", 0x4001, 3, 9)),
        ("!0032: Line 12", Refusal("", 0x0032, 12)),
        ("Z!0006", Refusal("Z", 0x0006)),
        ("fs_dir!001B", Refusal("fs_dir", 0x001B)),
    ],
)
def test_error_replies_of_the_protocol_are_understood(reply: str, refusal: Refusal) -> None:
    """Communication protocol EmStat4 v1.3, chapter 8; MethodSCRIPT manual v1.8, chapter 10."""
    assert parse_refusal(reply) == refusal


@pytest.mark.parametrize("reply", ["e", "", "Pda8000190m", "iES4LR20B0008", "Tlook here!", "M0007"])
def test_other_lines_are_no_errors(reply: str) -> None:
    assert parse_refusal(reply) is None


def test_an_error_says_which_line_it_means_and_why() -> None:
    refusal = parse_refusal("e!4001: Line 2, Col 1")
    assert refusal is not None
    words = refusal.words(["var p", "\tmeas_lop_ca p"])
    assert words == (
        "error 4001 in line 2, column 1 ('meas_lop_ca p'): there is no such script command"
    )


def test_an_error_without_words_still_has_its_number() -> None:
    refusal = parse_refusal("!7ABC: Line 99")
    assert refusal is not None
    assert refusal.words(["var p"]).startswith("error 7ABC in line 99: see appendix A")


@given(st.text(max_size=60))
def test_any_line_can_be_looked_at(line: str) -> None:
    parse_refusal(line)
