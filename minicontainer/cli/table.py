"""What several commands print alike: lists by docker's `--format`, times and sizes as people say them."""

from __future__ import annotations

import calendar
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NARROWEST = 10  # columns of a column, the blanks behind it included: docker's formatter.tabwriter
BETWEEN = 3


class Column:
    """What a `--format` may name: its header, and a cell of it from one of the rows."""

    def __init__(self, header: str, cell: Callable[..., Any]) -> None:
        self.header, self.cell = header, cell


def listing(form: str, columns: dict[str, Column], usual: list[str], rows: list[Any], kind: str) -> str:
    """A list as `--format` wants it: a table of the `usual` columns, one of others, a template, or json.

    `kind` is what an error calls a row: "formatter.ContainerContext". Raises template's errors in docker's words, which
    are other ones here than for `inspect`.
    """
    if form in ("", "table"):
        cells = [[columns[name].cell(row) for name in usual] for row in rows]
        return show([columns[name].header for name in usual], cells) + "\n"
    from . import template, template_functions

    if form == "json":
        return "".join(template_functions.to_json(methods(columns, row, kind)) + "\n" for row in rows)
    tabular = form.startswith("table ")
    source = (form[5:].strip(" ") if tabular else form).replace("\\t", "\t").replace("\\n", "\n")
    try:
        nodes = template.parse(source)
    except template.BadTemplate as error:
        why = str(error).replace("template parsing error", "failed to parse template", 1)
        raise template.BadTemplate(why) from None
    lines = []
    try:
        if tabular:
            header = template.Methods({name: lambda text=column.header: text for name, column in columns.items()})
            header["Label"] = lambda name: name.rpartition(".")[2].replace("-", " ").replace("_", " ")
            header.kind = f"*{kind}"
            lines.append(template.render(nodes, header, source))
        for row in rows:
            lines.append(template.render(nodes, methods(columns, row, kind), source))
    except template.TemplateFailed as error:
        raise template.TemplateFailed(f"failed to execute template: {error}") from None
    return aligned("\n".join(lines)) + "\n" if tabular else "".join(f"{line}\n" for line in lines)


def methods(columns: dict[str, Column], row: Any, kind: str) -> Any:
    """A row for a template: each cell is made when it is named."""
    from . import template

    made = template.Methods({name: lambda cell=column.cell: cell(row) for name, column in columns.items()})
    if "Label" in columns:
        made["Label"] = lambda name: columns["Label"].cell(row, name)
    made.kind = f"*{kind}"
    return made


def show(header: list[str], rows: list[list[str]]) -> str:
    """A table, without a newline at its end."""
    return aligned("\n".join("\t".join(row) for row in [header, *rows]))


def wide(rows: list[list[str]]) -> str:
    """Columns at least twenty wide, as `docker top` prints them."""
    return aligned("\n".join("\t".join(row) for row in rows), narrowest=20)


def aligned(text: str, narrowest: int = NARROWEST) -> str:
    """Cells that end in a tab, as wide as the widest of their column; the last one of a line as it is.

    A column ends with a line that has no such cell, and begins anew below it (Go, text/tabwriter).
    """
    lines = [line.split("\t") for line in text.split("\n")]
    for place in range(max(map(len, lines)) - 1):
        for number, line in enumerate(lines):
            if len(line) - 1 > place and (number == 0 or len(lines[number - 1]) - 1 <= place):
                end = number
                while end < len(lines) and len(lines[end]) - 1 > place:
                    end += 1
                column = lines[number:end]
                width = max([narrowest, *(len(cells[place]) + BETWEEN for cells in column)])
                for cells in column:
                    cells[place] = cells[place].ljust(width)
    return "\n".join("".join(line) for line in lines)


def cut(text: str, most: int) -> str:
    """So many characters at most; an ellipsis is the last of them where that is not all."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def size(count: float) -> str:
    """1234567 as `1.23MB`: docker's decimal units, three significant digits."""
    return in_units(count, 1000, ("B", "kB", "MB", "GB", "TB", "PB"), 3)


def exact_size(count: float) -> str:
    """1234567 as `1.235MB`: the same with four digits, where docker sums up."""
    return in_units(count, 1000, ("B", "kB", "MB", "GB", "TB", "PB"), 4)


def binary_size(count: float) -> str:
    """1234567 as `1.177MiB`: four significant digits."""
    return in_units(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 4)


def in_units(count: float, step: int, units: tuple[str, ...], digits: int) -> str:
    """The number in the largest unit that it has one of (go-units, size.go)."""
    place = 0
    while count >= step and place + 1 < len(units):
        count, place = count / step, place + 1
    return f"{count:.{digits}g}{units[place]}"


def seconds_since(timestamp: str) -> float:
    """How long ago an RFC 3339 time in UTC was."""
    return max(0.0, time.time() - seconds(timestamp))


def seconds(timestamp: str) -> int:
    """An RFC 3339 time in UTC as seconds since the epoch."""
    year, month, day = timestamp[:10].split("-")
    hour, minute, second = timestamp[11:19].split(":")
    return calendar.timegm((int(year), int(month), int(day), int(hour), int(minute), int(second)))


def local(timestamp: str) -> str:
    """The same as this machine's clock shows it: `2026-01-31 12:00:00 +0000 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds(timestamp)))


def ago(seconds: float) -> str:
    """Docker's words for a duration: `2 minutes`, `About an hour`, `3 weeks` (go-units, duration.go)."""
    whole, hours = int(seconds), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return f"{whole} seconds" if whole > 1 else "1 second"
    if whole < 3600:
        return f"{whole // 60} minutes" if whole >= 120 else "About a minute"
    if hours < 48:
        return f"{hours} hours" if hours > 1 else "About an hour"
    for unit, length, most in (("days", 24, 24 * 14), ("weeks", 24 * 7, 24 * 60), ("months", 24 * 30, 24 * 730)):
        if hours < most:
            return f"{hours // length} {unit}"
    return f"{int(seconds / 3600) // 24 // 365} years"
