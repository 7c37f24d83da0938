"""Values as JSON."""

from __future__ import annotations

import math


def without_nan(value: object) -> object:
    """`value` as JSON can hold it: NaN and infinities become null, tuples lists."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
