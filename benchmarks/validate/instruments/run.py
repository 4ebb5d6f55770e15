"""Programs that others wrote for the real instruments, unchanged, against the simulators.

    python benchmarks/validate/instruments/run.py [NAME …]

A program is one line of :data:`PROGRAMS`. Each has an environment of its own under
``.venv-validate/``, made from its requirements when they change, and meets its simulator where it
would meet the instrument: at a TCP port or at a serial one. A script prints the versions of what it
uses and a line for each check. Exits with 1 where a check failed or a program could not be had.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ENVIRONMENTS = ROOT / ".venv-validate"
READY_S = 60.0
GOING_S = 20.0
VERSION = re.compile(r"[A-Za-z0-9._-]+ \d+(?:\.\w+)+")
LONGEST_S = 300.0
"""A script that takes longer is killed, and has failed."""
FETCHING_S = 1500.0

QUIET = {"FASTMCP_CHECK_FOR_UPDATES": "off", "FASTMCP_SHOW_SERVER_BANNER": "false"}
"""MCP servers look for newer versions of their own library, unless they are told not to."""

SOURCE_METER = 'model = "2450"\nload_ohm = 1000.0\n'
RACK = """
speed = "virtual"
seed = 7
epoch_unix_s = 1750000000.0

[[cells]]
channel = "1-3"
spec.name = "HEV-01"
spec.material = "HE-V"
spec.active_mass_g = 0.002

[[cells]]
channel = "1-4"
spec.name = "HEV-02"
spec.material = "HE-V"
spec.active_mass_g = 0.002

