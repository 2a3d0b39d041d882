"""What several commands print alike: tables with docker's columns, times and sizes as people say them."""

import calendar
import time


def show(header: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as their widest cell, three blanks apart, as docker prints them."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("   ".join(cells).rstrip())
    return "\n".join(lines)


def wide(rows: list[list[str]]) -> str:
    """Columns at least twenty wide and three blanks apart, as `docker top` prints them."""
    widths = [max(20, 3 + max(len(row[column]) for row in rows)) for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append("".join(cells) + row[-1])
    return "\n".join(lines)


def size(count: int) -> str:
    """1234567 as `1.23MB`: docker's decimal units, three significant digits."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g}{unit}" if unit == "B" or value < 1000 else f"{value:.0f}{unit}"


def seconds_since(timestamp: str) -> float:
    """How long ago an RFC 3339 time in UTC was."""
    then = calendar.timegm(time.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S"))
    return max(0.0, time.time() - then)


def ago(seconds: float) -> str:
    """Docker's words for a duration: `2 minutes`, `About an hour`, `3 weeks`."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return f"{seconds:.0f} seconds" if seconds >= 2 else "1 second"
    if seconds < 120:
        return "About a minute"
    if seconds < 3600:
        return f"{seconds // 60:.0f} minutes"
    if seconds < 7200:
        return "About an hour"
    for unit, length, most in (("hours", 3600, 48), ("days", 86400, 14), ("weeks", 604800, 8), ("months", 2592000, 24)):
        if seconds < length * most:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds // 31536000:.0f} years"
