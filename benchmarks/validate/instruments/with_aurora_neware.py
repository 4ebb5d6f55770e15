"""aurora-neware's client, all of its calls, and its command line.

usage: with_aurora_neware.py HOST PORT        a simulated rack with cells in 1-3 and 1-4
The command line knows no port but 502; only that default is another one here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from aurora_neware import NewareAPI
from aurora_neware.cli.main import app
from checks import Checks, until
from typer.testing import CliRunner

CHANNEL, OTHER = "21-1-3", "21-1-4"
STEPS = """<?xml version="1.0" encoding="UTF-8"?>
<root>
  <config type="Step File" version="17" client_version="BTS Client 8.0.0.478(2024.06.24)(R3)"
   date="20250101000000" Guid="00000000-0000-0000-0000-000000000000">
    <Head_Info>
      <Operate Value="66"/><Scale Value="1"/><Start_Step Value="1"/><Creator Value="validate"/>
      <Remark Value="a rest, a charge, a discharge"/><RateType Value="103"/>
    </Head_Info>
    <Whole_Prt>
      <Protect><Main><Volt><Upper Value="45000"/><Lower Value="5000"/></Volt></Main></Protect>
      <Record><Main><Time Value="10000"/></Main></Record>
    </Whole_Prt>
    <Step_Info Num="4">
      <Step1 Step_ID="1" Step_Type="4"><Limit><Main><Time Value="60000"/></Main></Limit></Step1>
      <Step2 Step_ID="2" Step_Type="1"><Limit><Main><Curr Value="0.05"/>
        <Stop_Volt Value="41000"/><Time Value="300000"/></Main></Limit></Step2>
      <Step3 Step_ID="3" Step_Type="2"><Limit><Main><Curr Value="0.05"/>
        <Stop_Volt Value="15000"/><Time Value="300000"/></Main></Limit></Step3>
      <Step4 Step_ID="4" Step_Type="6"><Limit><Main/></Limit></Step4>
    </Step_Info>
    <SMBUS><SMBUS_Info Num="0"/></SMBUS>
  </config>
</root>
"""


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("aurora-neware")
    file = Path("validate.xml").resolve()
    file.write_text(STEPS)
    with NewareAPI(host, int(port)) as rack:
        client(rack, checks, file)
    command_line(checks, host, int(port), file)
    return checks.code


def client(rack: NewareAPI, checks: Checks, file: Path) -> None:
    """Every call of the client."""
    checks.equal("getdevinfo: channels", lambda: len(rack.getdevinfo()), 16)
    checks.equal("getchlstatus", lambda: rack.getchlstatus(CHANNEL)[CHANNEL]["status"], "finish")
    checks.check("getchlstatus of all", lambda: len(rack.getchlstatus()))
    checks.check("inquire", lambda: rack.inquire(CHANNEL)[CHANNEL]["voltage"])
    checks.equal("light", lambda: rack.light(CHANNEL)[0]["light"], "ok")
    checks.equal("start", lambda: rack.start(CHANNEL, "cell-1", file)[0]["start"], "ok")

    def complete() -> int:
        def over() -> bool:
            return rack.inquire(CHANNEL)[CHANNEL]["workstatus"] == "finish"

        def read() -> bool:
            rack.download(CHANNEL, 0)
            return over()

        until(read)
        return int(rack.inquiredf(CHANNEL)[CHANNEL]["count"])

    checks.check("it runs to its end; records", complete)

    def rows() -> str:
        data = rack.download(CHANNEL, 0)
        assert data["seqid"] == list(range(1, len(data["seqid"]) + 1))
        kinds = list(dict.fromkeys(data["steptype"]))
        assert kinds == ["rest", "cc", "dc"], kinds
        charging = [
            c for c, kind in zip(data["curr"], data["steptype"], strict=True) if kind == "cc"
        ]
        assert all(abs(now - 5e-5) < 1e-6 for now in charging), charging[:3]
        return f"{len(data['seqid'])} of {kinds}"

    checks.check("download", rows)
    checks.equal("download of the last 10", lambda: len(rack.download(CHANNEL, 10)["seqid"]), 10)
    checks.equal(
        "get_steps",
        lambda: [row["steptype"] for row in rack.get_steps(CHANNEL)],
        ["rest", "cc", "dc"],
    )
    checks.equal(
        "downloadlog",
        lambda: [row["log_code"] for row in rack.downloadlog(CHANNEL)][:1],
        [100000],
    )
    checks.check("get_testid", lambda: rack.get_testid(CHANNEL)[CHANNEL]["full_test_id"])
    checks.equal(
        "clearflag of a channel without one, as captured",
        lambda: rack.clearflag(CHANNEL)[0]["clearflag"],
        "false",
    )

    def busy() -> str:
        assert rack.start(OTHER, "cell-2", file)[0]["start"] == "ok"
        try:
            rack.start(OTHER, "cell-2", file)
        except ValueError as error:
            return str(error)[-60:]
        raise AssertionError("a channel that works was started again")

    checks.check("a channel that works is not started", busy)
    checks.equal("stop", lambda: rack.stop(OTHER)[0]["stop"], "ok")
    checks.equal("it is stopped", lambda: rack.inquire(OTHER)[OTHER]["workstatus"], "stop")


def command_line(checks: Checks, host: str, port: int, file: Path) -> None:
    """``neware …``, as it is typed."""
    NewareAPI.__init__.__defaults__ = (host, port)

    def neware(*words: str) -> object:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == 0, f"{done.output} {done.exception!r}"
        return json.loads(done.output) if done.output.strip().startswith(("{", "[")) else None

    checks.equal("neware status", lambda: len(neware("status")), 16)
    checks.check("neware status CHANNEL", lambda: neware("status", CHANNEL)[CHANNEL]["workstatus"])
    checks.equal(
        "neware status -s finish", lambda: CHANNEL in neware("status", "-s", "finish"), True
    )
    checks.check("neware get-num-datapoints", lambda: neware("get-num-datapoints", CHANNEL))
    checks.equal("neware get-data", lambda: len(neware("get-data", CHANNEL, "5")["volt"]), 5)
    checks.check("neware log", lambda: len(neware("log", CHANNEL)))
    checks.check("neware start", lambda: neware("start", OTHER, "cell-2", str(file)))
    checks.check("neware stop", lambda: neware("stop", OTHER))


if __name__ == "__main__":
    sys.exit(main())
