"""People are told of what wants them: at once, together, again, and never of what is set aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.alarms.notify import (
    GROUP_S,
    MOST_LINES,
    QUIET_S,
    REPEAT_S,
    Grouping,
    NotifyConfig,
    Told,
    backoff_s,
    due,
    text_of,
)
from labctl.alarms.states import SET_ASIDE, AlarmState
from labctl.errors import ConfigError

NOW_S = 1.8e9
ALARM = Told(
    alarm_number=7, about="run-1", of="cell HEV-5", rule="retention", name="retention-2",
    priority="high", state=AlarmState.UNACKNOWLEDGED, message="retention 78.8 %", raised=11,
    raised_unix_s=NOW_S - 5,
)  # fmt: skip


def told(alarm: Told, ago_s: float, **changes: object) -> Told:
    return replace(alarm, told=alarm.raised, told_unix_s=NOW_S - ago_s, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(AlarmState))
def test_only_what_wants_a_person_is_told_of(state: AlarmState) -> None:
    wanted = {
        AlarmState.UNACKNOWLEDGED,
        AlarmState.RETURNED_UNACKNOWLEDGED,
        AlarmState.LATCHED,
    }
    assert bool(due([replace(ALARM, state=state)], NOW_S, "low")) == (state in wanted)
    assert not wanted & SET_ASIDE


@pytest.mark.parametrize(
    ("least", "priority", "is_told"),
    [
        ("low", "low", True),
        ("medium", "low", False),
        ("medium", "medium", True),
        ("high", "medium", False),
        ("high", "high", True),
        ("medium", "of-a-newer-program", True),
    ],
)
def test_what_matters_less_than_asked_for_is_not_told_of(
    least: str, priority: str, is_told: bool
) -> None:
    assert bool(due([replace(ALARM, priority=priority)], NOW_S, least)) == is_told


@pytest.mark.parametrize(("priority", "every_s"), REPEAT_S.items())
def test_it_is_said_again_while_nobody_says_anything(priority: str, every_s: float) -> None:
    again = replace(ALARM, priority=priority)
    assert due([told(again, every_s - 1)], NOW_S, "low") == []
    assert len(due([told(again, every_s)], NOW_S, "low")) == 1
    for state in (AlarmState.ACKNOWLEDGED, AlarmState.RETURNED_UNACKNOWLEDGED):
        assert due([told(again, every_s, state=state)], NOW_S, "low") == []
    assert len(due([told(again, every_s, state=AlarmState.LATCHED)], NOW_S, "low")) == 1


def test_what_is_low_is_said_once() -> None:
    assert due([told(replace(ALARM, priority="low"), 1e9)], NOW_S, "low") == []


def test_what_comes_and_goes_is_not_said_every_time() -> None:
    flapping = replace(told(ALARM, QUIET_S - 1), raised=12)
    assert flapping.is_new
    assert due([flapping], NOW_S, "low") == []
    assert due([flapping], NOW_S + 1, "low") == [flapping]


def test_alarms_of_one_rule_of_one_run_are_one_matter() -> None:
    other = replace(ALARM, alarm_number=8, raised=13)
    assert due([told(ALARM, 20), other], NOW_S, "low") == []
    elsewhere = replace(other, about="run-2")
    assert due([told(ALARM, 20), elsewhere], NOW_S, "low") == [elsewhere]
    text = text_of([ALARM, other, elsewhere])
    assert text.title == "labctl: 2 alarms"
    assert len(text.body.splitlines()) == 2
    assert "And 1 more of this kind." in text.body


def test_a_clock_that_was_put_back_keeps_nobody_silent() -> None:
    assert len(due([told(ALARM, -REPEAT_S["high"])], NOW_S, "low")) == 1


def test_what_comes_within_ten_seconds_goes_out_together() -> None:
    grouping, other = Grouping(), replace(ALARM, alarm_number=8)
    assert not grouping.ready([ALARM], 100.0)
    assert not grouping.ready([ALARM, other], 100.0 + GROUP_S - 0.1)
    assert grouping.ready([ALARM, other], 100.0 + GROUP_S)


def test_what_was_over_and_comes_anew_waits_anew() -> None:
    grouping = Grouping()
    assert not grouping.ready([ALARM], 100.0)
    assert not grouping.ready([], 105.0)
    assert not grouping.ready([ALARM], 100.0 + GROUP_S)
    assert grouping.ready([ALARM], 100.0 + 2 * GROUP_S)


def test_a_message_says_what_of_what_how_bad_and_what_to_do() -> None:
    text = text_of([ALARM])
    assert (text.priority, text.title) == ("high", "labctl: retention-2, cell HEV-5")
    assert text.body.startswith("[7] high: retention-2, cell HEV-5 (run-1), since 20")
    assert "retention 78.8 %" in text.body
    latched = text_of([told(ALARM, 4000, state=AlarmState.LATCHED)])
    assert latched.title.endswith(", still not acknowledged")
    assert "labctl alarms reset 7" in latched.body
    over = text_of([replace(ALARM, state=AlarmState.RETURNED_UNACKNOWLEDGED)])
    assert over.body.endswith("It is over.")


def test_the_most_urgent_comes_first_and_a_flood_is_cut_short() -> None:
    many = [
        replace(ALARM, alarm_number=n, about=f"run-{n}", priority="low" if n else "high", raised=n)
        for n in range(30, -1, -1)
    ]
    text = text_of(many)
    assert text.title == "labctl: 31 alarms"
    lines = text.body.splitlines()
    assert lines[0].startswith("[0] high")
    assert len(lines) == MOST_LINES + 1
    assert lines[-1].startswith("and 11 more")


@given(
    st.lists(
        st.builds(
            replace,
            st.just(ALARM),
            alarm_number=st.integers(1, 5),
            about=st.sampled_from(["run-1", "run-2", "node lab1"]),
            priority=st.sampled_from(["low", "medium", "high"]),
            state=st.sampled_from(AlarmState),
            raised=st.integers(1, 3),
            told=st.integers(0, 3),
            told_unix_s=st.one_of(st.none(), st.floats(NOW_S - 2e5, NOW_S)),
        ),
        max_size=6,
    )
)
def test_whoever_is_told_is_not_told_again_at_once(alarms: list[Told]) -> None:
    wanted = due(alarms, NOW_S, "low")
    heard = [
        replace(one, told=max(one.raised, one.told), told_unix_s=NOW_S) if one in wanted else one
        for one in alarms
    ]
    assert due(heard, NOW_S + 1, "low") == [
        one for one in due(alarms, NOW_S + 1, "low") if one not in wanted and all(
            one.matter != other.matter for other in wanted
        )
    ]  # fmt: skip
    if wanted:
        assert {str(one.alarm_number) for one in wanted} >= {
            line[1:].split("]")[0] for line in text_of(wanted).body.splitlines()
        }


def test_tries_come_later_and_later_but_never_stop() -> None:
    waits = [backoff_s(attempt) for attempt in range(1, 2000)]
    assert waits[0] == 10.0
    assert waits == sorted(waits)
    assert waits[-1] == 1800.0


def test_addresses_with_passwords_stand_in_a_file(tmp_path: Path) -> None:
    secret, heart = tmp_path / "urls", tmp_path / "heart"
    secret.write_text("# mail\nmailto://a:b@c.d\n\nmailto://x\n")
    heart.write_text("https://hc.example/abc\n")
    config = NotifyConfig(
        urls=("mailto://x", "json://y"), urls_file=str(secret), heartbeat_file=str(heart)
    )
    assert config.read() == (
        ("mailto://x", "json://y", "mailto://a:b@c.d"),
        "https://hc.example/abc",
    )
    assert NotifyConfig().read() == ((), "")
    with pytest.raises(ConfigError, match="cannot be read"):
        NotifyConfig(urls_file=str(tmp_path / "nothing")).read()
    heart.write_text("file:///etc/passwd")
    with pytest.raises(ConfigError, match="http"):
        NotifyConfig(heartbeat_file=str(heart)).read()
    with pytest.raises(ValueError, match="http"):
        NotifyConfig(heartbeat_url="file:///etc/passwd")
