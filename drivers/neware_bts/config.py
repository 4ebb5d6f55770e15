"""What an administrator says about a Neware BTS host."""

from __future__ import annotations

import math

import msgspec

from labctl.drivers.base import Capabilities, CurrentRange, Failsafe
from labctl.drivers.neware_bts.messages import DEFAULT_PORT

TECHNIQUES = frozenset(
    {
        "rest",
        "constant_current",
        "constant_voltage",
        "constant_current_constant_voltage",
        "constant_power",
        "constant_resistance",
        "voltage_sweep",
    }
)


class NewareConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One BTS host and its channels, which are all of one kind.

    step_file_dir: an existing folder, as this PC sees it, that the BTS host can read.
    step_file_dir_on_host: the same folder as the BTS host sees it, such as ``D:\\labctl``; the same
        path if left out.
    backup_dir_on_host: where BTS keeps its own copy of the data; the same folder if left out.
    utc_offset_s: what the host's clock is ahead of UTC, 3600 in Zurich in winter. BTS gives times
        without a zone; a host that keeps summer time is off by an hour for half of the year.
    reply_timeout_s: BTS stalls for some seconds now and then.
    start_timeout_s: how long a started channel may take to show its new test.
    stop_timeout_s: how long a stopped channel may take to show that it stopped.
    connections: how many requests may be under way at once.
    voltage_min_V, voltage_max_V, current_full_scales_A, current_resolution, fastest_record_s: from
        the name plate and data sheet of the channels, which BTS does not tell; the resolution is a
        fraction of full scale.
    temperature_watched_elsewhere: accept programs with temperature limits, which BTS cannot watch.
    """

    host: str
    step_file_dir: str
    step_file_dir_on_host: str = ""
    backup_dir_on_host: str = ""
    port: int = DEFAULT_PORT
    username: str = "admin"
    password: str = "neware"  # noqa: S105 - what BTS is delivered with
    utc_offset_s: float = 0.0
    reply_timeout_s: float = 30.0
    connect_timeout_s: float = 10.0
    start_timeout_s: float = 30.0
    stop_timeout_s: float = 15.0
    connections: int = 1
    voltage_min_V: float = -5.0
    voltage_max_V: float = 5.0
    current_full_scales_A: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    current_resolution: float = 1e-6
    fastest_record_s: float = 0.1
    temperature_watched_elsewhere: bool = False

    def __post_init__(self) -> None:
        if not self.host.strip():
            raise ValueError("host is empty: it is the name or address of the BTS host")
        if not self.step_file_dir.strip():
            raise ValueError("step_file_dir is empty: it is a folder that the BTS host can read")
        if not 1 <= self.port <= 65_535:
            raise ValueError(f"port is {self.port}, it must be 1 to 65535")
        if not 1 <= self.connections <= 64:
            raise ValueError(f"connections is {self.connections}, it must be 1 to 64")
        for name in ("reply_timeout_s", "connect_timeout_s", "start_timeout_s", "stop_timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name):g}, it must be above 0")
        if not -86_400 < self.utc_offset_s < 86_400:
            raise ValueError(f"utc_offset_s is {self.utc_offset_s:g}, it must be within a day")
        if not self.voltage_min_V < self.voltage_max_V:
            raise ValueError("voltage_min_V must be below voltage_max_V")
        if not self.current_full_scales_A or not all(
            0 < full_scale_A < math.inf for full_scale_A in self.current_full_scales_A
        ):
            raise ValueError("current_full_scales_A needs at least one current, all above 0")
        if not 0 < self.current_resolution < 1:
            raise ValueError("current_resolution must be between 0 and 1")
        if not 0 < self.fastest_record_s < math.inf:
            raise ValueError("fastest_record_s must be above 0")

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            techniques=TECHNIQUES,
            voltage_min_V=self.voltage_min_V,
            voltage_max_V=self.voltage_max_V,
            current_ranges=tuple(
                CurrentRange(full_scale_A, full_scale_A * self.current_resolution)
                for full_scale_A in sorted(self.current_full_scales_A)
            ),
            fastest_record_s=self.fastest_record_s,
            failsafe=Failsafe.ONBOARD,
            leaves_loops=True,
        )
