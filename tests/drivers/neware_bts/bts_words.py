"""What is said to a BTS host and what it answers, and a driver that says it."""

from __future__ import annotations

from pathlib import Path

from labctl.clock import VirtualClock
from labctl.drivers.base import Armed, Started
from labctl.drivers.neware_bts.config import NewareConfig
from labctl.drivers.neware_bts.driver import NewareBts
from labctl.program import (
    Comparison,
    ConstantCurrent,
    EndCondition,
    Limits,
    Loop,
    Program,
    Quantity,
    RecordRule,
    Rest,
    Step,
)
from labctl.wire.transcript import Transcript

LOGIN = """
> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>connect</cmd>\
<username>admin</username><password>neware</password><type>bfgs</type></bts>
< <?xml version="1.0" encoding="UTF-8"?>
<bts version="1.0">
  <cmd>connect_resp</cmd>
  <result>ok</result>
</bts>
> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>getdevinfo</cmd></bts>
< <?xml version="1.0" encoding="UTF-8"?>
<bts version="1.0">
  <cmd>getdevinfo_resp</cmd>
  <serverip count="1">
    <server ip="127.0.0.1" port="3306" />
  </serverip>
  <middle count="2">
    <channel ip="127.0.0.1" devtype="27" devid="21" subdevid="1" Channelid="1">true</channel>
    <channel ip="127.0.0.1" devtype="27" devid="21" subdevid="1" Channelid="2">false</channel>
</middle>
</bts>
"""
DEVINFO_ASKED = (
    '> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>getdevinfo</cmd></bts>'
)


def status(word: str) -> str:
    return f"""
> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>getchlstatus</cmd>\
<list count = "1"><status ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">true\
</status></list></bts>
< <?xml version="1.0" encoding="UTF-8"?>
<bts version="1.0">
  <cmd>getchlstatus_resp</cmd>
  <list count="1">
    <status ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1" reservepause="1">{word}\
</status>
  </list>
</bts>
"""


def summary(test: int, count: int, complete: str) -> str:
    return f"""
> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>inquiredf</cmd>\
<list count = "1"><chl devtype="27" devid="21" subdevid="1" chlid="1" testid="0" /></list></bts>
< <?xml version="1.0" encoding="UTF-8"?>
<bts version="1.0">
  <cmd>inquiredf_resp</cmd>
  <list count="1">
    <chl devtype="27" devid="21" subdevid="1" chlid="1" testid="{test}" count="{count}">{complete}\
</chl>
  </list>
</bts>
"""


def inquiry(word: str, barcode: str) -> str:
    return f"""
> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>inquire</cmd>\
<list count = "1"><inquire ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1" aux="0"\
 barcode="1">true</inquire></list></bts>
< <?xml version="1.0" encoding="UTF-8"?>
<bts version="1.0">
  <cmd>inquire_resp</cmd>
  <list count="1">
    <inquire dev="27-21-1-1-0" cycle_id="44" step_id="4" step_type="dc" workstatus="{word}"\
 barcode="{barcode}" current="-0.0003" voltage="4.6947" capacity="0.001" energy="0.0047"\
 totaltime="3189199.3" relativetime="12319" open_or_close="0" log_code="102000" />
  </list>
</bts>
"""


def look(word: str, test: int, barcode: str) -> str:
    return status(word) + inquiry(word, barcode) + summary(test, 10, "false")


def download(start: int, test: int, *rows: str) -> str:
    listed = "\n".join(f"    <data {row} />" for row in rows)
    inside = f'<list count="{len(rows)}">\n{listed}\n  </list>' if rows else '<list count="0" />'
    return f"""
> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>download</cmd>\
<download devtype="27" devid="21" subdevid="1" chlid="1" auxid="0" testid="0" startpos="{start}"\
 count="1000"/></bts>
< <?xml version="1.0" encoding="UTF-8"?>
<bts version="1.0">
  <cmd>donwload_resp</cmd>
  <download devtype="27" devid="21" subdevid="1" chlid="1" testid="{test}" startpos="{start}"\
 count="1000" auxid="0" />
  {inside}
</bts>
"""


