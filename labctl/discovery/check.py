"""Whether every instrument of a configuration is there, and is the one that it should be.

Each is opened as a daemon opens it, which changes no output; what a daemon owns is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum

import msgspec

from labctl.clock import RealClock
from labctl.daemon.configured import drivers_own, runs_recipes
from labctl.drivers import build_driver, checked_options
from labctl.drivers.base import Driver, Identity
from labctl.errors import LabctlError
from labctl.settings import Settings
from labctl.wire.ownership import OwnedError, Ownership, lock_folder
from labctl.wire.places import names_of_options, number_name

CHECKER = "labctl instruments check"
CLOSE_S = 3.0


class Verdict(enum.StrEnum):
    """How an instrument of the configuration stands."""

    WELL = "well"
    OWNED = "owned"
    WRONG = "wrong"


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument of the configuration. ``why`` says what is wrong, or whose it is."""

    name: str
    driver: str
    verdict: Verdict
    why: str = ""
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    pinned: bool | None = None
    """The configuration names the serial number, so that no other instrument is taken for it; None
    where there is none that could be named."""
    channels: tuple[str, ...] = ()


async def check(settings: Settings, *, within_s: float = 30.0) -> tuple[Checked, ...]:
    """Every instrument of the configuration, all at the same time."""
    return tuple(
        await asyncio.gather(*(_checked(settings, name, within_s) for name in settings.instruments))
    )


async def _checked(settings: Settings, name: str, within_s: float) -> Checked:
    kind = str(settings.instruments[name]["driver"])
    ownership = Ownership(lock_folder(settings.lock_dir), who=CHECKER)
    try:
        async with asyncio.timeout(within_s):
            return await _opened(settings, name, kind, ownership)
    except OwnedError as error:
        owner = str(error.owner or "another process")
        return Checked(name=name, driver=kind, verdict=Verdict.OWNED, why=f"owned by {owner}")
    except LabctlError as error:
        return Checked(name=name, driver=kind, verdict=Verdict.WRONG, why=str(error))
    except TimeoutError:
        why = f"it did not say what it is within {within_s:g} s"
        return Checked(name=name, driver=kind, verdict=Verdict.WRONG, why=why)
    finally:
        ownership.let_go()


async def _opened(settings: Settings, name: str, kind: str, ownership: Ownership) -> Checked:
    options = drivers_own(settings, settings.instruments[name])
    checked = msgspec.structs.asdict(checked_options(kind, options, name=name))
    driver: Driver = build_driver(kind, options, name=name, clock=RealClock())
    ownership.take(await asyncio.to_thread(names_of_options, checked))
    try:
        identity = await driver.open()
        if identity.unique and identity.serial:
            ownership.take([number_name(identity.manufacturer, identity.serial)])
        channels = await driver.channels() if runs_recipes(driver) else ()
    finally:
        await _let_go(driver)
    pinned = str(checked.get("serial", "") or "")
    can_be_pinned = "serial" in checked and identity.unique and bool(identity.serial)
    wrong = _wrong_number(identity, pinned)
    return Checked(
        name=name,
        driver=kind,
        verdict=Verdict.WRONG if wrong else Verdict.WELL,
        why=wrong,
        manufacturer=identity.manufacturer,
        model=identity.model,
        serial=identity.serial,
        pinned=bool(pinned) if can_be_pinned else None,
        channels=channels,
    )


def _wrong_number(identity: Identity, pinned: str) -> str:
    """Every driver compares it by itself; this is for one that forgot to."""
    if not pinned or identity.serial == pinned:
        return ""
    return f"has the serial number {identity.serial}, and the configuration says {pinned}"


async def _let_go(driver: Driver) -> None:
    with contextlib.suppress(TimeoutError, LabctlError, OSError):
        async with asyncio.timeout(CLOSE_S):
            await driver.close()
