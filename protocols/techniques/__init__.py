"""Every kind of step that a recipe can have: one file and one line in the table each."""

from __future__ import annotations

from typing import Any

from labctl.protocols.techniques.base import Technique
from labctl.protocols.techniques.constant_current import CHARGE, DISCHARGE
from labctl.protocols.techniques.constant_voltage import HOLD
from labctl.protocols.techniques.rest import REST

TECHNIQUES: dict[str, Technique[Any]] = {
    technique.word: technique for technique in (REST, CHARGE, DISCHARGE, HOLD)
}
