"""``chamber_lab.py`` beside this file is importable in these tests by that name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "chamber_lab", Path(__file__).with_name("chamber_lab.py")
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules["chamber_lab"] = _module
_spec.loader.exec_module(_module)
