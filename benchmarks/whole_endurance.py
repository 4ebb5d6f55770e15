"""The 10,000-cycle endurance through the whole system: from the recipe to the committed archive.

Broker, simulated rack, daemon and archive are processes of their own, as in the demo. Printed are
the time by the wall and what each process computed in it.

    .venv/bin/python benchmarks/whole_endurance.py [--archive postgresql+psycopg://…]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from labctl.archive import open_archive
from labctl.cli.services import services_of
from labctl.demo.bench import Wanted, set_up_bench
from labctl.demo.cells import Dealer
from labctl.demo.conduct import conduct
from labctl.demo.study import RACK, Study, Work
from labctl.settings import load_settings
from labctl.supervisor import supervise


def cpu_s(pid: int) -> float:
    """What a process and its ended children have computed."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


async def measure(folder: Path, archive_url: str) -> None:
    """Run it and print what came of it."""
    cell = Dealer(7).half_cell("HEV-6", "HE-V", RACK, "21-1-1")
    study = Study((cell,), (Work(cell, "endurance-50C"),), whole=True)
    with set_up_bench(folder, study, Wanted(archive=archive_url)) as bench:
        settings = load_settings(bench.config)
        async with supervise(services_of(settings, bench.config), folder / "logs") as supervisor:
            began_s = time.monotonic()
            await conduct(settings, study, lambda *_: None)
            took_s = time.monotonic() - began_s
            shares = {name: cpu_s(child.pid) for name, child in supervisor.children.items()}
        began_s = time.monotonic()
        with open_archive(settings.archive_url) as archive:
            run = str(archive.runs().index[0])
            report = archive.verify(run)
            cycles = archive.cycles(run).reset_index()
            samples = int(archive.runs()["last_seq"].iloc[0])
        checked_s = time.monotonic() - began_s
    fast = cycles[cycles["cycle_class"] == "endurance"]["discharge_mAh_g"].to_numpy()
    print(f"endurance-50C: {len(cycles)} cycles, {samples} readings, {os.cpu_count()} cores")
    print(f"  from the recipe to the archive  {took_s:6.1f} s by the wall")
    for name, share_s in sorted(shares.items(), key=lambda item: -item[1]):
        print(f"    {name:<29} {share_s:6.1f} s computed")
    print(f"  verified, every sample counted  {checked_s:6.1f} s, problems: {len(report.problems)}")
    print(
        f"  retention over the first 5,000 {fast[4999] / fast[0]:.3f}, "
        f"the second {fast[-1] / fast[4999]:.3f}, all {fast[-1] / fast[0]:.3f}"
    )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", default="sqlite:///archive.db")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(Path(folder) / "demo", wanted.archive))


if __name__ == "__main__":
    main()
