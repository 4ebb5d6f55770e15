"""Tries an installed labctl from outside its tree. usage: smoke.py core|all"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

extent = sys.argv[1]
EXTRAS = ("numba", "scipy", "matplotlib", "psycopg")
command = str(Path(sys.executable).with_name("labctl"))


def labctl(*arguments: str, folder: str = ".") -> str:
    done = subprocess.run(
        [command, *arguments], capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode:
        sys.exit(f"labctl {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


import labctl as package  # noqa: E402

print(f"labctl {package.__version__} in {Path(package.__file__).parent}")
if extent == "core":
    there = [name for name in EXTRAS if importlib.util.find_spec(name)]
    if there:
        sys.exit(f"the core has brought {there} along: it must install light")
skipped = ("labctl.simulators", "labctl.report", "labctl.demo", "labctl.archive.migrations")
for module in pkgutil.walk_packages(package.__path__, "labctl."):
    if module.name == "labctl.__main__" or (extent == "core" and module.name.startswith(skipped)):
        continue
    if module.name.startswith("labctl.archive.migrations"):
        continue
    importlib.import_module(module.name)

with tempfile.TemporaryDirectory() as folder:
    print(labctl("--version", folder=folder).strip())
    print(labctl("recipe", "check", "capacity-0.2C", folder=folder).strip())
    if extent == "all":
        told = labctl("demo", "--quick", folder=folder)
        print(told[-2000:])
