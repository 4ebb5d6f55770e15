"""Where a scan looks: what this PC has, and only what a person names of the network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labctl.discovery.places import (
    gpib_places,
    place_of_port,
    place_of_resource,
    places_of_host,
    places_of_network,
    serial_places,
    usb_places,
)
from labctl.discovery.scan import conversations, known_ports
from labctl.drivers.probe import Place, Wire
from labctl.errors import CommandError


def told(places: tuple[Place, ...]) -> list[str]:
    return [str(place) for place in places]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("192.168.1.20", ["192.168.1.20:502", "192.168.1.20:5025"]),
        ("192.168.1.20:57732", ["192.168.1.20:57732"]),
        ("smu.lab.example:5025", ["smu.lab.example:5025"]),
        ("::1", ["[::1]:502", "[::1]:5025"]),
        ("[fe80::1%eth0]:502", ["[fe80::1%eth0]:502"]),
    ],
)
def test_a_host_is_asked_at_the_port_that_is_named_or_at_all(text: str, places: list[str]) -> None:
    assert told(places_of_host(text, (5025, 502))) == places


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "a/b", "--host", "1.2.3.4:0", "1.2.3.4:65536", "1.2.3.4:x", "::1:x:"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="is no host"):
        places_of_host(text, (502,))


def test_a_network_is_every_host_in_it_and_no_broadcast() -> None:
    places = told(places_of_network("10.1.2.0/29", (502,)))
    assert places == [f"10.1.2.{host}:502" for host in range(1, 7)]
    assert told(places_of_network("10.1.2.3/32", (502,))) == ["10.1.2.3:502"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.0/8", "at most 1024 are asked in one go: name a part of it, such as 10.0.0.0/24"),
        ("fe80::/64", "at most 1024"),
        ("office", "is no network: write it as 192.168.1.0/24"),
    ],
)
def test_a_network_that_is_too_large_is_refused(text: str, says: str) -> None:
    with pytest.raises(CommandError, match=says):
        places_of_network(text, (502,))


def usb_device(folder: Path, name: str, kind: tuple[str, str], **said: str) -> None:
    (folder / name).mkdir()
    for key, value in said.items():
        (folder / name / key).write_text(f"{value}\n")
    interface = folder / f"{name}:1.0"
    interface.mkdir()
    for key, value in zip(("bInterfaceClass", "bInterfaceSubClass"), kind, strict=True):
        (interface / key).write_text(f"{value}\n")
    (interface / "bInterfaceNumber").write_text("00\n")


def test_a_usb_instrument_is_one_by_the_class_of_its_interface(tmp_path: Path) -> None:
    """The files are those of the kernel's sysfs-bus-usb; 05e6:2450 is a 2450 over USB."""
    usb_device(
        tmp_path,
        "1-2",
        ("fe", "03"),
        idVendor="05e6",
        idProduct="2450",
        serial="04419969",
        manufacturer="Keithley",
        product="Model 2450",
    )
    usb_device(tmp_path, "1-3", ("08", "06"), idVendor="0781", idProduct="5567", serial="x")
    usb_device(tmp_path, "1-4", ("fe", "03"), idVendor="05e6", idProduct="2460")
    (tmp_path / "usb1").mkdir()
    [place] = usb_places(tmp_path)
    assert place.address == "USB0::0x05E6::0x2450::04419969::INSTR"
    assert (place.wire, place.usb, place.about) == (
        Wire.VISA,
        (0x05E6, 0x2450),
        "Keithley Model 2450",
    )
    [(line, [probe])] = conversations(place)
    assert (line, probe.stem) == (None, "smu")
    assert usb_places(tmp_path / "nothing") == ()


def test_this_pc_is_looked_at_without_anything_being_sent() -> None:
    assert all(place.wire is Wire.SERIAL for place in serial_places())
    assert all("GPIB" in place.address for place in gpib_places())


def test_a_named_port_is_written_so_that_it_is_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_of_port("ps").address == str(tmp_path / "ps")
    assert place_of_port("socket://h:1").address == "socket://h:1"


def test_a_visa_socket_is_the_port_that_it_is() -> None:
    assert place_of_resource("TCPIP::h::5025::SOCKET") == Place(
        wire=Wire.TCP, address="h", port=5025
    )
    assert place_of_resource("GPIB0::18::INSTR").wire is Wire.VISA
    with pytest.raises(CommandError, match="is no VISA resource"):
        place_of_resource("nonsense")


def test_a_port_where_one_kind_listens_is_asked_by_that_kind_alone() -> None:
    """502 BTS (aurora-neware), 5025 SCPI (2461-901-01), 57732 PR-3J (espec-pr3j)."""
    assert {502, 5025, 57732} <= set(known_ports())
    for port, stem in ((502, "rack"), (5025, "smu"), (57732, "chamber")):
        [(_, asking)] = conversations(Place(wire=Wire.TCP, address="h", port=port))
        assert [probe.stem for probe in asking] == [stem]


def test_every_kind_asks_at_a_port_that_says_nothing_and_bts_on_a_connection_of_its_own() -> None:
    asked = conversations(Place(wire=Wire.TCP, address="h", port=40_000))
    stems = [[probe.stem for probe in asking] for _, asking in asked]
    assert stems[-1] == ["rack"]
    assert {"smu", "potentiostat", "chamber"} <= set(stems[0])


def test_a_line_with_a_speed_is_asked_at_each_speed_and_usb_once(tmp_path: Path) -> None:
    line = Place(wire=Wire.SERIAL, address="/dev/ttyUSB0", usb=(0x0403, 0x6001))
    speeds = [line.baud for line, _ in conversations(line) if line is not None]
    assert speeds == sorted(speeds)
    assert {9600, 115_200, 230_400, 921_600} <= set(speeds)
    usb = Place(wire=Wire.SERIAL, address="/dev/ttyACM0", usb=(0x16C0, 0x0483))
    assert len(conversations(usb)) == 1
    master, slave = os.openpty()
    (tmp_path / "link").symlink_to(os.ttyname(slave))
    terminal = Place(wire=Wire.SERIAL, address=str(tmp_path / "link"))
    assert len(conversations(terminal)) == 1
    os.close(master)
    os.close(slave)
