"""What an administrator says about a climate chamber."""

from __future__ import annotations

import math

import msgspec


class EspecConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One chamber with a P-300, PR-3J or SCP-220 controller.

    host, port: its TCP port: 57732 for a PR-3J, 10001 for a P-300 behind its converter. Without
        ``host``, ``port`` is a serial port, best by a name that stays (``/dev/serial/by-id/…``).
    baud: of a serial port.
    unit: its address on an RS-485 line, 1 to 16; 0 for RS-232 and TCP, where there is none.
    rom: the version that it tells; another one at that place is refused. Left out, the first one
        found is held to.
    temperature_min_degC, temperature_max_degC: what the chamber is used for, within what it can do.
    monitor_pause_s, setting_pause_s: how long it is left alone after a question, and after a
        setting.
    """

    host: str = ""
    port: int | str = 57_732
    baud: int = 9600
    unit: int = 0
    rom: str = ""
    temperature_min_degC: float = -math.inf
    temperature_max_degC: float = math.inf
    monitor_pause_s: float = 0.3
    setting_pause_s: float = 0.5
    reply_timeout_s: float = 5.0
    connect_timeout_s: float = 5.0

    def __post_init__(self) -> None:
        if self.host and not (isinstance(self.port, int) and 1 <= self.port <= 65_535):
            raise ValueError(f"port is {self.port!r}, beside a host it must be 1 to 65535")
        if not self.host and not (isinstance(self.port, str) and self.port.strip()):
            raise ValueError("where is it? 'host' names a chamber on the network, 'port' alone a "
                             "serial port such as /dev/ttyUSB0")  # fmt: skip
        for name, low, high in (
            ("baud", 300, 1_000_000),
            ("unit", 0, 16),
            ("monitor_pause_s", 0.0, 10.0),
            ("setting_pause_s", 0.0, 10.0),
            ("reply_timeout_s", 0.1, 60.0),
            ("connect_timeout_s", 0.1, 60.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value:g}, it must be {low:g} to {high:g}")
        if not self.temperature_min_degC < self.temperature_max_degC:
            raise ValueError("temperature_min_degC must be below temperature_max_degC")
