"""PyVISA with pyvisa-py over a raw socket: queries, ASCII and binary readings, and its shell.

usage: with_pyvisa.py HOST PORT        a simulated 2450 with 1 kOhm at its terminals
"""

from __future__ import annotations

import subprocess
import sys
import time

import pyvisa
from checks import Checks, until

OHM = 1000.0


def main() -> int:
    host, port = sys.argv[1:3]
    checks = Checks("pyvisa", "pyvisa-py")
    resource = f"TCPIP0::{host}::{port}::SOCKET"
    smu = pyvisa.ResourceManager("@py").open_resource(
        resource, read_termination="\n", write_termination="\n", timeout=20_000
    )
    talk(smu, checks)
    smu.close()
    shell(resource, checks)
    return checks.code


def talk(smu: pyvisa.resources.MessageBasedResource, checks: Checks) -> None:
    """Common commands, the status model, readings in every format."""
    identity = smu.query("*IDN?")
    checks.equal("*IDN?", lambda: identity.split(",")[:2], ["KEITHLEY INSTRUMENTS", "MODEL 2450"])
    smu.write("*RST;*CLS")
    checks.equal("*LANG?", lambda: smu.query("*LANG?"), "SCPI")
    checks.equal("*TST?", lambda: smu.query("*TST?"), "0")
    checks.equal("*OPC?", lambda: smu.query("*OPC?"), "1")

    def complete() -> str:
        smu.write("*ESE 1;*SRE 32;*OPC")
        assert smu.query("*STB?") == str(64 + 32), "ESB and MSS after *OPC"
        assert smu.query("*ESR?") == "1"
        assert smu.query("*ESR?") == "0", "it is cleared by reading"
        return smu.query("*STB?")

    checks.equal("*OPC sets its bit, which *ESE and *SRE let through", complete, "0")

    def undefined() -> str:
        smu.write(":NO:SUCH:THING 1")
        assert int(smu.query("*ESR?")) & 32, "command error"
        assert int(smu.query(":SYST:ERR:COUN?")) == 1
        error = smu.query(":SYST:ERR?")
        assert error.startswith('-113,"Undefined header'), error
        assert smu.query(":SYST:ERR?").startswith("0,"), "and then none"
        return error

    checks.check("an undefined header is an error in the queue", undefined)
    smu.write("*CLS")

    def joined() -> str:
        return smu.query(":SOUR:VOLT:RANG 2;:SOUR:FUNC?;:OUTP?;:SENS:FUNC?")

    checks.equal("queries of one line are answered in one", joined, 'VOLT;0;"CURR:DC"')
    smu.write(":SOUR:FUNC VOLT;:SOUR:VOLT 1;:SOUR:VOLT:ILIM 0.01;:SENS:CURR:NPLC 0.1;:OUTP ON")
    checks.close("READ?", lambda: smu.query(":READ?"), 1 / OHM, 5e-6)
    smu.write(':TRAC:CLE "defbuffer1";:SENS:COUN 20;:TRAC:TRIG "defbuffer1";:SENS:COUN 1')

    def asked(kind: str) -> list[float]:
        words = ':TRAC:DATA? 1,20,"defbuffer1",READ,SOUR'
        if kind == "ascii":
            smu.write(":FORM ASC")
            return list(smu.query_ascii_values(words))
        datatype, size = ("d", 8) if "real" in kind else ("f", 4)
        big = kind.endswith("normal")
        smu.write(f":FORM {'REAL' if size == 8 else 'SRE'};:FORM:BORD {'NORM' if big else 'SWAP'}")
        values = smu.query_binary_values(
            words, datatype=datatype, is_big_endian=big, data_points=40, expect_termination=True
        )
        smu.write(":FORM ASC;:FORM:BORD SWAP")
        return list(values)

    ascii_values = asked("ascii")
    checks.equal("query_ascii_values", lambda: len(ascii_values), 40)
    for kind in ("real swapped", "real normal", "short swapped", "short normal"):

        def alike(kind: str = kind) -> str:
            found = asked(kind)
            assert len(found) == 40, len(found)
            for ours, theirs in zip(found, ascii_values, strict=True):
                assert abs(ours - theirs) <= 1e-6 * abs(theirs), (ours, theirs)
            return f"{len(found)} values"

        checks.check(f"query_binary_values, {kind}", alike)

    def simple_loop() -> str:
        smu.write(':TRIG:LOAD "SimpleLoop", 10, 0.01, "defbuffer1";:INIT')
        until(lambda: smu.query(":TRIG:STAT?").startswith("IDLE"))
        return smu.query(":TRAC:ACT?")

    checks.equal("a trigger model, followed by :TRIG:STAT?", simple_loop, "10")

    def list_sweep() -> list[float]:
        smu.write(":SOUR:LIST:VOLT 0.1,0.2,0.5")
        smu.write(":SOUR:LIST:VOLT:APP 1.0")
        assert smu.query(":SOUR:LIST:VOLT:POIN?") == "4"
        smu.write(":SOUR:SWE:VOLT:LIST 1,0.01,1;:INIT;*WAI")
        return [round(value, 4) for value in smu.query_ascii_values(":TRAC:DATA? 1,4,'defbuffer1'")]

    checks.equal("a list sweep", list_sweep, [0.0001, 0.0002, 0.0005, 0.001])

    def screens() -> str:
        smu.write(":DISP:SCR SWIPE_USER;:DISP:USER1:TEXT 'labctl';:DISP:CLE;:DISP:LIGH:STAT ON75")
        smu.write(":DISP:CURR:DIG 5")
        return smu.query(":SYST:ERR:COUN?")

    checks.equal("DISPlay commands are known", screens, "0")

    def setups() -> str:
        smu.write(":SOUR:FUNC VOLT;:SOUR:VOLT 0.75;*SAV 1;*RST;*RCL 1")
        return f"{float(smu.query(':SOUR:VOLT?')):g}"

    checks.equal("*SAV and *RCL", setups, "0.75")
    smu.write("*RST")
    time.sleep(0.05)
    checks.equal("no errors at the end", lambda: smu.query(":SYST:ERR:COUN?"), "0")


def shell(resource: str, checks: Checks) -> None:
    """What a person types into pyvisa-shell."""

    def typed() -> None:
        done = subprocess.run(
            ["pyvisa-shell", "-b", "py"],
            input=f"open {resource}\ntermchar LF LF\nquery *IDN?\nquery :SOUR:FUNC?\nclose\nexit\n",
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        assert "KEITHLEY INSTRUMENTS,MODEL 2450" in said, said[-500:]
        assert "VOLT" in said, said[-500:]

    checks.check("pyvisa-shell: open, query, close", typed)


if __name__ == "__main__":
    sys.exit(main())
