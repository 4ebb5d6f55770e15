"""Two ways of writing one place give one name, so that one lock stands for both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.drivers import DRIVERS, driver_class
from labctl.errors import LinkError
from labctl.wire.places import (
    names_of_options,
    number_name,
    serial_names,
    tcp_names,
    visa_names,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("TCPIP::127.0.0.1::5025::SOCKET", "tcpip0::localhost::5025::SOCKET"),
        ("USB::1510::9296::04419969::INSTR", "USB0::0x05E6::0x2450::04419969::0::INSTR"),
        ("GPIB::18", "GPIB0::18::INSTR"),
        ("TCPIP::127.0.0.1::INSTR", "TCPIP0::localhost::inst0::INSTR"),
        ("TCPIP::127.0.0.1::hislip0::INSTR", "TCPIP0::localhost::hislip0,4880::INSTR"),
    ],
)
def test_one_visa_resource_has_one_name_however_it_is_written(one: str, other: str) -> None:
    assert set(visa_names(one)) & set(visa_names(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("TCPIP::127.0.0.1::5025::SOCKET", "TCPIP::127.0.0.1::5026::SOCKET"),
        ("TCPIP::127.0.0.1::5025::SOCKET", "TCPIP::127.0.0.2::5025::SOCKET"),
        ("USB0::0x05E6::0x2450::04419969::INSTR", "USB0::0x05E6::0x2450::04419970::INSTR"),
        ("GPIB0::18::INSTR", "GPIB1::18::INSTR"),
        ("GPIB0::18::INSTR", "GPIB0::18::2::INSTR"),
        ("ASRL1::INSTR", "ASRL2::INSTR"),
        ("TCPIP::127.0.0.1::gpib0,5::INSTR", "TCPIP::127.0.0.1::gpib0,6::INSTR"),
        ("TCPIP::127.0.0.1::gpib0,5::INSTR", "TCPIP::127.0.0.1::inst0::INSTR"),
    ],
)
def test_two_instruments_share_no_name(one: str, other: str) -> None:
    assert not set(visa_names(one)) & set(visa_names(other))


def test_the_socket_and_the_vxi_11_of_one_host_are_one_instrument() -> None:
    by_vxi, by_socket = visa_names("TCPIP::127.0.0.1::inst0::INSTR"), tcp_names("127.0.0.1", 5025)
    assert set(by_socket) < set(by_vxi)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    master, slave = os.openpty()
    link = tmp_path / "by-id"
    link.symlink_to(os.ttyname(slave))
    yield link
    os.close(master)
    os.close(slave)


def test_a_serial_port_is_the_device_that_its_names_lead_to(device: Path) -> None:
    real = str(device.readlink())
    assert serial_names(str(device)) == serial_names(real) == (f"serial {real}",)
    assert visa_names(f"ASRL{device}::INSTR") == serial_names(real)


def test_a_serial_line_over_the_network_is_its_tcp_port() -> None:
    assert serial_names("socket://localhost:7001") == tcp_names("127.0.0.1", 7001)
    assert serial_names("rfc2217://localhost:7001") == tcp_names("127.0.0.1", 7001)
    assert serial_names("socket://localhost:x") == ("serial socket://localhost:x",)


def test_an_address_is_the_same_in_every_spelling() -> None:
    assert tcp_names("::1", 502) == tcp_names("0:0:0:0:0:0:0:1", 502)
    assert tcp_names("::ffff:127.0.0.1", 502) == tcp_names("127.0.0.1", 502)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 300, ""])
def test_a_host_that_nobody_knows_is_no_place(host: str) -> None:
    if host:
        with pytest.raises(LinkError, match="is not known, nothing was sent"):
            tcp_names(host, 502)
    else:
        assert names_of_options({"host": host, "port": 502}) == ()


def test_a_number_is_known_again_whatever_the_case_of_its_letters() -> None:
    assert number_name("PalmSens", "ES4HR20b") == number_name("palmsens ", "es4hr20B")
    assert number_name("PalmSens", "1") != number_name("Keithley", "1")


@pytest.mark.parametrize("kind", sorted(DRIVERS))
def test_every_drivers_options_say_where_its_instrument_is(kind: str) -> None:
    """By the keys that the lock looks for: else two daemons could own it."""
    config: type[msgspec.Struct] = driver_class(kind).Config
    fields = {field.name: field for field in msgspec.structs.fields(config)}
    examples: dict[str, object] = {"resource": "GPIB0::18::INSTR", "host": "127.0.0.1"}
    options = {key: examples[key] for key in examples if key in fields}
    options["port"] = 502 if "host" in options else "/dev/ttyACM0"
    assert {key for key in options if key != "port"} or "port" in fields
    assert names_of_options({key: options[key] for key in options if key in fields})


@given(st.text(max_size=60))
def test_any_text_is_a_place_or_a_host_that_nobody_knows(text: str) -> None:
    for look in (visa_names, serial_names):
        if "tcpip" in text.lower() or "://" in text:
            continue
        if "\0" not in text:
            assert look(text)
