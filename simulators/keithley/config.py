"""What a simulated SourceMeter is, as a TOML file can say it.

::

    port = 5025
    time_port = 5026
    model = "2450"
    serial = "04419969"
    speed = "virtual"
    state_dir = "smu-state"

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
from labctl.simulators.keithley.models import MODELS


class SmuConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One SourceMeter; the defaults are a 2450 with nothing connected.

    port, time_port: 0 is any free port. There is a time port in virtual time only; None is none.
    speed: ``virtual``, or how many times faster than the wall.
    state_dir: directory that outlives the process, relative to the file; '' keeps nothing.
    epoch_unix_s: where the instrument's own clock begins; None is the moment of the start.
    off_state: NORM as delivered, which drains a cell; a laboratory saves HIMP as the setting that
        the instrument is switched on with.
    errors: how large its errors are, as a share of what is usual; 0 is a perfect instrument.
    single_client: a second connection is closed at once, as a real one does.
    cell: what is connected; ``load_ohm`` is a resistor in its place, and nothing if neither is set.
    """

    host: str = "127.0.0.1"
    port: int = 5025
    time_port: int | None = None
    model: str = "2450"
    serial: str = "04419969"
    firmware: str = "1.7.12b"
    seed: int = 1
    errors: float = 1.0
    line_Hz: float = 50.0
    speed: str | float = 1.0
    state_dir: str = ""
    epoch_unix_s: float | None = None
    single_client: bool = True
    off_state: str = "NORM"
    faults: tuple[Fault, ...] = ()
    cell: CellSpec | None = None
    load_ohm: float = math.inf

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, not {self.model!r}")
        for key, low, high in (
            ("port", 0, 65535),
            ("time_port", 0, 65535),
            ("errors", 0, 100),
        ):
            value = getattr(self, key)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{key} must be {low} to {high}, not {value}")
        if self.off_state not in {"NORM", "HIMP", "ZERO", "GUAR"}:
            raise ValueError(f"off_state must be NORM, HIMP, ZERO or GUAR, not {self.off_state!r}")
        if self.line_Hz not in {50.0, 60.0}:
            raise ValueError(f"line_Hz must be 50 or 60, not {self.line_Hz:g}")
        if not re.fullmatch(r"[0-9A-Za-z-]{1,20}", self.serial):
            raise ValueError(f"serial must be letters and digits, not {self.serial!r}")
        if self.epoch_unix_s is not None and not 0 <= self.epoch_unix_s < 1e11:
            raise ValueError(f"epoch_unix_s must be a time since 1970, not {self.epoch_unix_s}")
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


def read_smu_config(path: Path) -> SmuConfig:
    """The SourceMeter that a TOML file describes.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or says something that cannot be; the
            message names the key.
    """
    try:
        config = msgspec.toml.decode(path.read_text("utf-8"), type=SmuConfig)
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
    config: SmuConfig,
    *,
    port: int | None = None,
    time_port: int | None = None,
    speed: str | None = None,
    state_dir: str | None = None,
) -> SmuConfig:
    """The config with what a person gave on the command line in place of what the file says.

    Raises:
        ConfigError: a value that cannot be.
    """
    options = {"port": port, "time_port": time_port, "speed": speed, "state_dir": state_dir}
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return msgspec.convert(
            {**msgspec.structs.asdict(config), **given}, SmuConfig, from_attributes=True
        )
    except msgspec.ValidationError as error:
        raise ConfigError([Problem(str(error), file="command line")]) from error
