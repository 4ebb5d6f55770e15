"""What a simulated PalmSens instrument is, as a TOML file can say it.

::

    model = "EmStat4S HR"
    serial = "ES4HR20B0008"
    link = "palmsens-1"
    speed = "virtual"
    state_dir = "palmsens-state"

    [cell]
    name = "HEV-01"
    material = "HE-V"
    active_mass_g = 0.002
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
from labctl.simulators.palmsens.models import MODELS


class PotentiostatConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instrument; the default is an EmStat4S HR with nothing connected.

    link: name of its serial port, a symbolic link to a pseudo-terminal, relative to the file; ''
        leaves the terminal without a name.
    port: a TCP port in place of the serial one; 0 is any free one, None is none.
    speed: ``virtual``, or how many times faster than the wall.
    state_dir: directory that outlives the process, relative to the file; '' keeps nothing.
    powered_by_line: it loses its power with its connection, as one on USB does.
    errors: how large its errors are, as a share of what is usual; 0 is a perfect instrument.
    cell: what is connected; ``load_ohm`` is a resistor in its place, and nothing if neither is set.
    """

    model: str = "EmStat4S HR"
    serial: str = "ES4HR20B0008"
    link: str = ""
    host: str = "127.0.0.1"
    port: int | None = None
    speed: str | float = 1.0
    seed: int = 1
    errors: float = 1.0
    state_dir: str = ""
    powered_by_line: bool = True
    faults: tuple[Fault, ...] = ()
    cell: CellSpec | None = None
    load_ohm: float = math.inf

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, not {self.model!r}")
        if not re.fullmatch(r"[0-9A-Za-z]{1,20}", self.serial):
            raise ValueError(f"serial must be letters and digits, not {self.serial!r}")
        if self.port is not None and not 0 <= self.port <= 65_535:
            raise ValueError(f"port must be 0 to 65535, not {self.port}")
        if not 0 <= self.errors <= 100:
            raise ValueError(f"errors must be 0 to 100, not {self.errors}")
        if not self.load_ohm > 0:
            raise ValueError(f"load_ohm must be above 0, not {self.load_ohm}")
        if self.cell is not None and math.isfinite(self.load_ohm):
            raise ValueError("either a cell or load_ohm can be connected, not both")
        self.clock()

    @property
    def is_virtual(self) -> bool:
        return str(self.speed).strip().lower() == "virtual"

    def clock(self) -> Clock:
        """A new clock of the instrument's speed."""
        try:
            return clock_from_speed(self.speed)
        except ValueError as error:
            raise ValueError(f"speed: {error}") from error


def read_potentiostat_config(path: Path) -> PotentiostatConfig:
    """The instrument that a TOML file describes.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or says something that cannot be; the
            message names the key.
    """
    try:
        config = msgspec.toml.decode(path.read_text("utf-8"), type=PotentiostatConfig)
    except OSError as error:
        raise ConfigError([Problem(f"cannot be read: {error.strerror}", file=str(path))]) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        place = re.search(r"at line (\d+), column (\d+)", str(error))
        line, column = (int(place[1]), int(place[2])) if place else (0, 0)
        raise ConfigError(
            [Problem(str(error), file=str(path), line=line, column=column)]
        ) from error
    folders = {
        key: str(path.parent / value)
        for key in ("link", "state_dir")
        if (value := getattr(config, key))
    }
    return msgspec.structs.replace(config, **folders)


def changed(
    config: PotentiostatConfig,
    *,
    link: str | None = None,
    port: int | None = None,
    speed: str | None = None,
    state_dir: str | None = None,
) -> PotentiostatConfig:
    """The config with what a person gave on the command line in place of what the file says.

    Raises:
        ConfigError: a value that cannot be.
    """
    options = {"link": link, "port": port, "speed": speed, "state_dir": state_dir}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return msgspec.convert(
            {**msgspec.structs.asdict(config), **given}, PotentiostatConfig, from_attributes=True
        )
    except msgspec.ValidationError as error:
        raise ConfigError([Problem(str(error), file="command line")]) from error
