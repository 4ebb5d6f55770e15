"""A MethodSCRIPT instrument talked to as the Python examples of PalmSens/MethodSCRIPT_Examples do.

usage: as_methodscript_examples.py PORT        a simulated EmStat4S HR with 10 kOhm at its leads
Those examples are on GitHub only and are for use with PalmSens' instruments; these are the same
exchanges in other words: pyserial at 230400 baud, ``readline``, text as ASCII.
"""

from __future__ import annotations

import re
import sys
import time

import serial
from checks import Checks

OHM = 10_000.0
PREFIXES = dict(
    zip("afpnum kMGTPEi", [*(10.0 ** (3 * k - 18) for k in range(13)), 1.0], strict=True)
)

Package = dict[str, float]


class Line:
    """The instrument's line."""

    def __init__(self, port: str) -> None:
        self.port = serial.Serial(port, 230_400, timeout=10)

    def write(self, *lines: str) -> None:
        for line in lines:
            self.port.write(line.encode("ascii") + b"\n")

    def read(self) -> str:
        data = self.port.readline().decode("ascii")
        assert data.endswith("\n"), f"no end of line: {data!r}"
        return data[:-1]

    def ask(self, line: str) -> str:
        self.write(line)
        return self.read()

    def script(self, *lines: str) -> list[str]:
        """Run a script; what it writes, to the empty line."""
        self.write("e", *lines, "")
        said = []
        while (line := self.read()) != "":
            said.append(line)
            assert "!" not in line, line
        return said


def package_of(line: str) -> Package:
    found: Package = {}
    for variable in line[1:].split(";"):
        kind, digits, prefix = variable[:2], variable[2:9], variable[9]
        found[kind] = (int(digits, 16) - 2**27) * PREFIXES[prefix]
        assert all(re.fullmatch("1[0-9A-F]|2[0-9A-F]{2}", item) for item in variable.split(",")[1:])
    return found


def packages_of(said: list[str]) -> list[Package]:
    return [package_of(line) for line in said if line.startswith("P")]


def main() -> int:
    checks = Checks("pyserial")
    line = Line(sys.argv[1])

    def synced() -> str:
        line.write("", "Z")
        while not (answer := line.read()).startswith("Z"):
            pass
        return answer

    checks.equal("abort and sync: Z!0006 where nothing runs", synced, "Z!0006")
    time.sleep(0.15)

    def firmware() -> str:
        first, second = line.ask("t"), line.read()
        assert first.startswith("tes4_hr"), first
        assert second.endswith("*"), second
        return f"{first} {second}"

    checks.check("t", firmware)
    checks.equal("i", lambda: line.ask("i"), "iES4HR20B0008")
    checks.check("v", lambda: line.ask("v"))

    pieces = ("pck_start", "  pck_add p", "  pck_add c", "pck_end", "endloop")
    begin = (
        *("var p", "var c", "set_pgstat_chan 0", "set_pgstat_mode 3", "set_max_bandwidth 60"),
        *("set_range_minmax da -500m 500m", "set_range ba 100u", "set_autoranging ba 100n 1m"),
        *("set_e 0", "cell_on"),
    )
    end = ("on_finished:", "  cell_off")

    def ohmic(said: list[str], points: int, mark: str) -> str:
        assert said[0] == "e", said[0]
        assert said[1] == mark, said[1]
        found = packages_of(said)
        assert len(found) == points, len(found)
        for package in found:
            assert abs(package["ba"] - package["da"] / OHM) < 5e-7, package
        return f"{len(found)} packages"

    def cyclic() -> str:
        loop = "meas_loop_cv p c 0 500m -500m 10m 1 nscans(3)"
        said = line.script("# comment", *begin, loop, *pieces, *end)
        assert [word for word in said if word[0] in "C-*"] == (
            ["C0000", "-", "C0001", "-", "C0002", "-", "*"]
        )
        return ohmic(said, 603, "M0005")

    checks.check("CV of three scans", cyclic)
    checks.check(
        "LSV",
        lambda: ohmic(
            line.script(*begin, "meas_loop_lsv p c -500m 500m 10m 1", *pieces, *end), 101, "M0000"
        ),
    )
    checks.check(
        "CA, with the potential that is set",
        lambda: ohmic(
            line.script(*begin, "meas_loop_ca p c 100m 100m 2", *pieces, *end), 20, "M0007"
        ),
    )

    def square() -> str:
        said = line.script(
            "var f", "var r", *begin, "meas_loop_ca p c -300m 100m 1", "endloop",
            "meas_loop_swv p c f r -300m 300m 5m 50m 5", *pieces, *end,
        )  # fmt: skip
        assert said[1:4] == ["M0007", "*", "M0002"], said[:5]
        found = packages_of(said)
        assert len(found) == 121, len(found)
        assert all(abs(package["ba"] - 0.1 / OHM) < 1e-6 for package in found)
        return f"{len(found)} packages"

    checks.check("SWV after equilibration", square)

    def impedance() -> str:
        said = line.script(
            *("var f", "var r", "var j", "set_pgstat_chan 0", "set_pgstat_mode 3"),
            *("set_max_bandwidth 200k", "set_range_minmax da 0 0", "set_range ba 100u"),
            *("set_autoranging ba 100n 1m", "set_range ab 4", "set_autoranging ab 4 4", "cell_on"),
            *("meas_loop_eis f r j 10m 100k 100 11 0", "pck_start", "pck_add f", "pck_add r"),
            *("pck_add j", "pck_end", "endloop", *end),
        )
        found = packages_of(said)
        assert said[1] == "M000D", said[1]
        assert len(found) == 11, len(found)
        assert all(abs(package["cc"] - OHM) < 0.02 * OHM for package in found)
        return f"{found[0]['dc']:.6g} Hz to {found[-1]['dc']:.6g} Hz"

    checks.check("EIS", impedance)

    def aborted() -> str:
        line.write("e", *begin, "meas_loop_ca p c 100m 100m 3600", *pieces, *end, "")
        for _ in range(5):
            line.read()
        line.write("Z")
        said = []
        while (word := line.read()) != "":
            said.append(word)
        assert "Z" in said, said[-5:]
        assert said[-1] == "*", said[-5:]
        return "Z, * and an empty line"

    checks.check("a script is ended with Z", aborted)

    def mistaken() -> str:
        line.write("e", "var c", "var c", "")
        answer = line.read()
        assert re.fullmatch(r"e![0-9A-F]{4}: Line 2, Col \d+", answer), answer
        return answer

    checks.check("a mistake is told with its line and column", mistaken)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
