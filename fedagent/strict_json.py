"""JSON that every reader accepts."""

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Return strict JSON: NaN and infinities, for which JSON has no words, become null."""
    return json.dumps(_strict(value), indent=indent, allow_nan=False, ensure_ascii=False)


def _strict(value: Any) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return str(value)
