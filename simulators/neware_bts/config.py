"""What a rack consists of, as a TOML file can say it.

::

    port = 5020
    seed = 7
    speed = "virtual"
    state_dir = "rack-state"

    [[cells]]
    channel = "1-3"
    spec.name = "HEV-01"
    spec.material = "HE-V"
    spec.active_mass_g = 0.002
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import msgspec

from labctl.clock import Clock, clock_from_speed
from labctl.errors import ConfigError, Problem
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.faults import Fault

CHANNELS_PER_UNIT = 8


class CellInChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``channel`` is ``subdevid-chlid``, such as ``1-3``.

    anode_from: the channel of the half cell whose positive electrode becomes this full cell's
    anode, with the sodium and the film that it has when the first test on this channel begins.
    """

    channel: str
    spec: CellSpec
    anode_from: str = ""


class RackConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rack; the defaults are two units of eight channels with nothing connected.

    port: 0 is any free port.
    ip: what the rack says of itself; it need not be where it listens.
    speed: ``virtual``, or how many times faster than the wall.
    state_dir: directory that outlives the process, relative to the file; '' keeps nothing.
    epoch_unix_s: where the rack's own clock begins; None is the moment of the first start.
    response_delay_s, stall_probability, stall_s: how late answers come, by the rack's clock.
    answers_subdevid_1: getchlstatus names every unit 1, as some real racks do.
    """

    host: str = "127.0.0.1"
    port: int = 5020
    ip: str = "127.0.0.1"
    devtype: int = 27
    devid: int = 21
    units: int = 2
    seed: int = 1
    speed: str | float = 1.0
    state_dir: str = ""
    epoch_unix_s: float | None = None
    username: str = "admin"
    password: str = "neware"  # noqa: S105
    response_delay_s: float = 0.0
    stall_probability: float = 0.0
    stall_s: float = 5.0
    answers_subdevid_1: bool = False
    faults: tuple[Fault, ...] = ()
    cells: tuple[CellInChannel, ...] = ()

    def __post_init__(self) -> None:
        for key, low, high in (
            ("port", 0, 65535),
            ("devtype", 0, 65535),
            ("devid", 0, 65535),
            ("units", 1, 90),
            ("response_delay_s", 0, 3600),
            ("stall_probability", 0, 1),
            ("stall_s", 0, 3600),
        ):
            value = getattr(self, key)
            if not low <= value <= high:
                raise ValueError(f"{key} must be {low} to {high}, not {value}")
        if self.epoch_unix_s is not None and not 0 <= self.epoch_unix_s < math.inf:
            raise ValueError(f"epoch_unix_s must be a time since 1970, not {self.epoch_unix_s}")
        self.clock()
        taken: set[str] = set()
        for place, item in enumerate(self.cells):
            if item.channel not in self.channel_names():
                raise ValueError(
                    f"cells[{place}].channel: the rack has no channel {item.channel!r}; "
                    f"its channels are 1-1 to {self.units}-{CHANNELS_PER_UNIT}"
                )
            if item.channel in taken:
                raise ValueError(f"cells[{place}].channel: {item.channel} holds a cell already")
            taken.add(item.channel)
            if item.anode_from and item.spec.anode is None:
                raise ValueError(
                    f"cells[{place}].anode_from: the cell is no full cell: give it spec.anode"
                )
        for place, item in enumerate(self.cells):
            if item.anode_from and item.anode_from not in taken - {item.channel}:
                raise ValueError(
                    f"cells[{place}].anode_from: no other cell is in channel {item.anode_from!r}"
                )

    @property
    def is_virtual(self) -> bool:
        return str(self.speed).strip().lower() == "virtual"

    def channel_names(self) -> list[str]:
        """``1-1`` to ``units-8``."""
        channels = range(1, CHANNELS_PER_UNIT + 1)
        return [f"{unit}-{channel}" for unit in range(1, self.units + 1) for channel in channels]

    def clock(self) -> Clock:
        """A new clock of the rack's speed."""
        try:
            return clock_from_speed(self.speed)
        except ValueError as error:
            raise ValueError(f"speed: {error}") from error


def read_rack_config(path: Path) -> RackConfig:
    """The rack that a TOML file describes.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or says something that cannot be; the
            message names the key.
    """
    try:
        text = path.read_text("utf-8")
        config = msgspec.toml.decode(text, type=RackConfig)
    except OSError as error:
        raise ConfigError([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        place = re.search(r"at line (\d+), column (\d+)", str(error))
        line, column = (int(place[1]), int(place[2])) if place else (0, 0)
        raise ConfigError(
            [Problem(str(error), file=str(path), line=line, column=column)]
        ) from error
    if config.state_dir:
        config = msgspec.structs.replace(config, state_dir=str(path.parent / config.state_dir))
    return config


def changed(
    config: RackConfig,
    *,
    port: int | None = None,
    speed: str | None = None,
    state_dir: str | None = None,
) -> RackConfig:
    """The config with what a person gave on the command line in place of what the file says.

    Raises:
        ConfigError: a value that cannot be.
    """
    options = {"port": port, "speed": speed, "state_dir": state_dir}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return msgspec.convert(
            {**msgspec.structs.asdict(config), **given}, RackConfig, from_attributes=True
        )
    except msgspec.ValidationError as error:
        raise ConfigError([Problem(str(error), file="command line")]) from error
