"""Every probe: what it writes leads back to where it was found, and no answer breaks it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl.clock import VirtualClock
from labctl.discovery.scan import names_of, probes
from labctl.drivers import DRIVERS, PROBES, build_driver, checked_options
from labctl.drivers.probe import Found, Place, Wire
from labctl.wire.places import names_of_options

KINDS = sorted(PROBES)


def test_a_probe_is_of_a_driver_that_there_is() -> None:
    assert set(PROBES) <= set(DRIVERS)
    assert {"keithley", "neware_bts", "palmsens", "espec", "rodeostat"} <= set(PROBES)
    stems = [probe.stem for probe in probes().values()]
    assert len(set(stems)) == len(stems)


def places_for(kind: str) -> list[Place]:
    probe = probes()[kind]
    found = []
    if probe.tcp_ports is not None:
        ports = {40_000, *probe.tcp_ports}
        found += [Place(wire=Wire.TCP, address=host, port=port) for port in ports
                  for host in ("127.0.0.1", "localhost")]  # fmt: skip
    if probe.serial:
        found += [
            Place(wire=Wire.SERIAL, address=address)
            for address in ("/dev/ttyACM7", "socket://127.0.0.1:7001")
            if kind != "espec" or "://" not in address
        ]
    if probe.visa:
        found.append(Place(wire=Wire.VISA, address="USB0::0x05E6::0x2450::1::INSTR"))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_options_that_are_written_lead_to_the_place_that_was_asked(kind: str) -> None:
    probe = probes()[kind]
    places = places_for(kind)
    assert places
    for place in places:
        for example in probe.examples.values():
            options: dict[str, object] = {
                key: value for key, value in example.items() if key not in {"host", "port"}
            }
            options |= dict(probe.options_at(place))
            checked = checked_options(kind, options, name="x")
            assert set(names_of_options(msgspec.structs.asdict(checked))) & set(names_of(place))


@pytest.mark.parametrize("kind", KINDS)
def test_the_examples_are_instruments_that_the_driver_takes(kind: str) -> None:
    probe = probes()[kind]
    assert probe.examples
    for options in probe.examples.values():
        assert build_driver(kind, dict(options), name="x", clock=VirtualClock())


class Saying:
    """Whatever is at the place says the same few things, one after the other."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self._asked = 0

    def ask(self, question: bytes, *, until: bytes = b"\n", patience_s: float = 0.0) -> bytes:
        assert until in question or b"?" in question or len(question) < 40
        self._asked += 1
        return self._answers[self._asked % len(self._answers)]


LIKELY = st.sampled_from(
    [
        b"KEITHLEY INSTRUMENTS,MODEL 2450,1,1.0\n",
        b"KEITHLEY INSTRUMENTS,MODEL 2450,,\n",
        b"iES4HR20B0008\n",
        b"tes4_hr1300#Sep 30 2025\nR*\n",
        b"tes4_xx#\n",
        b"Pda8000190m;ba800000Am,14,20B\n",
        b"T,T,S2,160.0\r\n",
        b"NA:CMD ERR\r\n",
        b"PR3J VER1.10\r\n",
        b'{"success":true,"response":{"command":"getVariant","variant":"10V_microAmpV0.2"}}\r\n',
        b'{"success":true,"response":{"command":"getDeviceId","deviceId":-1}}\r\n',
        b'{"t":1,"v":0.5,"i":1.0}\r\n',
        b"{}\r\n",
        b'<?xml version="1.0"?><bts version="1.0"><cmd>connect_resp</cmd><result>ok</result></bts>',
        b'<?xml version="1.0"?><bts version="1.0"><cmd>connect_resp</cmd></bts>\n\n#\r\n',
    ]
)


@pytest.mark.parametrize("kind", KINDS)
@given(answers=st.lists(LIKELY | st.binary(max_size=60), min_size=1, max_size=5))
def test_whatever_is_said_is_an_instrument_or_none(kind: str, answers: list[bytes]) -> None:
    found = probes()[kind].ask(Saying(answers))
    assert found is None or isinstance(found, Found)
    if found is not None:
        assert found.driver in {kind, ""}
        assert found.serial.isprintable()
        assert found.firmware.isprintable()
