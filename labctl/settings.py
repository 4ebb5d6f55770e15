"""``labctl.toml``: what one PC of the laboratory is and has. Paths are relative to the file."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from labctl.alarms.notify import NotifyConfig, duration_s
from labctl.archive.packing_policy import Policy, PolicyError, policy_of
from labctl.clock import RealClock, clock_from_speed
from labctl.config import read_toml
from labctl.errors import ConfigError, Problem, StreamError
from labctl.model import Cell
from labctl.protocols.limits import Bounds
from labctl.stream.connection import MqttConfig
from labctl.stream.topics import check_name, check_node


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The daemon.

    name: of this PC in topics, run names and the archive.
    data: folder for the journal and the control socket.
    speed: ``1`` is real time, ``60`` sixty times as fast, ``virtual`` as fast as it can be read;
        anything but 1 is for simulators only.
    poll_s: how often a running channel is asked for new readings.
    lock_dir: folder with the lock files that keep a second daemon off an instrument, the same for
        all on this PC; left out, $LABCTL_LOCK_DIR or /run/lock/labctl.
    """

    name: str = "lab"
    data: str = "data"
    speed: str = "1"
    poll_s: float = 5.0
    lock_dir: str = ""

    @property
    def in_real_time(self) -> bool:
        """Whether a second is a second."""
        clock = clock_from_speed(self.speed)
        return isinstance(clock, RealClock) and clock.speed == 1.0


class ArchiveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The archive. ``url`` is SQLAlchemy's; the path of an SQLite file is relative to this file.

    packed_dir: folder for the samples of packed runs, relative to this file; left out, the one
        beside an SQLite file.
    pack_after: runs that ended so long ago are packed by 'labctl archive tidy'; left out, none.
    raw_kept_for: the samples of packed runs that ended so long ago are deleted by it for ever;
        left out, never.
    """

    url: str = "sqlite:///archive.db"
    name: str = "main"
    packed_dir: str = ""
    pack_after: str = ""
    raw_kept_for: str = ""

    @property
    def policy(self) -> Policy:
        """How long raw data stay where they are.

        Raises:
            PolicyError: what the file says cannot be carried out.
        """
        return policy_of(self.pack_after, self.raw_kept_for)


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The broker that ``labctl up`` starts: ``none`` where one runs already."""

    kind: Literal["auto", "mosquitto", "amqtt", "none"] = "auto"


class SimulatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A simulated instrument that ``labctl up`` starts with ``labctl simulate KIND``."""

    kind: str
    config: str


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every recipe is bounded by, whatever it says: at this site, or for a type of cell."""

    voltage_min_V: float | None = None
    voltage_max_V: float | None = None
    current_min_A: float | None = None
    current_max_A: float | None = None
    step_charge_max_Ah: float | None = None
    duration_max_s: float | None = None
    temperature_min_degC: float | None = None
    temperature_max_degC: float | None = None

    def bounds(self, name: str) -> Bounds:
        """The same with a name for messages."""
        return Bounds(name=name, **msgspec.structs.asdict(self))


class AlarmSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the archive sees by itself.

    node_gone_after: a node that went without a word for so long is an alarm.

    Raises:
        ValueError: it is no time above 0.
    """

    node_gone_after: str = "60 s"

    def __post_init__(self) -> None:
        if not self.node_gone_after_s > 0:
            raise ValueError("node_gone_after must be above 0")

    @property
    def node_gone_after_s(self) -> float:
        """``node_gone_after`` in seconds."""
        return duration_s("node_gone_after", self.node_gone_after)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. Keys of an instrument other than ``driver``, ``chamber`` (the name of the
    instrument that its cells' temperature is set with) and ``time`` (a simulator's time port) are
    the driver's own; those that end in ``_dir`` are folders, relative to the file."""

    node: NodeSettings = NodeSettings()
    mqtt: MqttConfig = MqttConfig()
    archive: ArchiveSettings = ArchiveSettings()
    alarms: AlarmSettings = AlarmSettings()
    notifications: NotifyConfig = NotifyConfig()
    broker: BrokerSettings = BrokerSettings()
    instruments: dict[str, dict[str, Any]] = {}
    simulators: dict[str, SimulatorSettings] = {}
    limits: LimitSettings = LimitSettings()
    cell_types: dict[str, LimitSettings] = {}
    folder: str = ""

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return Path(self.folder)

    @property
    def data(self) -> Path:
        """The node's data folder."""
        return self.base / self.node.data

    @property
    def journal(self) -> Path:
        """The node's journal."""
        return self.data / "journal.db"

    @property
    def socket(self) -> Path:
        """Where the daemon takes commands."""
        return self.data / "control.sock"

    @property
    def lock_dir(self) -> str:
        """The folder of the lock files that the file names, '' if it names none."""
        return str(self.base / self.node.lock_dir) if self.node.lock_dir else ""

    def bounds_of(self, cell: Cell) -> tuple[Bounds, ...]:
        """What the site and the cell's type allow to any recipe on ``cell``."""
        found = [self.limits.bounds("the site")]
        if cell.cell_type in self.cell_types:
            own = self.cell_types[cell.cell_type]
            found.append(own.bounds(f"cell type '{cell.cell_type}'"))
        return tuple(found)

    @property
    def archive_url(self) -> str:
        """The archive's address with its path made absolute."""
        prefix = "sqlite:///"
        if not self.archive.url.startswith(prefix):
            return self.archive.url
        return prefix + str((self.base / self.archive.url.removeprefix(prefix)).resolve())

    @property
    def notify(self) -> NotifyConfig:
        """Whom to tell of alarms, with the paths made absolute."""
        found = self.notifications
        return msgspec.structs.replace(
            found,
            **{
                name: str(self.base / getattr(found, name))
                for name in ("urls_file", "heartbeat_file")
                if getattr(found, name)
            },
        )

    @property
    def packed_dir(self) -> Path | None:
        """The folder for the samples of packed runs, if the file names one."""
        return self.base / self.archive.packed_dir if self.archive.packed_dir else None


_ADDRESS = re.compile(r"[^:\s]+:[0-9]{1,5}")

SERVICES = frozenset({"broker", "archive", "daemon"})
"""What 'labctl up' starts beside the simulators."""

DEFAULT_FILES = (Path("labctl.toml"), Path("/etc/labctl/labctl.toml"))


def load_settings(path: Path | None) -> Settings:
    """The settings in ``path``, or in the first of :data:`DEFAULT_FILES` that exists.

    Raises:
        ConfigError: no file, or one that does not fit.
    """
    if path is None:
        path = next((candidate for candidate in DEFAULT_FILES if candidate.is_file()), None)
    if path is None:
        raise ConfigError(
            [
                Problem(
                    "no configuration: neither labctl.toml in this folder nor "
                    "/etc/labctl/labctl.toml is there",
                    suggestion="name one with --config, or write one with 'labctl init'",
                )
            ]
        )
    settings = msgspec.structs.replace(read_toml(path, Settings), folder=str(path.resolve().parent))
    problems: list[Problem] = []
    try:
        check_node(settings.node.name)
    except StreamError as error:
        problems.append(Problem(f"[node] name: {error}", file=str(path)))
    try:
        clock_from_speed(settings.node.speed)
    except ValueError as error:
        problems.append(Problem(f"[node] speed: {error}", file=str(path)))
    if not 0 < settings.node.poll_s < math.inf:
        problems.append(Problem("[node] poll_s must be above 0", file=str(path)))
    try:
        _ = settings.archive.policy
    except PolicyError as error:
        problems.append(Problem(f"[archive] {error}", file=str(path)))
    for table, names in (
        ("instruments", settings.instruments),
        ("simulators", settings.simulators),
    ):
        for name in names:
            try:
                check_name(name, "name")
            except StreamError as error:
                problems.append(Problem(f"[{table}.{name}] {error}", file=str(path)))
    problems += [
        Problem(f"[simulators.{name}]: a service of 'labctl up' has that name", file=str(path))
        for name in settings.simulators.keys() & SERVICES
    ]
    problems += [
        Problem(
            f"[instruments.{name}] chamber: there is no instrument {options['chamber']!r}",
            file=str(path),
        )
        for name, options in settings.instruments.items()
        if "chamber" in options and options["chamber"] not in settings.instruments
    ]
    problems += [
        Problem(
            f"[instruments.{name}] time: {options['time']!r} is not HOST:PORT of a simulator",
            file=str(path),
        )
        for name, options in settings.instruments.items()
        if "time" in options and not _ADDRESS.fullmatch(str(options["time"]))
    ]
    problems += [
        Problem(f"[instruments.{name}] names no driver", file=str(path))
        for name, options in settings.instruments.items()
        if not isinstance(options.get("driver"), str)
    ]
    if problems:
        raise ConfigError(problems)
    return settings
