from __future__ import annotations

import math
from pathlib import Path

import pytest
from bts_words import (
    ARMED,
    DEVINFO_ASKED,
    LOGIN,
    NO_ANSWER,
    PROGRAM,
    ROW_1,
    ROW_2,
    ROW_3,
    STARTED,
    STOP,
    STOPPED,
    Bench,
    download,
    look,
    start,
    status,
    summary,
)

from labctl.drivers.base import ChannelState, Failsafe
from labctl.drivers.neware_bts.stepfile import read_step_file
from labctl.errors import InstrumentError, LinkError, PlanError
from labctl.program import (
    Limits,
    Program,
)


async def test_opening_logs_in_and_names_the_units_and_channels(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    identity = await bench.driver.open()
    assert (identity.manufacturer, identity.model) == ("Neware", "BTS 8 device type 27")
    assert identity.serial == "27-21"
    assert await bench.driver.channels() == ("21-1-1", "21-1-2")
    assert bench.wire.finished()


async def test_a_status_is_what_three_answers_say_together(tmp_path: Path) -> None:
    bench = Bench(tmp_path, look("working", 144, "run-1"))
    seen = await bench.driver.status("21-1-1")
    assert (seen.state, seen.test, seen.tag) == (ChannelState.RUNNING, "144", "run-1")
    assert (seen.voltage_V, seen.current_A) == (4.6947, -0.0003)


async def test_a_channel_that_never_ran_a_test_shows_none(tmp_path: Path) -> None:
    bench = Bench(tmp_path, look("finish", 0, ""))
    assert (await bench.driver.status("21-1-1")).test == ""


async def test_a_channel_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    bench = Bench(tmp_path, LOGIN[LOGIN.index(DEVINFO_ASKED) :])
    with pytest.raises(InstrumentError, match="no channel '21-1-9'; there are 21-1-1, 21-1-2"):
        await bench.driver.status("21-1-9")


async def test_arming_leaves_a_step_file_and_reads_the_limits_from_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, status("finish"), summary(143, 10, "true"))
    armed = await bench.driver.arm("21-1-1", PROGRAM, "run-1")
    assert bench.wire.finished()
    assert (armed.channel, armed.tag, armed.test_before) == ("21-1-1", "run-1", "143")
    assert armed.program_ref == "D:\\labctl\\run-1.xml"
    assert [path.name for path in tmp_path.iterdir()] == ["run-1.xml"]
    file = read_step_file((tmp_path / "run-1.xml").read_bytes())
    assert file.remark == "run-1"
    assert file.date == "20270115090000"
    assert (file.protection.voltage_lower_V, file.protection.voltage_upper_V) == (1.0, 4.4)
    assert (file.protection.current_lower_A, file.protection.current_upper_A) == (-0.011, 0.011)
    assert file.protection.capacity_upper_Ah == 4e-4
    assert len(file.steps) == 5
    assert armed.limits.voltage_max_V == 4.4
    assert armed.limits.voltage_min_V == 1.0
    assert armed.limits.current_max_A == 0.011
    assert armed.limits.current_min_A == -0.011
    assert armed.limits.step_charge_max_Ah == 4e-4
    assert armed.limits.temperature_max_degC == math.inf


async def test_a_step_file_that_came_out_different_is_not_armed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_hearted(path: Path, data: bytes) -> None:
        path.write_bytes(data.replace(b'<Upper Value="44000" />', b'<Upper Value="50000" />'))

    monkeypatch.setattr("labctl.drivers.neware_bts.files.write_whole", half_hearted)
    bench = Bench(tmp_path, status("finish"), summary(143, 10, "true"))
    with pytest.raises(InstrumentError, match="does not say what was written into it"):
        await bench.driver.arm("21-1-1", PROGRAM, "run-1")


async def test_a_folder_that_is_not_there_is_an_error_of_the_way_to_the_host(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path / "nowhere", status("finish"), summary(143, 10, "true"))
    with pytest.raises(LinkError, match="step_file_dir must be a folder that exists"):
        await bench.driver.arm("21-1-1", PROGRAM, "run-1")


@pytest.mark.parametrize("word", ["working", "pause", "false"])
async def test_a_busy_channel_is_not_armed(tmp_path: Path, word: str) -> None:
    bench = Bench(tmp_path, status(word))
    with pytest.raises(InstrumentError, match="nothing can be armed on it"):
        await bench.driver.arm("21-1-1", PROGRAM, "run-1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tag", ["../run", "", "a/b", "a b", ".hidden", "run."])
async def test_a_tag_that_cannot_name_a_file_is_refused(tmp_path: Path, tag: str) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(PlanError, match="cannot name a file"):
        await bench.driver.arm("21-1-1", PROGRAM, tag)


def test_what_the_driver_says_of_itself_needs_no_connection(tmp_path: Path) -> None:
    driver = Bench(tmp_path).driver
    assert driver.capabilities.failsafe is Failsafe.ONBOARD
    assert driver.refusals(PROGRAM) == ()
    no_limits = Limits(1.0, 9.0, -0.011, 0.011, 4e-4, 500_000.0)
    bad = Program(name="b", recipe_sha256="0", cell="c", body=PROGRAM.body, limits=no_limits)
    assert driver.refusals(bad) == (
        "the voltage limit 9 V is outside what the channel sees, -5 V to 5 V",
    )


