"""``labctl instruments``: what is connected, what it is, and whether the configuration is right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from labctl.cli.asked import parse_parameters
from labctl.cli.common import ConfigOption, complain, err, out, run
from labctl.errors import ConfigError, Problem

if TYPE_CHECKING:
    from labctl.discovery.entries import Entry, Known
    from labctl.discovery.kinds import Model
    from labctl.discovery.scan import Seen
    from labctl.drivers.probe import Place
    from labctl.settings import Settings

app = typer.Typer(
    no_args_is_help=True, help="What is connected, what it is, and what the configuration has."
)

JsonOption = Annotated[bool, typer.Option("--json", help="For programs: JSON instead of a table.")]

_TABLE_WIDTH = 120
_WIDE = 240
_SHOWN = 60


@app.command()
def scan(
    port: Annotated[
        list[str] | None,
        typer.Option(
            help="A serial port, such as /dev/ttyACM0 or socket://HOST:PORT; repeatable.",
            metavar="PORT",
        ),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST:PORT, or HOST at every port where instruments listen; repeatable.",
            metavar="HOST[:PORT]",
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="Every host of a network such as 192.168.1.0/24, one by one; repeatable.",
            metavar="ADDRESS/BITS",
        ),
    ] = None,
    visa: Annotated[
        list[str] | None,
        typer.Option(help="A VISA resource, such as GPIB0::18::INSTR; repeatable."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Add what was found to this labctl.toml, whatever is in it stays as it is.",
            metavar="FILE",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A key of the configuration that no instrument can be asked for, such as "
            "step_file_dir=/mnt/bts; repeatable.",
        ),
    ] = None,
    connect_s: Annotated[
        float, typer.Option("--connect", help="Seconds that a connection may take.", min=0.05)
    ] = 1.0,
    json_: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Find what is connected to this PC, say what it is, and write the
    configuration for it.

    Without --port, --host, --network or --visa: every serial port, USB
    instrument and GPIB listener of this PC. The network is asked only where
    you say so, a few hosts at a time, and only at the ports where instruments
    listen; nothing is ever broadcast.

    Instruments are asked who they are, and nothing else: no output and no
    setting of any instrument is changed. What a labctl daemon owns is not
    opened. A device on a serial port that is no instrument of labctl's gets
    the same few questions (*IDN?, i, t, ROM?, ...) as all others: name the
    ports with --port where something else must not be spoken to.
    """
    from labctl.discovery.conversation import Patience
    from labctl.discovery.entries import add_to_file, entries_of, known_instruments, lines_of
    from labctl.discovery.scan import scan as scan_places
    from labctl.wire.ownership import lock_folder

    given = parse_parameters(set_ or [])
    if write is not None and not write.is_file():
        raise ConfigError([Problem("there is no such file: 'labctl init' writes one", str(write))])
    settings = _settings(config if write is None else write, needed=write is not None)
    known = () if settings is None else known_instruments(settings)
    locks = lock_folder("" if settings is None else settings.lock_dir)
    places, named = _places(port or [], host or [], network or [], visa or [])
    with err.status(f"asking at {len(places)} places") as progress:

        def told(count: int) -> None:
            progress.update(f"asked {count} of {len(places)} places")

        seen = scan_places(places, locks, patience=Patience(connect_s=connect_s), told=told)
    shown = _worth_showing(seen, named)
    entries = entries_of(seen, known, given={key: _value(text) for key, text in given.items()})
    done: Sequence[Entry] = ()
    if write is not None and entries:
        done = add_to_file(write, entries)
    if json_:
        _print_json(
            {
                "places": [_as_json(each, known) for each in shown],
                "entries": [
                    {"name": each.name, "options": each.options, "missing": each.missing}
                    for each in entries
                ],
                "written": [each.name for each in done if not each.missing],
            }
        )
        return
    _show_seen(shown, known, len(places))
    for key in sorted(
        given.keys() - {key for each in seen if each.found for key in each.found.missing}
    ):
        err.print(f"nothing that was found needs {key!r}: it was not used", markup=False)
    if write is None:
        for entry in entries:
            out.print()
            out.print(lines_of(entry), end="", markup=False, highlight=False, soft_wrap=True)
        return
    _say_written(write, entries, done)


