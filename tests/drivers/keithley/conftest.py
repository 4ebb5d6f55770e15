"""``smu_bench.py`` beside this file is importable in these tests by that name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "smu_bench", Path(__file__).with_name("smu_bench.py")
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules["smu_bench"] = _module
_spec.loader.exec_module(_module)
