"""Every command of the BTS interface that the rack understands, as a table of functions.

A function gets the rack's channels and a request, and gives the whole response. What no capture
shows was chosen here: the text of ``getpause`` and ``getparallel`` is ``true`` or ``false``;
``setpause`` reserves a pause at the end of the step that runs; no channel can be put in parallel
with another; ``chl_ctrl`` is refused; a channel that does not exist or is unavailable answers
``false``, with test 0 and no records.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labctl.simulators.faults import FaultBoard
from labctl.simulators.neware_bts.channel import Channel
from labctl.simulators.neware_bts.instrument import FloatColumn
from labctl.simulators.neware_bts.position import Condition
from labctl.simulators.neware_bts.shown import Download, Look
from labctl.simulators.neware_bts.wire import (
    Element,
    Request,
    element,
    listed,
    response,
    response_around,
    short,
)

logger = logging.getLogger(__name__)

MAX_STEP_FILE_BYTES = 16 << 20
LOG_CODE_WORKING = 102000

_LAYER_KEYS = (
    *("startseqid", "endseqid", "stepindex", "stepid", "cycleid", "steptype", "steptime"),
    *("endatime", "startvolt", "endvolt", "startcurr", "endcurr", "cap", "eng", "dcir"),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """The channels that stand behind the interface, by (subdevid, chlid)."""

    ip: str
    devtype: int
    devid: int
    username: str
    password: str
    answers_subdevid_1: bool
    channels: Mapping[tuple[int, int], Channel]
    faults: FaultBoard

    def find(self, item: Element, command: str) -> Channel | None:
        """The channel that an element means; None if there is none or it is unavailable."""
        if item.number("devid", -1) != self.devid:
            return None
        if item.number("devtype", self.devtype) != self.devtype:
            return None
        channel = self.channels.get((item.number("subdevid"), item.number("chlid")))
        if channel is None:
            return None
        if self.faults.take("unavailable", command, (channel.name,)):
            return None
        channel.freeze(self.faults.take("frozen", command, (channel.name,)) is not None)
        return channel

    def address(self, item: Element, *, ip: bool = True) -> dict[str, object]:
        """The attributes by which an answer names the channel that was asked for."""
        named: dict[str, object] = {"ip": self.ip} if ip else {}
        for key in ("devtype", "devid", "subdevid", "chlid"):
            named[key] = item.attributes.get(key, "")
        return named


Handler = Callable[[Bench, Request], bytes]


def connect(bench: Bench, request: Request) -> bytes:
    known = (request.text("username"), request.text("password")) == (
        bench.username,
        bench.password,
    )
    return response("connect", [f"  <result>{'ok' if known else 'false'}</result>"])


def getdevinfo(bench: Bench, _request: Request) -> bytes:
    channels = [
        "    "
        + element(
            "channel",
            {
                "ip": bench.ip,
                "devtype": bench.devtype,
                "devid": bench.devid,
                "subdevid": unit,
                "Channelid": number,
            },
            "true",
        )
        for unit, number in bench.channels
    ]
    return response(
        "getdevinfo",
        [
            '  <serverip count="1">',
            "    " + element("server", {"ip": bench.ip, "port": 3306}),
            "  </serverip>",
            f'  <middle count="{len(channels)}">',
            *channels,
            "  </middle>",
        ],
    )


def getchlstatus(bench: Bench, request: Request) -> bytes:
    items = []
    for item in request.all("status"):
        channel = bench.find(item, "getchlstatus")
        named = bench.address(item)
        if bench.answers_subdevid_1:
            named["subdevid"] = 1
        named["reservepause"] = int(channel is not None and channel.pause_is_reserved())
        items.append(element("status", named, "false" if channel is None else channel.condition()))
    return response("getchlstatus", listed(items))


def inquire(bench: Bench, request: Request) -> bytes:
    items = []
    for item in request.all("inquire"):
        named = bench.address(item)
        dev = "-".join(str(named[key]) for key in ("devtype", "devid", "subdevid", "chlid"))
        channel = bench.find(item, "inquire")
        look = None if channel is None else channel.look()
        items.append(element("inquire", _inquired(f"{dev}-0", look)))
    return response("inquire", listed(items))


def _inquired(dev: str, look: Look | None) -> dict[str, object]:
    found = Look(Condition.FINISH, "") if look is None else look
    shown: dict[str, object] = {"dev": dev, "cycle_id": found.cycle}
    if found.step:
        shown["step_id"] = found.step
    return shown | {
        "step_type": found.step_name,
        "workstatus": "false" if look is None else found.condition,
        "barcode": found.barcode,
        "current": short(found.current_A, 4),
        "voltage": short(found.voltage_V, 4),
        "capacity": short(found.capacity_Ah, 4),
        "energy": short(found.energy_Wh, 4),
        "totaltime": short(found.test_time_s, 1),
        "relativetime": short(found.step_time_s, 1),
        "open_or_close": 0,
        "log_code": LOG_CODE_WORKING if found.step else 0,
    }


def inquiredf(bench: Bench, request: Request) -> bytes:
    items = []
    for item in request.all("chl"):
        channel = bench.find(item, "inquiredf")
        test, count, complete = (0, 0, False) if channel is None else channel.extent()
        if item.number("testid") not in {0, test}:
            test, count, complete = item.number("testid"), 0, False
        named = {**bench.address(item, ip=False), "testid": test, "count": count}
        items.append(element("chl", named, _truth(complete)))
    return response("inquiredf", listed(items))


def download(bench: Bench, request: Request) -> bytes:
    lines: list[str] = []
    for item in request.all("download")[:1]:
        channel = bench.find(item, "download")
        asked = {key: item.number(key) for key in ("testid", "startpos", "count", "auxid")}
        if channel is None:
            lines = [_echo("download", bench, item, asked | {"testid": 0}), *listed([])]
            continue
        found = channel.download(asked["testid"], asked["startpos"], asked["count"])
        lines = [_echo("download", bench, item, asked | {"testid": found.test_id})]
        if not len(found.rows):
            return response("download", [*lines, *listed([])])
        return response_around("download", lines, len(found.rows), rows_of_download(found))
    return response("download", lines)


def rows_of_download(found: Download) -> bytes:
    """The lines of a download, each with its end."""
    from labctl.simulators.neware_bts.rowtext import TextRows, text_of

    rows = found.rows
    return text_of(
        TextRows(
            seq=rows.seq,
            step=rows.step,
            cycle=rows.cycle,
            word=found.name,
            words=found.names,
            ms=rows.ms,
            unix_s=found.unix_s,
            voltage_V=found.voltage_V,
            current_A=found.current_A,
            capacity_Ah=rows.capacity_Ah,
            energy_Wh=rows.energy_Wh,
        )
    )


def download_step_layer(bench: Bench, request: Request) -> bytes:
    lines: list[str] = []
    for item in request.all("downloadStepLayer")[:1]:
        channel = bench.find(item, "downloadStepLayer")
        if channel is None:
            lines = [_echo("downloadStepLayer", bench, item, {"testid": 0}), *listed([])]
            continue
        found = channel.layers()
        table = found.table
        lines = [_echo("downloadStepLayer", bench, item, {"testid": found.test_id})]
        columns = zip(
            table["first_seq"].tolist(),
            table["last_seq"].tolist(),
            table["visit"].tolist(),
            table["step"].tolist(),
            table["cycle"].tolist(),
            found.step_names,
            table["ms"].tolist(),
            labels(found.end_unix_s),
            *(
                _precise(column)
                for column in (
                    found.first_V,
                    found.last_V,
                    found.first_A,
                    found.last_A,
                    table["capacity_Ah"],
                    table["energy_Wh"],
                )
            ),
            [0] * len(table),
            strict=True,
        )
        items = [element("data", dict(zip(_LAYER_KEYS, row, strict=True))) for row in columns]
        lines += listed(items)
    return response("downloadStepLayer", lines)


def downloadlog(bench: Bench, request: Request) -> bytes:
    lines: list[str] = []
    for item in request.all("download")[:1]:
        channel = bench.find(item, "downloadlog")
        test, entries = (0, []) if channel is None else channel.log()
        if item.number("testid") not in {0, test}:
            test, entries = item.number("testid"), []
        times = labels(np.array([time for _, _, time in entries], dtype=np.float64))
        items = [
            element("data", {"seqid": seq, "log_code": code, "atime": atime})
            for (seq, code, _), atime in zip(entries, times, strict=True)
        ]
        lines = [_echo("download", bench, item, {"testid": test, "log_lever": 0}), *listed(items)]
    return response("downloadlog", lines)


def broadcaststop(bench: Bench, request: Request) -> bytes:
    items = []
    for item in request.all("stop"):
        here = item.number("devid", -1) == bench.devid
        for channel in bench.channels.values() if here else ():
            if not bench.faults.take("ignores_stop", "broadcaststop", (channel.name,)):
                channel.stop()
        named = {"ip": bench.ip, **{key: item.attributes.get(key, "") for key in _DEVICE}}
        items.append(element("stop", named, "ok" if here else "false"))
    return response("broadcaststop", listed(items))


_DEVICE = ("devtype", "devid")


def _start(_bench: Bench, channel: Channel, item: Element) -> bool:
    file = _step_file(item.text)
    return file is not None and channel.start(file, item.attributes.get("barcode", ""))


def _stop(bench: Bench, channel: Channel, _item: Element) -> bool:
    if bench.faults.take("ignores_stop", "stop", (channel.name,)):
        return True
    return channel.stop()


def _reset(_bench: Bench, channel: Channel, item: Element) -> bool:
    file = _step_file(item.text)
    return file is not None and channel.change_file(file)


def _light(_bench: Bench, channel: Channel, item: Element) -> bool:
    channel.light_on = item.text.lower() == "true"
    return True


def _refused(_bench: Bench, _channel: Channel, _item: Element) -> bool:
    return False


Act = Callable[[Bench, Channel, Element], bool]


def _each(command: str, act: Act, yes: str = "ok") -> Handler:
    """A command that does something to each channel of its list and says how that went."""

    def handle(bench: Bench, request: Request) -> bytes:
        items = []
        for item in request.elements:
            if "chlid" not in item.attributes:
                continue
            channel = bench.find(item, command)
            done = channel is not None and act(bench, channel, item)
            items.append(element(item.tag, bench.address(item), yes if done else "false"))
        return response(command, listed(items))

    return handle


HANDLERS: dict[str, Handler] = {
    "connect": connect,
    "getdevinfo": getdevinfo,
    "getchlstatus": getchlstatus,
    "inquire": inquire,
    "inquiredf": inquiredf,
    "download": download,
    "downloadStepLayer": download_step_layer,
    "downloadlog": downloadlog,
    "broadcaststop": broadcaststop,
    "start": _each("start", _start),
    "stop": _each("stop", _stop),
    "continue": _each("continue", lambda _b, channel, _i: channel.resume()),
    "goto": _each("goto", lambda _b, channel, item: channel.goto(item.number("step"))),
    "reset": _each("reset", _reset),
    "light": _each("light", _light),
    "clearflag": _each("clearflag", lambda _b, channel, _i: channel.clear_flag()),
    "resetalarm": _each("resetalarm", lambda _b, channel, _i: channel.clear_flag()),
    "setpause": _each("setpause", lambda _b, channel, _i: channel.reserve_pause(True)),
    "cancelpause": _each("cancelpause", lambda _b, channel, _i: channel.reserve_pause(False)),
    "getpause": _each("getpause", lambda _b, channel, _i: channel.pause_is_reserved(), "true"),
    "parallel": _each("parallel", _refused),
    "getparallel": _each("getparallel", _refused, "true"),
    "chl_ctrl": _each("chl_ctrl", _refused),
}


def labels(unix_s: FloatColumn) -> list[str]:
    """``YYYY-MM-DD HH:MM:SS`` in UTC."""
    seconds = np.floor(unix_s).astype("datetime64[s]")
    return [text.replace("T", " ") for text in np.datetime_as_string(seconds).tolist()]


def channels_in(bench: Bench, request: Request) -> list[str]:
    """The names of the channels that a request is about; every one's if it names none."""
    named = [
        f"{item.number('subdevid')}-{item.number('chlid')}"
        for item in request.elements
        if "chlid" in item.attributes
    ]
    return named or [channel.name for channel in bench.channels.values()]


def _echo(tag: str, bench: Bench, item: Element, more: Mapping[str, object]) -> str:
    return "  " + element(tag, {**bench.address(item, ip=False), **more})


def _precise(column: Iterable[float]) -> list[str]:
    return [f"{value:.15g}" for value in column]


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _step_file(text: str) -> bytes | None:
    path = Path(text)
    try:
        if not path.is_file() or path.stat().st_size > MAX_STEP_FILE_BYTES:
            logger.warning("there is no step file %s", path)
            return None
        return path.read_bytes()
    except (OSError, ValueError) as error:
        logger.warning("the step file %s cannot be read: %s", path, error)
        return None
