"""Values as JSON."""

from __future__ import annotations

import math


def without_nan(value: object) -> object:
    """`value` in JSON types: NaN and infinities become None (null), tuples lists, keys strings."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
