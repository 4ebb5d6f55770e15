"""How the air in a chamber comes to another temperature or humidity. Pure.

It comes nearer in proportion to what is missing, with a time constant, but never faster than the
heater or the refrigerator can make it.
"""

from __future__ import annotations

import math


def approached(
    value: float, target: float, *, lag_s: float, up_per_s: float, down_per_s: float, for_s: float
) -> float:
    """The value after ``for_s`` on the way to ``target``: exact, however long that is."""
    missing = target - value
    rate_per_s = up_per_s if missing > 0 else down_per_s
    near = rate_per_s * lag_s
    if abs(missing) > near:
        full_s = (abs(missing) - near) / rate_per_s
        if for_s <= full_s:
            return value + math.copysign(rate_per_s * for_s, missing)
        missing, for_s = math.copysign(near, missing), for_s - full_s
    return target - missing * math.exp(-for_s / lag_s)
