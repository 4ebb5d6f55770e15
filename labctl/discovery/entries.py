"""What a configuration says of an instrument that was found; pure, but for the file at the end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from labctl.daemon.configured import NODES_OWN, drivers_own
from labctl.discovery.scan import Outcome, Seen
from labctl.drivers import checked_options, probe_of
from labctl.errors import ConfigError, LabctlError, LinkError, Problem
from labctl.settings import Settings, load_settings
from labctl.wire.places import names_of_options

Value = str | int | float | bool


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A table ``[instruments.NAME]``. ``missing`` are keys that a person has to add, and what they
    are: then the table is written as a comment, so that the file stays one that a daemon takes."""

    name: str
    options: dict[str, Value]
    missing: dict[str, str] = {}
    note: str = ""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument that the configuration has already."""

    name: str
    kind: str
    serial: str
    places: tuple[str, ...]


def known_instruments(settings: Settings) -> tuple[Known, ...]:
    """What the configuration has; a host whose name nobody knows, or an instrument whose options
    do not fit, is known by its name and number only."""
    known = []
    for name, options in settings.instruments.items():
        kind = str(options["driver"])
        places: tuple[str, ...] = ()
        with contextlib.suppress(ConfigError, LinkError):
            checked = checked_options(kind, drivers_own(settings, options), name=name)
            places = names_of_options(msgspec.structs.asdict(checked))
        serial = str(options.get("serial", ""))
        known.append(Known(name=name, kind=kind, serial=serial, places=places))
    return tuple(known)


def configured_as(seen: Seen, known: Iterable[Known]) -> tuple[str, str]:
    """The name that the configuration has for what was seen, '' if none, and what is wrong there.

    Known by its serial number; where the configuration gives none, by its place.
    """
    found = seen.found
    at_place = ""
    wrong = ""
    for each in known:
        there = bool(set(each.places) & set(seen.names))
        if found is None:
            if there:
                return each.name, ""
            continue
        same_kind = each.kind == found.driver
        if same_kind and each.serial and found.unique and each.serial == found.serial:
            return each.name, "" if there else "is at another address in the configuration"
        if there:
            at_place = each.name
            if not same_kind:
                wrong = f"is a {each.kind} in the configuration"
            elif each.serial and found.serial and found.unique:
                wrong = f"has the serial number {each.serial} in the configuration"
    return at_place, wrong


def entries_of(
    seen: Sequence[Seen],
    known: Sequence[Known] = (),
    *,
    given: Mapping[str, Value] | None = None,
    taken: Iterable[str] = (),
) -> list[Entry]:
    """A table for each instrument that was found, has a driver, and is not configured yet.

    Args:
        seen: what a scan saw. One instrument that was seen at two places gets one table.
        known: what the configuration has already.
        given: what a person says of keys that nobody can ask for.
        taken: names that must not be given, beside those of ``known``.
    """
    names = {each.name for each in known} | set(taken)
    numbers: set[tuple[str, str]] = set()
    entries: list[Entry] = []
    for each in seen:
        found = each.found
        if each.outcome is not Outcome.FOUND or found is None or not found.driver:
            continue
        number = (found.driver, found.serial)
        if configured_as(each, known)[0] or (found.unique and found.serial and number in numbers):
            continue
        numbers.add(number)
        probe = probe_of(found.driver)
        if probe is None:
            continue
        name = _free_name(probe.stem, names)
        names.add(name)
        said = {key: value for key, value in (given or {}).items() if key in found.missing}
        entries.append(
            Entry(
                name=name,
                options={
                    "driver": found.driver,
                    **probe.options_at(each.place),
                    **found.options,
                    **said,
                },
                missing={key: text for key, text in found.missing.items() if key not in said},
                note=_note(each),
            )
        )
    return entries


def lines_of(entry: Entry) -> str:
    """The table as it stands in a file."""
    lines = [f"# {entry.note}"] if entry.note else []
    mark = "# " if entry.missing else ""
    lines.append(f"{mark}[instruments.{entry.name}]")
    lines += [f"{mark}{key} = {written(value)}" for key, value in entry.options.items()]
    lines += [
        f'# {key} = ""    # {_plain(text)}'.rstrip(" #") for key, text in entry.missing.items()
    ]
    if entry.missing:
        lines.append(
            f"# Say {' and '.join(entry.missing)}, and take the first '# ' of these lines away."
        )
    return "\n".join(lines) + "\n"


def written(value: Value) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode("utf-8")
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def add_to_file(path: Path, entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Write the tables at the end of a configuration, which is changed in one go or not at all.

    Everything that was in the file stays as it was. Returns the tables that were written: one that
    stands there as a comment already is not written again.

    Raises:
        ConfigError: the file is not there, does not fit, or would not with the tables.
    """
    target = path.resolve()
    before = _read(target, path)
    settings = load_settings(target)
    for entry in entries:
        if entry.name in settings.instruments:
            raise ConfigError([Problem(f"[instruments.{entry.name}] is there already", str(path))])
    text = before.decode("utf-8", "replace").replace("\r\n", "\n")
    entries = tuple(each for each in entries if not each.missing or lines_of(each) not in text)
    if not entries:
        return ()
    end = "\r\n" if b"\r\n" in before else "\n"
    tables = "\n".join(lines_of(entry) for entry in entries)
    gap = "" if not before else "\n" if before.endswith(b"\n") else "\n\n"
    after = before + (gap + tables).replace("\n", end).encode("utf-8")
    try:
        file, new = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(file, "wb") as opened:
                opened.write(after)
                opened.flush()
                os.fsync(file)
            _check(Path(new), entries, path)
            if _read(target, path) != before:
                raise ConfigError([Problem("was changed by somebody else meanwhile", str(path))])
            shutil.copymode(target, new)
            with contextlib.suppress(PermissionError):
                owner = target.stat()
                os.chown(new, owner.st_uid, owner.st_gid)
            Path(new).replace(target)
        finally:
            Path(new).unlink(missing_ok=True)
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}; nothing was changed"
        raise ConfigError([Problem(message, file=str(path))]) from error
    return entries