[[cells]]
channel = "1-5"
spec.name = "HEV-03"
spec.material = "HE-V"
spec.active_mass_g = 0.05
"""
EMSTAT4 = 'model = "EmStat4S HR"\nspeed = 20.0\nload_ohm = 10000.0\n'
PICO = """
model = "EmStat Pico"
serial = "EP1A2B3C4D"
speed = 20.0
load_ohm = 10000.0
"""


@dataclasses.dataclass(frozen=True)
class Simulator:
    """``labctl simulate kind`` of a config; ``link`` names the option for a serial port."""

    kind: str
    config: str = ""
    link: str = ""
    options: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Program:
    """name, requirements file, simulator, script. ``about``: what it is."""

    name: str
    requirements: str
    simulator: Simulator
    script: str
    about: str


SMU = Simulator("keithley", SOURCE_METER, options=("--port", "0"))
NEWARE = Simulator("neware", RACK, options=("--port", "0"))
ES4 = Simulator("palmsens", EMSTAT4, link="--link")
ES_PICO = Simulator("palmsens", PICO, link="--link")
CHAMBER = Simulator("espec", options=("--port", "0", "--speed", "60"))

PROGRAMS = (
    Program("qcodes", "qcodes.txt", SMU, "with_qcodes.py", "QCoDeS, Keithley2450"),
    Program("pymeasure", "pymeasure.txt", SMU, "with_pymeasure.py", "PyMeasure, Keithley2450"),
    Program("pyvisa", "pyvisa.txt", SMU, "with_pyvisa.py", "PyVISA and pyvisa-shell"),
    Program(
        "keithley2400", "keithley2400.txt", SMU, "with_keithley2400.py", "finds a 2450 by itself"
    ),
    Program("labmcp-keithley-smu", "labmcp_smu.txt", SMU, "with_labmcp_smu.py", "MCP tools"),
    Program("easy-scpi", "easy_scpi.txt", SMU, "with_easy_scpi.py", "easy-scpi"),
    Program(
        "aurora-neware", "aurora_neware.txt", NEWARE, "with_aurora_neware.py", "client and CLI"
    ),
    Program(
        "aurora-unicycler",
        "aurora_unicycler.txt",
        NEWARE,
        "with_aurora_unicycler.py",
        "its step files, started by aurora-neware",
    ),
    Program(
        "neware-utils",
        "neware_utils.txt",
        NEWARE,
        "with_neware_utils.py",
        "its step files, started by aurora-neware",
    ),
    Program("labmcp-palmsens", "labmcp_palmsens.txt", ES4, "with_labmcp_palmsens.py", "MCP tools"),
    Program("hardpotato", "hardpotato.txt", ES_PICO, "with_hardpotato.py", "hardpotato, Pico"),
    Program(
        "methodscript-examples",
        "methodscript.txt",
        ES4,
        "as_methodscript_examples.py",
        "as PalmSens/MethodSCRIPT_Examples does it",
    ),
    Program("espec-pr3j", "espec_pr3j.txt", CHAMBER, "espec_pr3j.py", "espec-pr3j, PR-3J"),
)


class UnavailableError(Exception):
    """A program that could not be fetched or installed."""


def environment_of(program: Program) -> Path:
    """The Python of the program's own environment, made where it is not there yet.

    Raises:
        UnavailableError: its packages could not be had.
    """
    folder = ENVIRONMENTS / program.requirements.removesuffix(".txt")
    wanted = HERE / program.requirements
    print_ = hashlib.sha256(wanted.read_bytes()).hexdigest()
    made, python = folder / "made-from", folder / "bin" / "python"
    if made.is_file() and made.read_text() == print_ and python.exists():
        return python
    print(f"setting up {folder.relative_to(ROOT)}", flush=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run(
            [*install, "-r", str(wanted)],
            check=True,
            timeout=FETCHING_S,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"not installed in {error.timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = [line for line in (error.stderr or "").splitlines() if line.startswith("ERROR")]
        raise UnavailableError(said[-1] if said else str(error)) from error
    made.write_text(print_)
    return python


def run(program: Program) -> tuple[int, int, str]:
    """How many checks were ok, how many failed, and the versions.

    Raises:
        UnavailableError: its packages could not be had.
    """
    python = environment_of(program)
    with tempfile.TemporaryDirectory(prefix="labctl-validate-") as name:
        folder = Path(name)
        with (folder / "simulator.log").open("w+") as log:
            serving = subprocess.Popen(
                _command(program.simulator, folder), stdout=log, stderr=log, cwd=folder
            )
            try:
                address = _address(folder, serving, (folder / "simulator.log").read_text)
                said = _script(python, program, address, folder)
            finally:
                serving.terminate()
                try:
                    serving.wait(GOING_S)
                except subprocess.TimeoutExpired:
                    serving.kill()
                    serving.wait()
    lines = said.splitlines()
    good = sum(line.startswith("ok ") for line in lines)
    bad = sum(line.startswith("FAILED ") for line in lines)
    versions = [line for line in lines if VERSION.fullmatch(line)]
    return good, bad, ", ".join(versions)


def _command(simulator: Simulator, folder: Path) -> list[str]:
    command = [sys.executable, "-m", "labctl", "simulate", simulator.kind]
    if simulator.config:
        config = folder / "simulator.toml"
        config.write_text(simulator.config)
        command += ["--config", str(config)]
    if simulator.link:
        command += [simulator.link, str(folder / "port")]
    return [*command, *simulator.options, "--ready-file", str(folder / "ready")]


def _address(folder: Path, serving: subprocess.Popen[bytes], log: Callable[[], str]) -> list[str]:
    """Where the simulator is: host and port, or the name of a serial port."""
    ready, over_s = folder / "ready", time.monotonic() + READY_S
    while not ready.exists():
        if serving.poll() is not None or time.monotonic() > over_s:
            raise RuntimeError(f"the simulator did not come up: {log()}")
        time.sleep(0.05)
    address = ready.read_text().splitlines()[0]
    return [address] if address.startswith("/") else address.rsplit(":", 1)


def _script(python: Path, program: Program, address: list[str], folder: Path) -> str:
    """What the script says, shown while it does."""
    said: list[str] = []
    own = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    bins = f"{python.parent}{os.pathsep}{own.get('PATH', '')}"
    process = subprocess.Popen(
        [str(python), str(HERE / program.script), *address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**own, "PATH": bins, "HOME": str(folder), "MPLBACKEND": "agg", **QUIET},
    )
    patience = threading.Timer(LONGEST_S, process.kill)
    patience.start()
    assert process.stdout is not None
    for line in process.stdout:
        print(f"  {line}", end="", flush=True)
        said.append(line)
    code = process.wait()
    patience.cancel()
    if code and (code < 0 or not any(line.startswith("FAILED ") for line in said)):
        said.append(f"FAILED the script ended with {code}\n")
        print(f"  {said[-1]}", end="", flush=True)
    return "".join(said)


def main() -> int:
    """Run the programs that the command line names, or all."""
    wanted = set(sys.argv[1:])
    unknown = wanted - {program.name for program in PROGRAMS}
    if unknown:
        print(f"no such program: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    table: list[tuple[str, str, str]] = []
    fine = True
    for program in PROGRAMS:
        if wanted and program.name not in wanted:
            continue
        print(f"== {program.name}: {program.about}", flush=True)
        versions = ""
        try:
            good, bad, versions = run(program)
        except UnavailableError as error:
            result, fine = f"COULD NOT BE FETCHED, not run: {error}", False
        except RuntimeError as error:
            result, fine = f"FAILED: {error}", False
        else:
            fine = fine and good > 0 and not bad
            result = f"{good} ok" + (f", {bad} FAILED" if bad else "")
            if not good and not bad:
                result = "FAILED: nothing was checked"
        print(f"  {result}", flush=True)
        table.append((program.name, result, versions))
    print()
    width = max((len(name) for name, _, _ in table), default=0)
    wide = max((len(result) for _, result, _ in table), default=0)
    for name, result, versions in table:
        print(f"{name:{width}}  {result:{wide}}  {versions}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
