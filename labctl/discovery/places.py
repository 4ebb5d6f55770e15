"""Where something may be: at this PC, or where a person says. Nothing is sent here.

VISA is not asked for its list of network instruments: it would call out to the whole network.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from labctl.drivers.probe import Place, Wire
from labctl.errors import CommandError

MOST_ADDRESSES: Final = 1024
USB_DEVICES: Final = Path("/sys/bus/usb/devices")
SERIAL_BY_ID: Final = Path("/dev/serial/by-id")

_TEST_AND_MEASUREMENT: Final = ("fe", "03")
"""Class and subclass of a USB interface of that kind: USBTMC, rev. 1.0, section 5.5."""

_HOST = re.compile(r"[0-9A-Za-z_:][-0-9A-Za-z_.:%]*")
_HOST_AND_PORT = re.compile(
    r"\[(?P<six>[^\]]+)\](?::(?P<six_port>\d+))?|(?P<host>[^:]+):(?P<port>\d+)"
)


def serial_places() -> tuple[Place, ...]:
    """Every serial port of this PC, by a name that stays where it has one."""
    from serial.tools import list_ports

    stays = _names_that_stay(SERIAL_BY_ID)
    places = []
    for port in sorted(list_ports.comports()):
        usb = (port.vid, port.pid) if port.vid is not None and port.pid is not None else None
        about = port.description or ""
        if port.serial_number:
            about = f"{about}, USB serial number {port.serial_number}"
        address = stays.get(os.path.realpath(port.device), port.device)
        places.append(
            Place(
                wire=Wire.SERIAL,
                address=address,
                usb=usb,
                about="" if about in {"", "n/a"} else about,
            )
        )
    return tuple(places)


def usb_places(devices: Path = USB_DEVICES) -> tuple[Place, ...]:
    """Every USB instrument (USBTMC) of this PC, as the kernel lists them."""
    places = []
    for interface in sorted(devices.glob("*:*")):
        kind = (_said(interface, "bInterfaceClass"), _said(interface, "bInterfaceSubClass"))
        device = devices / interface.name.partition(":")[0]
        vendor, product = _said(device, "idVendor"), _said(device, "idProduct")
        serial = _said(device, "serial")
        if kind != _TEST_AND_MEASUREMENT or not (vendor and product and serial):
            continue
        number = int(_said(interface, "bInterfaceNumber") or "0", 16)
        tail = f"::{number}" if number else ""
        places.append(
            Place(
                wire=Wire.VISA,
                address=f"USB0::0x{vendor.upper()}::0x{product.upper()}::{serial}{tail}::INSTR",
                usb=(int(vendor, 16), int(product, 16)),
                about=f"{_said(device, 'manufacturer')} {_said(device, 'product')}".strip(),
            )
        )
    return tuple(places)


def gpib_places() -> tuple[Place, ...]:
    """Every listener on GPIB; none where this PC has no GPIB, or no library for it."""
    try:
        # Where the library is missing the import itself says so, with whatever exception it likes.
        gpib = importlib.import_module("pyvisa_py.gpib")
        found = gpib.GPIBSession.list_resources()
    except Exception:  # noqa: BLE001
        return ()
    return tuple(Place(wire=Wire.VISA, address=str(each)) for each in found)


def place_of_port(port: str) -> Place:
    """A serial port that a person named."""
    if "://" in port:
        return Place(wire=Wire.SERIAL, address=port)
    known = {os.path.realpath(each.address): each.usb for each in serial_places()}
    usb = known.get(os.path.realpath(port))
    return Place(wire=Wire.SERIAL, address=str(Path(port).absolute()), usb=usb)


def place_of_resource(resource: str) -> Place:
    """A VISA resource that a person named; a plain socket is a TCP port."""
    from pyvisa.rname import InvalidResourceName, ResourceName, TCPIPSocket

    try:
        parsed = ResourceName.from_string(resource)
    except InvalidResourceName as error:
        raise CommandError(f"{resource!r} is no VISA resource: {error}") from error
    if isinstance(parsed, TCPIPSocket) and parsed.port.isdecimal():
        return Place(wire=Wire.TCP, address=parsed.host_address, port=int(parsed.port))
    return Place(wire=Wire.VISA, address=resource)


def places_of_host(text: str, ports: Iterable[int]) -> tuple[Place, ...]:
    """``HOST:PORT``, or ``HOST`` at each of ``ports``.

    Raises:
        CommandError: it is neither.
    """
    found = _HOST_AND_PORT.fullmatch(text)
    host, port = text, ""
    if found:
        host = found["six"] or found["host"]
        port = found["six_port"] or found["port"] or ""
    if not _HOST.fullmatch(host):
        raise CommandError(f"{text!r} is no host: write HOST or HOST:PORT, e.g. 192.168.1.20:502")
    if ":" in host and not _is_address(host):
        raise CommandError(f"{text!r} is no host: an IPv6 address with a port is [ADDRESS]:PORT")
    if port and not 0 < int(port) < 65_536:
        raise CommandError(f"{text!r} is no host: a port is 1 to 65535")
    return tuple(
        Place(wire=Wire.TCP, address=host, port=number)
        for number in ((int(port),) if port else sorted(ports))
    )


def places_of_network(text: str, ports: Iterable[int]) -> tuple[Place, ...]:
    """Each of ``ports`` at each address of a network such as ``192.168.1.0/24``.

    Raises:
        CommandError: it is no network, or has too many addresses.
    """
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise CommandError(
            f"{text!r} is no network: write it as 192.168.1.0/24 ({error})"
        ) from error
    if network.num_addresses > MOST_ADDRESSES:
        raise CommandError(
            f"the network {network} has {network.num_addresses} addresses, and at most "
            f"{MOST_ADDRESSES} are asked in one go: name a part of it, such as "
            f"{network.network_address}/{network.max_prefixlen - 8}"
        )
    hosts = [str(host) for host in network.hosts()]
    return tuple(
        Place(wire=Wire.TCP, address=host, port=port) for host in hosts for port in sorted(ports)
    )


def _names_that_stay(folder: Path) -> dict[str, str]:
    """Devices and their names by what is plugged in."""
    return {os.path.realpath(link): str(link) for link in _links(folder)}


def _links(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(folder.iterdir())


def _said(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
