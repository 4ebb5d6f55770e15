"""What a simulated Rodeostat is, as a TOML file can say it.

::

    variant = "microAmp"
    device_id = 7
    link = "rodeostat-1"
    counter_resistor_ohm = 12000.0
    speed = "virtual"
    time_port = 5027

    [cell]
    name = "HEV-01"
    material = "HE-V"
    active_mass_g = 0.002
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from labctl.clock import Clock, clock_from_speed
from labctl.config import read_toml
from labctl.errors import ConfigError, Problem
from labctl.simulators.cells.spec import CellSpec
from labctl.simulators.faults import Fault
from labctl.simulators.rodeostat.device import CURRENT_RANGES_UA


class RodeostatSimConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One Rodeostat of hardware 0.2; the default has nothing connected.

    link: name of its serial port, a symbolic link to a pseudo-terminal, relative to the file; ''
        leaves the terminal without a name.
    port: a TCP port in place of the serial one; 0 is any free one, None is none.
    time_port: what moves virtual time on; 0 is any free port.
    speed: ``virtual``, or how many times faster than the wall.
    errors: how large its errors are, as a share of what is usual; 0 is a perfect instrument.
    counter_resistor_ohm: in the lead of the counter electrode, 0 for none.
    state_dir: directory that outlives the process, relative to the file: the cell, and a JSON file
        of faults that is read again whenever it changes. '' keeps nothing.
    powered_by_line: it loses its power with its connection, as one on USB does.
    cell: what is connected; ``load_ohm`` is a resistor in its place, and nothing if neither is set.
    """

    variant: str = "microAmp"
    device_id: int = 7
    link: str = ""
    host: str = "127.0.0.1"
    port: int | None = None
    time_port: int | None = None
    speed: str | float = 1.0
    seed: int = 1
    errors: float = 1.0
    counter_resistor_ohm: float = 0.0
    faults: tuple[Fault, ...] = ()
    state_dir: str = ""
    powered_by_line: bool = True
    cell: CellSpec | None = None
    load_ohm: float = math.inf

    def __post_init__(self) -> None:
        if self.variant not in CURRENT_RANGES_UA:
            names = ", ".join(CURRENT_RANGES_UA)
            raise ValueError(f"variant must be one of {names}, not {self.variant!r}")
        for key, low, high in (
            ("device_id", 0, 2**32 - 1),
            ("port", 0, 65_535),
            ("time_port", 0, 65_535),
            ("errors", 0, 100),
            ("counter_resistor_ohm", 0, 1e9),
        ):
            value = getattr(self, key)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{key} must be {low:g} to {high:g}, not {value}")
        if not self.load_ohm > 0:
            raise ValueError(f"load_ohm must be above 0, not {self.load_ohm}")
        if self.cell is not None and math.isfinite(self.load_ohm):
            raise ValueError("either a cell or load_ohm can be connected, not both")
        if self.time_port is not None and not self.is_virtual:
            raise ValueError("time_port: only time that is virtual can be moved on by a time port")
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


def read_rodeostat_config(path: Path) -> RodeostatSimConfig:
    """The instrument that a TOML file describes.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or says something that cannot be.
    """
    config = read_toml(path, RodeostatSimConfig)
    folders = {
        key: str(path.parent / value)
        for key in ("link", "state_dir")
        if (value := getattr(config, key))
    }
    return msgspec.structs.replace(config, **folders)


def changed(config: RodeostatSimConfig, **options: object) -> RodeostatSimConfig:
    """The config with what a person gave on the command line (not None) in place of the file's.

    Raises:
        ConfigError: a value that cannot be.
    """
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return msgspec.convert(
            {**msgspec.structs.asdict(config), **given}, RodeostatSimConfig, from_attributes=True
        )
    except msgspec.ValidationError as error:
        raise ConfigError([Problem(str(error), file="command line")]) from error