async def test_a_start_waits_for_the_new_test(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        summary(143, 10, "true"),
        start("ok"),
        look("finish", 143, "run-0"),
        look("working", 143, "run-0"),
        look("working", 144, "run-0"),
        look("working", 144, "run-1"),
    )
    assert await bench.driver.start(ARMED) == STARTED
    assert bench.wire.finished()
    assert bench.clock.monotonic_s() == 1.5


async def test_a_refused_start_is_an_error_and_not_repeated(tmp_path: Path) -> None:
    bench = Bench(tmp_path, summary(143, 10, "true"), start("false"))
    with pytest.raises(InstrumentError, match="refused to start"):
        await bench.driver.start(ARMED)
    assert bench.wire.finished()


async def test_a_start_without_an_answer_is_not_repeated(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        summary(143, 10, "true"),
        start("ok").partition("\n< ")[0] + NO_ANSWER,
    )
    with pytest.raises(LinkError):
        await bench.driver.start(ARMED)
    assert bench.wire.finished()


async def test_nothing_is_started_on_a_channel_that_ran_something_since(tmp_path: Path) -> None:
    bench = Bench(tmp_path, summary(144, 10, "true"))
    with pytest.raises(InstrumentError, match="has run test 144 since it was armed"):
        await bench.driver.start(ARMED)
    assert bench.wire.finished()


async def test_a_start_that_shows_no_test_is_not_said_to_have_failed(tmp_path: Path) -> None:
    looks = [look("finish", 143, "run-0")] * 61
    bench = Bench(tmp_path, summary(143, 10, "true"), start("ok"), *looks)
    with pytest.raises(LinkError, match="may run: after 30 s it has begun no test"):
        await bench.driver.start(ARMED)
    assert bench.wire.finished()


@pytest.mark.parametrize("answer", ["maybe", "</start>", "\0"])
async def test_a_start_with_an_answer_that_cannot_be_is_not_said_to_have_failed(
    tmp_path: Path, answer: str
) -> None:
    bench = Bench(tmp_path, summary(143, 10, "true"), start(answer))
    with pytest.raises(LinkError, match="was told to start run-1 and may run"):
        await bench.driver.start(ARMED)
    assert bench.wire.finished()


async def test_a_garbled_look_after_a_start_is_looked_at_again(tmp_path: Path) -> None:
    login = LOGIN.partition(DEVINFO_ASKED)[0]
    bench = Bench(
        tmp_path,
        summary(143, 10, "true"),
        start("ok"),
        status("dancing"),
        login,
        look("working", 144, "run-1"),
    )
    assert await bench.driver.start(ARMED) == STARTED
    assert bench.wire.finished()


async def test_a_test_that_was_started_is_found_by_number_and_barcode(tmp_path: Path) -> None:
    assert await Bench(tmp_path, look("working", 144, "run-1")).driver.find(ARMED) == STARTED
    assert await Bench(tmp_path, look("finish", 144, "run-1")).driver.find(ARMED) == STARTED
    assert await Bench(tmp_path, look("finish", 143, "run-0")).driver.find(ARMED) is None


@pytest.mark.parametrize(
    ("word", "test", "barcode", "says"),
    [
        ("working", 144, "somebody else's", "the last test is 144 with barcode"),
        ("finish", 142, "run-1", "the last test is 142"),
        ("working", 143, "run-0", "it is running, and shows no test after 143"),
        ("false", 143, "run-0", "it is unavailable"),
    ],
)
async def test_a_channel_that_does_something_else_is_left_to_a_person(
    tmp_path: Path, word: str, test: int, barcode: str, says: str
) -> None:
    bench = Bench(tmp_path, look(word, test, barcode), look(word, test, barcode))
    with pytest.raises(InstrumentError, match=says):
        await bench.driver.find(ARMED)
    assert bench.wire.finished()


async def test_a_barcode_that_shows_a_moment_later_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, look("working", 144, "run-0"), look("working", 144, "run-1"))
    assert await bench.driver.find(ARMED) == STARTED


async def test_readings_come_in_the_words_of_the_program(tmp_path: Path) -> None:
    bench = Bench(
        tmp_path,
        status("working"),
        download(1, 144, ROW_1, ROW_2, ROW_3),
    )
    followed = await bench.driver.follow(STARTED, PROGRAM, 1)
    readings = followed.readings
    assert (followed.next_index, followed.state, followed.complete) == (
        4,
        ChannelState.RUNNING,
        False,
    )
    assert readings.onboard_index.tolist() == [1, 2, 3]
    assert readings.step.tolist() == [0, 1, 2]
    assert readings.pass_mark.tolist() == [1, 1, 2]
    assert readings.step_time_s.tolist() == [0.0, 30.0, 60.0]
    assert readings.unix_time_s[0] == 1766960945.0  # 22:29:05 UTC; the host is an hour ahead
    assert readings.voltage_V.tolist() == [2.55, 3.1, 3.0]
    assert readings.current_A.tolist() == [0.0, 2e-4, -2e-4]
    assert readings.step_charge_Ah.tolist() == [0.0, 1.5e-6, -3e-6]
    assert readings.step_energy_Wh.tolist() == [0.0, 4.6e-6, -9e-6]
    assert all(math.isnan(value) for value in readings.temperature_degC)


