"""What an instrument's place is called, so that two ways of writing one place give one name.

A place may have several names (a host with two addresses); two places are the same where they share
one. Names are for lock files and for comparing: nothing is opened here, only looked up.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from labctl.errors import LinkError

SCPI_PORT = 5025
"""Where an instrument with VXI-11 or HiSLIP takes SCPI over a plain socket too."""

ITSELF = frozenset({"inst0", "hislip0"})
"""Devices that are the host itself; others, such as ``gpib0,5``, are behind it."""


def names_of_options(options: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the place that an instrument's options say, by the keys that all drivers use.

    ``resource`` is a VISA resource; ``host`` with ``port`` a TCP port; ``port`` alone a serial
    port. Empty where none of them is there.

    Raises:
        LinkError: a host's name is not known.
    """
    resource, host, port = (options.get(key) for key in ("resource", "host", "port"))
    if isinstance(resource, str) and resource:
        return visa_names(resource)
    if isinstance(host, str) and host and isinstance(port, int):
        return tcp_names(host, port)
    if isinstance(port, str) and port:
        return serial_names(port)
    return ()


def tcp_names(host: str, port: int) -> tuple[str, ...]:
    """One name for each address that ``host`` has.

    Raises:
        LinkError: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError) as error:
        raise LinkError(
            f"{host}:{port}: the host's name is not known, nothing was sent ({error})",
            address=f"{host}:{port}",
        ) from error
    addresses = {_plain(str(address[0])) for _, _, _, _, address in found}
    return tuple(f"tcp {address} {port}" for address in sorted(addresses))


def serial_names(port: str) -> tuple[str, ...]:
    """The device that a serial port's name leads to in the end; of ``socket://host:port`` that.

    Raises:
        LinkError: a host's name is not known.
    """
    if "://" in port:
        url = urlsplit(port)
        try:
            number = url.port
        except ValueError:
            number = None
        if url.scheme in {"socket", "rfc2217"} and url.hostname and number:
            return tcp_names(url.hostname, number)
        return (f"serial {port}",)
    return (f"serial {os.path.realpath(port)}",)


def visa_names(resource: str) -> tuple[str, ...]:
    """The place of a VISA resource, however it is written.

    An instrument with VXI-11 or HiSLIP has the name of its host's port for SCPI too: both lead into
    one instrument.

    Raises:
        LinkError: a host's name is not known.
    """
    from pyvisa.rname import InvalidResourceName, ResourceName

    try:
        parsed = ResourceName.from_string(resource)
    except InvalidResourceName:
        return (f"visa {resource.strip().upper()}",)
    parts = {key: str(value) for key, value in vars(parsed).items() if value is not None}
    kind = f"{parsed.interface_type} {parsed.resource_class}".upper()
    board = parts.get("board", "0")
    if kind == "TCPIP SOCKET" and parts["port"].isdecimal():
        return tcp_names(parts["host_address"], int(parts["port"]))
    if kind == "TCPIP INSTR":
        by_socket = tcp_names(parts["host_address"], SCPI_PORT)
        device = parts["lan_device_name"].lower()
        if device.startswith("hislip"):
            device = device.partition(",")[0]
        itself = by_socket if device in ITSELF else ()
        return (*itself, *(f"{name} {device}" for name in by_socket))
    if kind == "USB INSTR":
        vendor, product = _hexadecimal(parts["manufacturer_id"]), _hexadecimal(parts["model_code"])
        return (f"usb {vendor} {product} {parts['serial_number']}",)
    if kind == "GPIB INSTR":
        second = parts.get("secondary_address", "")
        return (f"gpib {board} {parts['primary_address']} {second}".strip(),)
    if kind == "ASRL INSTR" and board.startswith("/"):
        return serial_names(board)
    return (f"visa {str(parsed).upper()}",)


def number_name(manufacturer: str, serial: str) -> str:
    """The name of an instrument by its serial number, wherever it is."""
    return f"number {manufacturer.strip()} {serial.strip()}".lower()


def _plain(address: str) -> str:
    """An address as it is usually written; IPv4 within IPv6 is IPv4."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def _hexadecimal(number: str) -> str:
    try:
        return f"{int(number, 0):04x}"
    except ValueError:
        return number.lower()
