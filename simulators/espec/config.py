"""What a simulated climate chamber is, as a TOML file can say it.

::

    model = "PR-3J"
    port = 57732
    time_port = 57733
    speed = "virtual"
    state_dir = "chamber-state"
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from labctl.clock import Clock, clock_from_speed
from labctl.errors import ConfigError, Problem
from labctl.simulators.espec.models import MODELS, Model
from labctl.simulators.faults import Fault


class ChamberConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One chamber; the default is a PR-3J at its usual port.

    port: TCP port; 0 is any free one, None is the model's own, or none where ``link`` is given.
    link: name of a serial port in place of the TCP port, a symbolic link to a pseudo-terminal,
        relative to the file; ``auto`` leaves the terminal without a name.
    unit: its address on an RS-485 line; 0 where there is none.
    time_port: moves virtual time on; 0 is any free port, None is none.
    speed: ``virtual``, or how many times faster than the wall.
    rom: what it tells of its ROM; '' is the model's own.
    heating_K_per_min, cooling_K_per_min, lag_s: it comes nearer at these rates at the most, and at
        last with this time constant.
    leak_s: the time constant with which it comes back to ``ambient_degC`` when it stands still.
    noise_K: standard deviation of a reading.
    hasty: what becomes of a command that comes while it is still busy with the one before: ``wait``
        or ``lost``. It is busy for 0.2 s after a question and 0.5 s after a setting of real time,
        but not in virtual time; ``busy`` is how many times as long.
    protected: its settings are locked at its panel.
    state_dir: directory that outlives the process, relative to the file; '' keeps nothing.
    single_client: a second connection is closed at once.
    """

    model: str = "PR-3J"
    host: str = "127.0.0.1"
    port: int | None = None
    link: str = ""
    unit: int = 0
    time_port: int | None = None
    speed: str | float = 1.0
    rom: str = ""
    heating_K_per_min: float = 3.0
    cooling_K_per_min: float = 1.5
    lag_s: float = 60.0
    leak_s: float = 3600.0
    ambient_degC: float = 23.0
    noise_K: float = 0.03
    seed: int = 1
    hasty: str = "wait"
    busy: float = 1.0
    protected: bool = False
    state_dir: str = ""
    single_client: bool = True
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, not {self.model!r}")
        for key, low, high in (
            ("port", 0, 65_535),
            ("time_port", 0, 65_535),
            ("unit", 0, 16),
            ("heating_K_per_min", 0.01, 100),
            ("cooling_K_per_min", 0.01, 100),
            ("lag_s", 0.1, 1e5),
            ("leak_s", 1.0, 1e7),
            ("ambient_degC", -50, 60),
            ("noise_K", 0, 10),
            ("busy", 0, 100),
        ):
            value = getattr(self, key)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{key} must be {low:g} to {high:g}, not {value}")
        if self.hasty not in {"wait", "lost"}:
            raise ValueError(f"hasty must be wait or lost, not {self.hasty!r}")
        if not re.fullmatch(r"[ -~]{0,40}", self.rom):
            raise ValueError(f"rom must be at most 40 plain characters, not {self.rom!r}")
        if self.link and self.port is not None:
            raise ValueError("a chamber has either a port or a link, not both")
        if self.time_port is not None and not self.is_virtual:
            raise ValueError("time_port: only time that is virtual can be moved on by a time port")
        self.clock()

    @property
    def kind(self) -> Model:
        return MODELS[self.model]

    @property
    def tcp_port(self) -> int:
        return self.kind.port if self.port is None else self.port

    @property
    def own_rom(self) -> str:
        return self.rom or self.kind.rom

    @property
    def is_virtual(self) -> bool:
        return str(self.speed).strip().lower() == "virtual"

    def clock(self) -> Clock:
        """A new clock of the chamber's speed."""
        try:
            return clock_from_speed(self.speed)
        except ValueError as error:
            raise ValueError(f"speed: {error}") from error


def read_chamber_config(path: Path) -> ChamberConfig:
    """The chamber that a TOML file describes.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or says something that cannot be; the
            message names the key.
    """
    try:
        config = msgspec.toml.decode(path.read_text("utf-8"), type=ChamberConfig)
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
        if (value := getattr(config, key)) and value != "auto"
    }
    return msgspec.structs.replace(config, **folders)


def changed(config: ChamberConfig, **options: str | int | None) -> ChamberConfig:
    """The config with what a person gave on the command line, those that are not None, in place of
    what the file says. A port given there takes the place of a link, and the other way round.

    Raises:
        ConfigError: a value that cannot be.
    """
    given: dict[str, str | int | None] = {
        key: value for key, value in options.items() if value is not None
    }
    if "port" in given and "link" not in given:
        given["link"] = ""
    elif "link" in given and "port" not in given:
        given["port"] = None
    try:
        return msgspec.convert(
            {**msgspec.structs.asdict(config), **given}, ChamberConfig, from_attributes=True
        )
    except msgspec.ValidationError as error:
        raise ConfigError([Problem(str(error), file="command line")]) from error
