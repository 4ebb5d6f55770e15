"""What a scan writes into a configuration: whole, once, and nothing else changes."""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.discovery.entries import (
    Entry,
    add_to_file,
    configured_as,
    entries_of,
    known_instruments,
    lines_of,
)
from labctl.discovery.scan import Outcome, Seen
from labctl.drivers.probe import Found, Place, Wire
from labctl.errors import ConfigError
from labctl.settings import load_settings

CONFIG = """\
# The bench by the window.
[node]
name = "lab1"      # chosen once

[instruments.smu1]  # the old one
driver = "keithley"
resource = "TCPIP::10.0.0.7::5025::SOCKET"
serial = "111"
"""
SMU = Entry(
    name="smu2",
    options={
        "driver": "keithley",
        "resource": "TCPIP::10.0.0.8::5025::SOCKET",
        "model": "2450",
        "serial": "222",
    },
)
RACK = Entry(
    name="rack1",
    options={"driver": "neware_bts", "host": "10.0.0.9"},
    missing={"step_file_dir": "a folder that the BTS host can read"},
)


def keithley(host: str, serial: str, *, outcome: Outcome = Outcome.FOUND) -> Seen:
    return Seen(
        place=Place(wire=Wire.TCP, address=host, port=5025),
        outcome=outcome,
        found=Found(
            driver="keithley",
            manufacturer="KEITHLEY INSTRUMENTS",
            model="2450",
            serial=serial,
            firmware="1.7.12b",
            options={"model": "2450", "serial": serial},
        ),
        names=(f"tcp {host} 5025",),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "labctl.toml"
    path.write_text(CONFIG)
    return path


def test_what_was_found_is_added_and_everything_else_stays_as_it_was(file: Path) -> None:
    file.chmod(0o640)
    assert add_to_file(file, [SMU]) == (SMU,)
    text = file.read_text()
    assert text.startswith(CONFIG)
    assert load_settings(file).instruments["smu2"] == SMU.options
    assert load_settings(file).instruments["smu1"]["serial"] == "111"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["labctl.toml"]


def test_what_needs_a_person_is_a_comment_that_a_person_completes(file: Path) -> None:
    add_to_file(file, [RACK])
    assert set(load_settings(file).instruments) == {"smu1"}
    added = file.read_text().removeprefix(CONFIG)
    lines = [line.removeprefix("# ") for line in added.strip().splitlines()[:-1]]
    by_hand = "\n".join(lines).replace('step_file_dir = ""', 'step_file_dir = "steps"')
    file.write_text(CONFIG + by_hand)
    assert load_settings(file).instruments["rack1"] == {
        "driver": "neware_bts",
        "host": "10.0.0.9",
        "step_file_dir": "steps",
    }


def test_a_comment_is_not_written_twice(file: Path) -> None:
    add_to_file(file, [RACK])
    once = file.read_bytes()
    assert add_to_file(file, [RACK]) == ()
    assert file.read_bytes() == once


def test_an_instrument_of_that_name_is_not_written_again(file: Path) -> None:
    add_to_file(file, [SMU])
    once = file.read_bytes()
    with pytest.raises(ConfigError, match=r"\[instruments.smu2\] is there already"):
        add_to_file(file, [SMU])
    assert file.read_bytes() == once


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[node]\nnam = 1\n", "did you mean 'name'"),
        ("instruments = {}\n", "would not fit with the new instruments"),
        ("[node\n", "labctl.toml:1"),
    ],
)
def test_a_file_that_does_not_fit_is_not_changed(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        add_to_file(file, [SMU])
    assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == ["labctl.toml"]


def test_an_entry_that_no_driver_would_take_is_not_written(file: Path) -> None:
    wrong = Entry(name="smu2", options={**SMU.options, "model": "9999"})
    with pytest.raises(ConfigError, match="model is '9999'"):
        add_to_file(file, [wrong])
    assert file.read_text() == CONFIG


def test_a_file_that_a_link_leads_to_is_changed_and_the_link_stays(file: Path) -> None:
    link = file.with_name("link.toml")
    link.symlink_to(file)
    add_to_file(link, [SMU])
    assert link.is_symlink()
    assert "smu2" in file.read_text()


@pytest.mark.parametrize("text", ["", CONFIG.rstrip("\n"), CONFIG.replace("\n", "\r\n")])
def test_the_lines_of_a_file_end_as_they_did(file: Path, text: str) -> None:
    file.write_bytes(text.encode())
    add_to_file(file, [SMU])
    after = file.read_bytes()
    assert "smu2" in load_settings(file).instruments
    assert (b"\r\n" in after) == ("\r\n" in text)
    if "\r\n" in text:
        assert b"\n" not in after.replace(b"\r\n", b"")


def test_a_folder_that_takes_no_file_leaves_the_configuration_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device; nothing was changed"):
        add_to_file(file, [SMU])
    assert file.read_text() == CONFIG
    assert [path.name for path in file.parent.iterdir()] == ["labctl.toml"]


def test_what_somebody_else_writes_meanwhile_is_not_overwritten(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = CONFIG + "# and this\n"
    monkeypatch.setattr(os, "fsync", lambda _: file.write_text(text))
    with pytest.raises(ConfigError, match="was changed by somebody else meanwhile"):
        add_to_file(file, [SMU])
    assert file.read_text() == text


def test_an_instrument_is_known_again_by_its_number_or_its_place(file: Path) -> None:
    known = known_instruments(load_settings(file))
    assert configured_as(keithley("10.0.0.7", "111"), known) == ("smu1", "")
    assert configured_as(keithley("10.0.0.8", "222"), known) == ("", "")
    name, wrong = configured_as(keithley("10.0.0.8", "111"), known)
    assert (name, wrong) == ("smu1", "is at another address in the configuration")
    name, wrong = configured_as(keithley("10.0.0.7", "222"), known)
    assert (name, wrong) == ("smu1", "has the serial number 111 in the configuration")


def test_only_what_is_new_gets_an_entry_and_each_a_name_of_its_own(file: Path) -> None:
    known = known_instruments(load_settings(file))
    seen = [
        keithley("10.0.0.7", "111"),
        keithley("10.0.0.8", "222"),
        keithley("10.0.0.18", "222"),
        keithley("10.0.0.9", "333"),
        keithley("10.0.0.10", "444", outcome=Outcome.OWNED),
    ]
    entries = entries_of(seen, known)
    assert [(each.name, each.options["serial"]) for each in entries] == [
        ("smu2", "222"),
        ("smu3", "333"),
    ]
    add_to_file(file, entries)
    assert entries_of(seen, known_instruments(load_settings(file))) == []


@given(
    serial=st.text(min_size=1, max_size=40),
    firmware=st.text(max_size=40),
    manufacturer=st.text(max_size=40),
)
def test_whatever_an_instrument_says_of_itself_the_entry_says_no_more(
    serial: str, firmware: str, manufacturer: str
) -> None:
    found = Found(
        driver="keithley",
        manufacturer=manufacturer,
        model="2450",
        serial=serial,
        firmware=firmware,
        options={"model": "2450", "serial": serial},
    )
    place = Place(wire=Wire.TCP, address="10.0.0.7", port=5025)
    [entry] = entries_of([Seen(place=place, outcome=Outcome.FOUND, found=found)])
    try:
        serial.encode()
    except UnicodeEncodeError:
        return
    assert tomllib.loads(lines_of(entry)) == {
        "instruments": {
            "smu1": {
                "driver": "keithley",
                "resource": "TCPIP::10.0.0.7::5025::SOCKET",
                "model": "2450",
                "serial": serial,
            }
        }
    }
