"""Every kind of step that a recipe can have: one file and one line in the table each."""

from __future__ import annotations

from typing import Any

from labctl.protocols.techniques.base import Technique
from labctl.protocols.techniques.constant_current import CHARGE, DISCHARGE
from labctl.protocols.techniques.constant_voltage import HOLD
from labctl.protocols.techniques.gitt import GITT
from labctl.protocols.techniques.impedance import IMPEDANCE
from labctl.protocols.techniques.pitt import PITT
from labctl.protocols.techniques.pulse import PULSE
from labctl.protocols.techniques.rest import REST
from labctl.protocols.techniques.signal import SIGNAL
from labctl.protocols.techniques.sweep import SWEEP
from labctl.protocols.techniques.temperature import TEMPERATURE
from labctl.protocols.techniques.voltammetry import VOLTAMMETRY
from labctl.protocols.techniques.wait import WAIT

TECHNIQUES: dict[str, Technique[Any]] = {
    technique.word: technique
    for technique in (
        REST,
        CHARGE,
        DISCHARGE,
        HOLD,
        SWEEP,
        VOLTAMMETRY,
        GITT,
        PITT,
        PULSE,
        IMPEDANCE,
        WAIT,
        SIGNAL,
        TEMPERATURE,
    )
}