def start(answer: str) -> str:
    return f"""
> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>start</cmd>\
<list count = "1"><start ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1"\
 barcode="run-1">D:\\labctl\\run-1.xml</start><backup backupdir="D:\\labctl" remotedir=""\
 filenametype="0" customfilename="" addtimewhenrepeat="0" createdirbydate="0" filetype="0"\
 backupontime="1" backupontimeinterval="720" backupfree="1" /></list></bts>
< <?xml version="1.0" encoding="UTF-8"?>
<bts version="1.0">
  <cmd>start_resp</cmd>
  <list count="1">
    <start ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">{answer}</start>
  </list>
</bts>
"""


def told(command: str, answer: str, more: str = "") -> str:
    """A command about the channel as a request, and what BTS says to it."""
    return (
        (STOP + STOPPED)
        .replace("stop", command)
        .replace(">ok<", f">{answer}<")
        .replace('chlid="1">true', f'chlid="1"{more}>true')
    )


STOP = """
> <?xml version="1.0" encoding="UTF-8" ?><bts version="1.0"><cmd>stop</cmd>\
<list count = "1"><stop ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">true\
</stop></list></bts>
"""
STOPPED = """
< <?xml version="1.0" encoding="UTF-8"?>
<bts version="1.0">
  <cmd>stop_resp</cmd>
  <list count="1">
    <stop ip="127.0.0.1" devtype="27" devid="21" subdevid="1" chlid="1">ok</stop>
  </list>
</bts>
"""
NO_ANSWER = "\n! no answer within 30 s\n"

LIMITS = Limits(1.0, 4.4, -0.011, 0.011, 4e-4, 500_000.0)
PROGRAM = Program(
    name="cycling",
    recipe_sha256="0",
    cell="HEV-01",
    body=(
        Step(
            0,
            "rest",
            Rest(),
            (EndCondition(Quantity.STEP_TIME_S, Comparison.AT_LEAST, 600.0),),
            RecordRule(),
        ),
        Loop(
            5,
            (
                Step(
                    1,
                    "charge",
                    ConstantCurrent(2e-4),
                    (EndCondition(Quantity.VOLTAGE_V, Comparison.AT_LEAST, 4.1),),
                    RecordRule(),
                ),
                Step(
                    2,
                    "discharge",
                    ConstantCurrent(-2e-4),
                    (EndCondition(Quantity.VOLTAGE_V, Comparison.AT_MOST, 1.5),),
                    RecordRule(),
                ),
            ),
            counts_cycles=True,
        ),
    ),
    limits=LIMITS,
)
ARMED = Armed("21-1-1", "run-1", "D:\\labctl\\run-1.xml", LIMITS, "143")
STARTED = Started("21-1-1", "run-1", "144", "D:\\labctl\\run-1.xml")
ROW_1 = (
    'seqid="1" stepid="1" cycleid="1" steptype="rest" testtime="0" atime="2025-12-28 23:29:05"'
    ' volt="2.55" curr="0" cap="0" eng="0"'
)
ROW_2 = (
    'seqid="2" stepid="2" cycleid="1" steptype="cc" testtime="30000" atime="2025-12-28 23:39:35"'
    ' volt="3.1" curr="0.0002" cap="1.5e-06" eng="4.6e-06"'
)
ROW_3 = (
    'seqid="3" stepid="3" cycleid="2" steptype="dc" testtime="60000" atime="2025-12-28 23:40:35"'
    ' volt="3.0" curr="-0.0002" cap="3e-06" eng="9e-06"'
)


class Bench:
    """The driver with a recorded BTS host behind it."""

    def __init__(self, folder: Path, *conversation: str) -> None:
        self.clock = VirtualClock(unix_start_s=1_800_000_000.0)
        self.wire: Transcript
        config = NewareConfig(
            host="bts",
            step_file_dir=str(folder),
            step_file_dir_on_host="D:\\labctl",
            utc_offset_s=3600.0,
        )

        def recorded(greeting: object) -> Transcript:
            self.wire = Transcript(
                LOGIN + "".join(conversation),
                newline="\r\n",
                greeting=greeting,  # type: ignore[arg-type]
            )
            return self.wire

        self.driver = NewareBts(config, name="rack 1", clock=self.clock, open_link=recorded)