def _check(new: Path, entries: Sequence[Entry], path: Path) -> None:
    try:
        settings = load_settings(new)
        for entry in entries:
            if not entry.missing:
                options: dict[str, object] = {
                    key: value for key, value in entry.options.items() if key not in NODES_OWN
                }
                checked_options(str(entry.options["driver"]), options, name=entry.name)
                if settings.instruments.get(entry.name) != entry.options:
                    raise ConfigError([Problem(f"[instruments.{entry.name}] does not stand in it")])
    except LabctlError as error:
        message = f"would not fit with the new instruments, and was not changed: {error}"
        raise ConfigError([Problem(message, file=str(path))]) from error


def _read(target: Path, path: Path) -> bytes:
    try:
        return target.read_bytes()
    except OSError as error:
        raise ConfigError(
            [
                Problem(
                    f"cannot be read: {error.strerror or error}",
                    file=str(path),
                    suggestion="write one with 'labctl init'",
                )
            ]
        ) from error


def _free_name(stem: str, taken: set[str]) -> str:
    number = 1
    while f"{stem}{number}" in taken:
        number += 1
    return f"{stem}{number}"


def _note(seen: Seen) -> str:
    found = seen.found
    if found is None:
        return ""
    what = f"{found.manufacturer} {found.model}".strip()
    parts = [what]
    if found.serial and found.serial != found.firmware:
        parts.append(
            f"serial number {found.serial}" if found.unique else f"known as {found.serial}"
        )
    if found.firmware:
        parts.append(f"firmware {found.firmware}")
    if found.note:
        parts.append(found.note)
    return _plain("; ".join(parts))


def _plain(text: str) -> str:
    """Text that may stand in a comment: whatever an instrument said, it ends no line."""
    return re.sub(r"[^\x20-\x7e]+", " ", text)[:400]
