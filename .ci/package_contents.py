"""Compares what is in a wheel and an sdist with the tree that they were built from."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

tree, wheel, sdist = (Path(argument) for argument in sys.argv[1:])
LINKED = ("drivers", "protocols", "simulators")
WANTED = {".py", ".yaml", ".json", ".toml", ".mako", ".typed"}


def in_tree() -> set[str]:
    own = {
        path.relative_to(tree)
        for path in (tree / "labctl").rglob("*")
        if path.is_file() and path.relative_to(tree).parts[1] not in LINKED
    }
    linked = {
        Path("labctl") / path.relative_to(tree)
        for folder in LINKED
        for path in (tree / folder).rglob("*")
        if path.is_file()
    }
    return {
        str(path)
        for path in own | linked
        if (path.suffix in WANTED or path.name == "py.typed") and "__pycache__" not in path.parts
    }


wanted = in_tree()
with zipfile.ZipFile(wheel) as file:
    in_wheel = {name for name in file.namelist() if ".dist-info/" not in name}
with tarfile.open(sdist) as file:
    in_sdist = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}

problems = [f"not in the wheel: {name}" for name in sorted(wanted - in_wheel)]
problems += [f"not in the sdist: {name}" for name in sorted(wanted - in_sdist)]
strays = {name for name in in_wheel if not name.startswith("labctl/")}
problems += [f"outside labctl in the wheel: {name}" for name in sorted(strays)]
if problems:
    sys.exit("\n".join(problems))
print(f"{len(wanted)} files, each in wheel and sdist, all under labctl/")