async def test_what_is_recorded_after_the_look_at_the_state_is_not_taken_for_the_end(
    tmp_path: Path,
) -> None:
    bench = Bench(
        tmp_path,
        status("working"),
        download(1, 144, ROW_1, ROW_2, ROW_3),
        status("finish"),
        summary(144, 3, "true"),
    )
    first = await bench.driver.follow(STARTED, PROGRAM, 1)
    assert (first.complete, first.state) == (False, ChannelState.RUNNING)
    last = await bench.driver.follow(STARTED, PROGRAM, first.next_index)
    assert (last.complete, last.state, len(last.readings)) == (True, ChannelState.FINISHED, 0)
    assert bench.wire.finished()


async def test_an_ended_test_is_complete_only_when_its_last_reading_has_come(
    tmp_path: Path,
) -> None:
    bench = Bench(
        tmp_path,
        status("protect"),
        summary(144, 3, "true"),
        download(1, 144, ROW_1, ROW_2),
        status("protect"),
        summary(144, 3, "true"),
        download(3, 144, ROW_3),
    )
    first = await bench.driver.follow(STARTED, PROGRAM, 1)
    assert (first.complete, first.next_index) == (False, 3)
    last = await bench.driver.follow(STARTED, PROGRAM, 3)
    assert (last.complete, last.next_index, last.state) == (True, 4, ChannelState.TRIPPED)


async def test_a_channel_that_stopped_while_bts_still_gathers_its_data_is_not_complete(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, status("stop"), summary(144, 3, "false"), download(4, 144))
    assert not (await bench.driver.follow(STARTED, PROGRAM, 4)).complete


async def test_a_running_channel_is_asked_for_readings_even_where_none_are_announced(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, status("working"), download(1, 144))
    followed = await bench.driver.follow(STARTED, PROGRAM, 1)
    assert (len(followed.readings), followed.next_index, followed.complete) == (0, 1, False)
    assert bench.wire.finished()


async def test_an_unavailable_channel_has_no_readings_for_now(tmp_path: Path) -> None:
    bench = Bench(tmp_path, status("false"))
    followed = await bench.driver.follow(STARTED, PROGRAM, 7)
    assert (followed.state, followed.next_index) == (ChannelState.UNAVAILABLE, 7)
    assert not followed.complete


@pytest.mark.parametrize(
    ("conversation", "says"),
    [
        (status("finish") + summary(145, 3, "false"), "is 145, not 144: another one"),
        (status("working") + download(1, 145, ROW_1), "is 145, not 144: another one"),
        (
            status("finish") + summary(144, 3, "true") + download(1, 144),
            "has 3 readings, but none from 1 on",
        ),
        (
            status("working") + download(1, 144, ROW_1.replace('stepid="1"', 'stepid="4"')),
            "type 'rest' in step 4 of its file, which is no step",
        ),
        (
            status("working")
            + download(1, 144, ROW_2.replace('"cc"', '"dc"').replace('seqid="2"', 'seqid="1"')),
            "type 'dc' in step 2 of its file, which is ConstantCurrent",
        ),
        (
            status("working") + download(1, 144, ROW_1.replace('stepid="1"', 'stepid="999999999"')),
            "which is no step",
        ),
    ],
)
async def test_readings_of_something_else_are_refused(
    tmp_path: Path, conversation: str, says: str
) -> None:
    bench = Bench(tmp_path, conversation)
    with pytest.raises(InstrumentError, match=says):
        await bench.driver.follow(STARTED, PROGRAM, 1)
    assert bench.wire.finished()


async def test_a_stop_is_seen_to_have_worked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, STOP, STOPPED, status("working"), status("stop"))
    await bench.driver.stop("21-1-1")
    assert bench.wire.finished()


async def test_a_stop_of_what_is_stopped_does_nothing(tmp_path: Path) -> None:
    nothing_to_stop = STOPPED.replace(">ok<", ">false<")
    bench = Bench(tmp_path, STOP, nothing_to_stop, status("finish"))
    await bench.driver.stop("21-1-1")
    assert bench.wire.finished()


async def test_a_stop_without_an_answer_is_said_again(tmp_path: Path) -> None:
    login = LOGIN.partition(DEVINFO_ASKED)[0]
    bench = Bench(tmp_path, STOP, NO_ANSWER, login, STOP, STOPPED, status("stop"))
    await bench.driver.stop("21-1-1")
    assert bench.wire.finished()


async def test_a_stop_that_the_channel_ignores_is_an_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path, STOP, STOPPED, *[status("working")] * 31)
    with pytest.raises(InstrumentError, match="still running after 15 s"):
        await bench.driver.stop("21-1-1")
    assert bench.wire.finished()