@app.command("list")
def list_(json_: JsonOption = False) -> None:
    """The drivers that there are, and what the instruments that they drive can do."""
    from labctl.discovery.kinds import kinds

    found = kinds()
    if json_:
        _print_json([msgspec.to_builtins(each) for each in found])
        return
    for kind in found:
        lines = [
            f"{kind.role}; a scan finds it at: {', '.join(kind.found_by) or 'nothing'}",
            f"options: {', '.join(kind.options)}",
        ]
        for model in kind.models:
            lines += [model.name, *(f"  {line}" for line in _told_of(model))]
        out.print(f"[bold]{escape(kind.driver)}[/]  {escape(kind.about)}", soft_wrap=True)
        for line in lines:
            out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def check(json_: JsonOption = False, config: ConfigOption = None) -> None:
    """Open every instrument of the configuration, see that it is the right one, and list its
    channels. No output is changed; what a daemon owns is left alone."""
    from labctl.discovery.check import Verdict
    from labctl.discovery.check import check as check_all
    from labctl.settings import load_settings

    settings = load_settings(config)
    checked = run(check_all(settings))
    wrong = [each for each in checked if each.verdict is Verdict.WRONG]
    if json_:
        _print_json([msgspec.to_builtins(each) for each in checked])
    elif not checked:
        out.print("the configuration has no instruments: 'labctl instruments scan' finds them")
    for each in () if json_ else checked:
        colour = {Verdict.WELL: "green", Verdict.OWNED: "yellow", Verdict.WRONG: "red"}
        what = f"{each.manufacturer} {each.model}".strip() or each.driver
        verdict = "" if each.verdict is Verdict.OWNED else str(each.verdict)
        parts = [f"[bold]{escape(each.name)}[/]: [{colour[each.verdict]}]{verdict}[/]"]
        if each.manufacturer:
            parts.append(escape(f"{what}, serial {each.serial or 'not told'}"))
            parts.append(escape(f"channels ({len(each.channels)}): {_few(each.channels)}"))
        if each.why:
            parts.append(escape(each.why))
        if each.verdict is Verdict.WELL and each.pinned is False:
            pin = f'pin it: serial = "{each.serial}" under [instruments.{each.name}]'
            parts.append(escape(pin))
        out.print("; ".join(parts), highlight=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(1)


def _told_of(model: Model) -> list[str]:
    if model.voltage_min_V is None or model.voltage_max_V is None:
        return []
    return [
        f"voltage {model.voltage_min_V:g} to {model.voltage_max_V:g} V",
        f"current ranges {', '.join(_engineering(each, 'A') for each in model.currents_A)}",
        f"fastest record {_engineering(model.fastest_record_s or 0.0, 's')}",
        f"failsafe {model.failsafe}",
        f"techniques {', '.join(model.techniques)}",
    ]


def _settings(config: Path | None, *, needed: bool) -> Settings | None:
    """The configuration; None where there is none, or where one that nobody named is broken."""
    from labctl.settings import DEFAULT_FILES, load_settings

    if config is None and not needed and not any(each.is_file() for each in DEFAULT_FILES):
        return None
    try:
        return load_settings(config)
    except ConfigError as error:
        if config is not None:
            raise
        complain(error)
        err.print("the scan goes on without that configuration")
        return None


def _places(
    ports: list[str], hosts: list[str], networks: list[str], resources: list[str]
) -> tuple[tuple[Place, ...], frozenset[Place]]:
    """Where to ask, and which of these a person named one by one."""
    from labctl.discovery import places as find
    from labctl.discovery.scan import known_ports

    if not (ports or hosts or networks or resources):
        return (*find.serial_places(), *find.usb_places(), *find.gpib_places()), frozenset()
    known = known_ports()
    named = [
        *(find.place_of_port(each) for each in ports),
        *(find.place_of_resource(each) for each in resources),
        *(place for each in hosts for place in find.places_of_host(each, known)),
    ]
    near = [place for each in networks for place in find.places_of_network(each, known)]
    return tuple(dict.fromkeys([*named, *near])), frozenset(named)


def _worth_showing(seen: Sequence[Seen], named: frozenset[Place]) -> list[Seen]:
    """Without the places of a network where nothing listens; what a person named is told."""
    from labctl.discovery.scan import Outcome
    from labctl.drivers.probe import Wire

    answering = {each.place.address for each in seen if each.outcome is not Outcome.CLOSED}
    return [
        each
        for each in seen
        if each.outcome is not Outcome.CLOSED
        or each.place.wire is not Wire.TCP
        or (each.place in named and each.place.address not in answering)
    ]


def _show_seen(seen: Sequence[Seen], known: Sequence[Known], asked: int) -> None:
    from labctl.discovery.entries import configured_as
    from labctl.discovery.scan import Outcome

    if not seen:
        out.print(
            f"nothing was found at {asked} places: name one with --port, --host or --network"
            if asked
            else "this PC has no serial port, USB instrument or GPIB: name a host with --host, or "
            "a network with --network"
        )
        return
    table = Table(box=None, pad_edge=False)
    for column in ("where", "what", "serial", "firmware", "channels", "in the configuration"):
        table.add_column(column, overflow="fold")
    rows: list[tuple[str, ...]] = []
    for each in seen:
        found = each.found
        name, wrong = configured_as(each, known)
        what = "" if found is None else f"{found.manufacturer} {found.model}".strip()
        plain = each.outcome in {Outcome.FOUND, Outcome.OWNED}
        state = each.why if plain else f"{each.outcome}: {each.why}"
        if each.place.about and found is None:
            state += f" ({each.place.about})"
        rows.append(
            (
                str(each.place),
                "; ".join(part for part in (what, state) if part),
                "" if found is None else found.serial,
                "" if found is None else found.firmware,
                "" if found is None or not found.channels else str(len(found.channels)),
                " ".join(part for part in (name, wrong) if part),
            )
        )
    for row in rows:
        table.add_row(*(escape(_visible(cell)) for cell in row))
    if not out.is_terminal:
        Console(width=_WIDE, file=out.file).print(table)
    elif out.width >= _TABLE_WIDTH:
        out.print(table)
    else:
        for row in rows:
            line = "; ".join(_visible(cell) for cell in row if cell)
            out.print(line, markup=False, highlight=False, soft_wrap=True)


def _say_written(path: Path, entries: Sequence[Entry], done: Sequence[Entry]) -> None:
    whole = [each.name for each in done if not each.missing]
    if whole:
        out.print(
            f"{path}: {', '.join(whole)} written; a daemon takes them up when it is started again",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for each in entries:
        if each.missing:
            how = " ".join(f"--set {key}=…" for key in each.missing)
            where = "as a comment" if each in done else "as a comment already"
            out.print(
                f"{path}: {each.name} stands there {where}: it needs {', '.join(each.missing)}. "
                f"Say it there, or here with {how}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
    if not entries:
        out.print(f"{path}: nothing new, it was not changed", markup=False, highlight=False)


def _as_json(seen: Seen, known: Sequence[Known]) -> dict[str, object]:
    from labctl.discovery.entries import configured_as

    name, wrong = configured_as(seen, known)
    return {
        "where": str(seen.place),
        "wire": str(seen.place.wire),
        "usb": None if seen.place.usb is None else "{:04x}:{:04x}".format(*seen.place.usb),
        "outcome": str(seen.outcome),
        "why": seen.why,
        "configured_as": name,
        "configuration_is_wrong": wrong,
        "found": None if seen.found is None else msgspec.to_builtins(seen.found),
    }


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _value(text: str) -> str | int | float | bool:
    """What a person typed, as the configuration would have it."""
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _visible(text: str) -> str:
    """Whatever an instrument said: it does not move the cursor."""
    return "".join(sign if sign.isprintable() else "·" for sign in text)


def _few(channels: Iterable[str]) -> str:
    text = ", ".join(channels)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _engineering(value: float, unit: str) -> str:
    """A value with a prefix, as data sheets write it."""
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")):
        if abs(value) >= factor:
            return f"{value / factor:g} {prefix}{unit}"
    return f"{value / 1e-12:g} p{unit}"
