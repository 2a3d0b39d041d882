"""Times as `--since` and `--until` take them: 2025-01-31T12:00:00Z, seconds since 1970, or 10m ago."""

from __future__ import annotations

import time

from . import UsageError

# `ms` goes before `m`, of which it is no minute.
SECONDS = {"ms": 1e-3, "us": 1e-6, "ns": 1e-9, "s": 1, "m": 60, "h": 3600}


def nanoseconds(flag: str, text: str) -> int:
    """The time that a flag's value names, in nanoseconds since 1970; 0 for an empty one. Raises UsageError."""
    if not text:
        return 0
    try:
        return int((time.time() - duration(text)) * 1e9)
    except ValueError:
        pass
    try:
        return max(1, int(float(text) * 1e9))
    except ValueError:
        pass
    import datetime

    try:
        then = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"invalid value {text!r} for {flag}: 2025-01-31T12:00:00Z, seconds since 1970, or 10m"
        ) from None
    return max(1, int(then.timestamp() * 1e9))


def duration(text: str) -> float:
    """`1h30m` in seconds, as Go writes durations. Raises ValueError."""
    total, rest = 0.0, text
    while rest:
        digits = next((index for index, letter in enumerate(rest) if letter not in "0123456789."), len(rest))
        unit = next((unit for unit in SECONDS if rest.startswith(unit, digits)), "")
        if not unit:
            raise ValueError(text)
        total += float(rest[:digits]) * SECONDS[unit]
        rest = rest[digits + len(unit) :]
    return total
