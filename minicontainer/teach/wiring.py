"""How containers are wired (engine/graph.py), drawn: `inspect --graph`.

    text(graph)      for a terminal: namespaces are boxes, bridges the lines at the left that cables branch off from
    picture(graph)   the same as a plot.Picture, whose words for who does not see it are the text's

What is broken is marked ✗ where it is. Only `picture` imports matplotlib.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..engine import graph as facts
from ..network import nat

if TYPE_CHECKING:
    from . import plot

BROKEN = "✗"

# --------------------------------------------------------------------------------------------------------------- words


def names(space: facts.Space) -> str:
    """Who is in a namespace."""
    return ", ".join(sorted(record["name"] for record in space.owners))


def device_words(device: facts.Device, wide: int = 5) -> list[str]:
    """A device, and what it has: its name with the first address, then the others; its MAC where it is no loopback."""
    link = device.link
    notes = [] if link.name == "lo" else [link.mac]
    if link.name != "lo" and link.mtu != (device.far.link.mtu if device.far else 1500):
        notes.append(f"mtu {link.mtu}")
    notes += [] if link.up else ["down"]
    first = device.addresses[0] if device.addresses else "no address"
    others = [" " * (wide + 1) + text for text in device.addresses[1:]]
    return [f"{link.name:<{wide}} {first:<18} {' '.join(notes)}".rstrip(), *others]


def route_words(space: facts.Space) -> list[str]:
    """The ways that lead further than to a neighbour."""
    known = {device.link.ifindex: device.link.name for device in space.devices}
    return [
        f"{route.destination} via {route.gateway} dev {known.get(route.device, '?')}"
        for route in space.routes
        if route.gateway
    ]


def switch_words(switch: facts.Switch) -> str:
    """A bridge, its addresses, its network, and what the firewall does with it."""
    network = switch.network
    parts = [switch.device.link.name if switch.device else f"{network.device} (gone)" if network else "?"]
    parts += switch.device.addresses if switch.device else []
    said = [f"network {network.name}" if network else "a bridge of somebody's"]
    if network:
        said += ["internal"] if switch.internal else ["masquerade"] if switch.masquerade else []
        said += ["isolated from one another"] if switch.isolated and not network.icc else []
    said += [f"mtu {switch.device.link.mtu}"] if switch.device and switch.device.link.mtu != 1500 else []
    return "  ".join(parts) + "   " + " · ".join(said)


def port_words(graph: facts.Graph) -> list[str]:
    """The published ports, one below the other."""
    known = {record["id"]: record["name"] for space in (graph.host, *graph.spaces) for record in space.owners}
    rows = [
        (f"{place(port.address)}:{port.host}/{port.protocol}" if port.address else f"{port.host}/{port.protocol}",
         f"{place(port.to)}:{port.container}", known[port.owner])
        for port in graph.ports
    ]  # fmt: skip
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    return [f"{come:<{widths[0]}} → {to:<{widths[1]}}  {name}" for come, to, name in rows]


def place(address: str) -> str:
    """An address before a port: IPv6 has colons of its own."""
    return f"[{address}]" if ":" in address else address


def uplinks(graph: facts.Graph) -> list[str]:
    """How the host itself reaches the world; all of its devices that have an address where containers share them."""
    host = graph.host
    ways = [route for route in host.routes if route.destination == "default"]
    known = {route.device for route in ways} | {
        device.far.link.ifindex for space in graph.spaces for device in space.devices
        if device.far and device.far.space == host.inode and device.link.kind != "veth"
    }  # fmt: skip
    drawn = {switch.device.link.ifindex for switch in graph.switches if switch.device}
    shown = [
        device for device in host.devices
        if device.link.ifindex in known
        or (host.owners and device.addresses and device.link.name != "lo" and device.link.ifindex not in drawn)
    ]  # fmt: skip
    wide = max((len(device.link.name) for device in shown), default=0)
    found = []
    for device in shown:
        found += device_words(device, max(wide, 5))
        found += [
            " " * (max(wide, 5) + 1) + f"default via {way.gateway}".removesuffix(" via ")
            for way in ways
            if way.device == device.link.ifindex
        ]
    return found


def host_rows(graph: facts.Graph) -> list[str]:
    """What stands in the host's box, above its bridges."""
    rows = uplinks(graph)
    if graph.host.owners:
        rows.append(f"in here, too: {names(graph.host)}")
    if graph.ports:
        rows += [f"published by table inet {nat.table()}:", *(f"  {line}" for line in port_words(graph))]
    rows += [f"{BROKEN} {trouble}" for trouble in graph.host.troubles]
    for switch in graph.switches:
        rows += [f"{BROKEN} {trouble}" for trouble in switch.troubles]
    return rows


def space_rows(space: facts.Space) -> list[tuple[facts.Device | None, str]]:
    """What stands in a container's box, and the device that a line is the first of."""
    rows: list[tuple[facts.Device | None, str]] = []
    wide = max([5, *(len(device.link.name) for device in space.devices)])
    for device in sorted(
        space.devices, key=lambda device: (device.link.name == "lo", len(device.link.name), device.link.name)
    ):
        first, *others = device_words(device, wide)
        rows += [(device, first), *((None, line) for line in others)]
    rows += [(None, line) for line in route_words(space)]
    rows += [(None, "names at 127.0.0.11")] if space.resolver else []
    return rows + [(None, f"{BROKEN} {trouble}") for trouble in space.troubles]


def absent_words(graph: facts.Graph) -> list[str]:
    """Those that have no namespace."""
    return [f"{record['name']}: {record['status']}; it has no network namespace" for record in graph.absent]


def cable(graph: facts.Graph, space: facts.Space, device: facts.Device) -> tuple[int, str]:
    """Where a device's cable goes: the position of the bridge (-1: none), and what its other end is called."""
    if device.link.kind == "" or device.link.name == "lo":
        return -1, ""
    far = device.far
    if far is None:
        return -1, f"{BROKEN} nobody" if device.link.kind == "veth" else ""
    if device.link.kind != "veth":
        return -1, f"{device.link.kind} on {far.link.name}"
    if far.space != graph.host.inode:
        whose = next((names(other) for other in graph.spaces if other.inode == far.space), "?")
        return -1, f"{whose}: {far.link.name}"
    for position, switch in enumerate(graph.switches):
        if switch.device and switch.device.link.ifindex == far.link.master:
            return position, far.link.name
    return -1, far.link.name


# ---------------------------------------------------------------------------------------------------------------- text

PLAIN = str.maketrans("┌┐└┘─│╔╠╚═║╬╫╪╡→·✗…", "++++-|+++=|+|#|>-x.")


def text(graph: facts.Graph, width: int = 80, plain: bool = False) -> str:
    """The graph in lines of at most `width` columns (more for who is in a dozen networks); `plain` is all ASCII."""
    step = 2 if len(graph.switches) <= 6 else 1
    left = 2 + step * len(graph.switches)
    ends = {
        (space.inode, device.link.ifindex): cable(graph, space, device)
        for space in graph.spaces
        for device in space.devices
    }
    label = max((len(name) for _, name in ends.values()), default=0)
    live = [0] * len(graph.switches)  # cables that each bridge still has to give
    for position, _ in ends.values():
        if position >= 0:
            live[position] += 1
    for position, switch in enumerate(graph.switches):
        live[position] += bool(switch.others)
    lines = list(host_box(graph, width, step, live))
    gap = left + label + 4
    for space in graph.spaces:
        lines.append(rails(live, step).ljust(gap) + edge("┌┐", width - gap, names(space), f"net:[{space.inode}]"))
        for device, row in space_rows(space):
            position, name = ends[space.inode, device.link.ifindex] if device else (-1, "")
            for number, line in enumerate(folded(row, width - gap - 4)):
                before, border = rails(live, step).ljust(gap), "│"
                if name and number == 0:
                    before, border = branch(live, step, position, name, gap), "╡"
                lines.append(f"{before}{border} {line:<{width - gap - 4}} │")
        lines.append(rails(live, step).ljust(gap) + edge("└┘", width - gap))
    for position, switch in enumerate(graph.switches):
        if switch.others:
            more = f"{switch.others} more {'cable' if switch.others == 1 else 'cables'}"
            lines.append(branch(live, step, position, more, 0).rstrip("═ "))
    lines += absent_words(graph)
    drawn = "\n".join(line.rstrip() for line in lines)
    return drawn.translate(PLAIN) if plain else drawn


def host_box(graph: facts.Graph, width: int, step: int, live: list[int]) -> Iterator[str]:
    """The host, its bridges last; where one has a cable to give, its line goes on through the box's lower edge."""
    yield edge("┌┐", width, "host", f"net:[{graph.host.inode}]")
    rows = [line for row in host_rows(graph) for line in folded(row, width - 4)]
    for line in [*rows, *([""] if rows and graph.switches else [])]:
        yield f"│ {line:<{width - 4}} │"
    for position, switch in enumerate(graph.switches):
        before = rails(live[:position], step)[2:].ljust(step * position)
        start = before + ("╔" if live[position] else "═")
        start = start.ljust(step * len(graph.switches), "═")
        first, *others = folded(switch_words(switch), width - 5 - len(start))
        yield f"│ {start} {first:<{width - 5 - len(start)}} │"
        below = rails(live[: position + 1], step)[2:].ljust(len(start))
        for line in others:
            yield f"│ {below} {line:<{width - 5 - len(start)}} │"
    lower = list(edge("└┘", width))
    for position, count in enumerate(live):
        if count:
            lower[2 + step * position] = "╫"
    yield "".join(lower)


def edge(corners: str, width: int, name: str = "", number: str = "") -> str:
    """The upper or lower edge of a box, with what stands in it."""
    room = width - 8 - len(number)
    name = name if len(name) <= room else name[: room - 1] + "…"
    start = f"{corners[0]}─ {name} " if name else corners[0]
    end = f" {number} ─{corners[1]}" if number else corners[1]
    return start.ljust(width - len(end), "─") + end


def rails(live: list[int], step: int) -> str:
    """The bridges' lines, as far as they go on."""
    return "  " + "".join(("║" if count else " ").ljust(step) for count in live)


def branch(live: list[int], step: int, position: int, name: str, gap: int) -> str:
    """The same where a cable branches off from one of them, or from none."""
    if position < 0:
        plugged = f"{name} ═".rjust(gap)
        return rails(live, step) + plugged[len(rails(live, step)) :]
    live[position] -= 1
    line = list(rails(live, step))
    at = 2 + step * position
    line[at] = "╠" if live[position] else "╚"
    for column in range(at + 1, len(line)):
        line[column] = "╬" if line[column] == "║" else "═"
    return ("".join(line) + f" {name} ").ljust(gap, "═")


def folded(row: str, width: int) -> list[str]:
    """A row in lines, what follows set in as far as the first begins."""
    indent = len(row) - len(row.lstrip()) + 2
    return textwrap.wrap(
        row, max(width, 20), subsequent_indent=" " * indent, replace_whitespace=False, drop_whitespace=True,
        break_on_hyphens=False,
    ) or [""]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- picture

POINTS = 8.5  # of the letters, all of one width: so what a box needs is known before it is drawn
LETTER, LINE = POINTS * 0.602 / 72, POINTS * 1.5 / 72  # inches
MARGIN, BETWEEN, CABLE, BAR = 0.15, 0.3, 0.6, 0.3
RED = "#a3201a"
WIDEST = 52  # letters in a container's box


def picture(graph: facts.Graph) -> plot.Picture:
    """The host above, its bridges as bars, the containers below, each cable from its bar to its device."""
    from . import plot  # first: it says what to do where there is no matplotlib
    import matplotlib  # isort: skip
    from matplotlib.patches import Rectangle  # isort: skip

    boxes = [[line for _, row in space_rows(space) for line in folded(row, WIDEST)] for space in graph.spaces]
    top = [line for row in host_rows(graph) for line in folded(row, 96)]
    below = absent_words(graph)
    bars = [switch_words(switch) + (f" · {switch.others} more" if switch.others else "") for switch in graph.switches]
    widths = [
        max(2.2, LETTER * max(len(line) for line in [f"{names(space)}  net:[{space.inode}]", *rows]) + 0.3,
            1.35 * sum(bool(cable(graph, space, device)[1]) for device in space.devices))
        for space, rows in zip(graph.spaces, boxes, strict=True)
    ]  # fmt: skip
    least = LETTER * max(
        len(line) for line in ["host  net:[4026531840]" + " " * 10, *top, *(f"{bar}    " for bar in bars)]
    )
    whole = max(least + 0.5, sum(widths) + BETWEEN * (len(widths) + 1))
    first_bar = MARGIN + LINE * (len(top) + 2.4)
    floor = first_bar + (BAR + 0.15) * len(bars) + 0.05
    ceiling = floor + CABLE
    tall = (
        ceiling + max((LINE * (len(rows) + 2.2) for rows in boxes), default=-CABLE) + MARGIN + LINE * 1.5 * len(below)
    )
    with matplotlib.rc_context(plot.STYLE | {"font.family": "DejaVu Sans Mono", "font.size": POINTS}):
        figure = plot.Picture(figsize=(whole + 2 * MARGIN, tall), dpi=100)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-MARGIN, whole + MARGIN), ylim=(tall, 0))
        axes.axis("off")
        box(axes, 0, MARGIN, whole, floor - MARGIN, "host", f"net:[{graph.host.inode}]")
        lines(axes, 0.15, MARGIN + 2.3 * LINE, top)
        heights = [first_bar + (BAR + 0.15) * position for position in range(len(bars))]
        for position, bar in enumerate(bars):
            colour = plot.LINES[position % len(plot.LINES)][0]
            axes.add_patch(Rectangle((0.15, heights[position]), whole - 0.3, BAR, facecolor=plot.REFERENCE,
                                          edgecolor=colour, linewidth=1.6, zorder=3))  # fmt: skip
            axes.text(0.27, heights[position] + BAR / 2, bar, va="center", zorder=4)
        at = (whole - sum(widths) - BETWEEN * (len(widths) - 1)) / 2
        for space, rows, wide in zip(graph.spaces, boxes, widths, strict=True):
            box(axes, at, ceiling, wide, LINE * (len(rows) + 2.2), names(space), f"net:[{space.inode}]")
            lines(axes, at + 0.15, ceiling + 2.3 * LINE, rows)
            draw_cables(axes, graph, space, (at, wide), (ceiling, floor), heights)
            at += wide + BETWEEN
        lines(axes, 0, tall - MARGIN - LINE * (len(below) - 0.5), below)
    figure.alt = "Containers and their networks.\n" + text(graph)
    return figure


def box(axes: Any, x: float, y: float, wide: float, tall: float, name: str, number: str) -> None:
    """A namespace."""
    from matplotlib.patches import Rectangle

    from . import plot

    axes.add_patch(Rectangle((x, y), wide, tall, facecolor=plot.PAPER, edgecolor=plot.INK, linewidth=1.2, zorder=1))
    axes.text(x + 0.15, y + LINE, name, va="center", fontweight="bold", zorder=4)
    axes.text(x + wide - 0.15, y + LINE, number, va="center", ha="right", color=plot.QUIET, zorder=4)


def lines(axes: Any, x: float, y: float, rows: list[str]) -> None:
    """Text, a line below the other; what is broken in red, and marked."""
    from . import plot

    broken = False
    for number, row in enumerate(rows):
        broken = row.startswith(BROKEN) or (broken and row.startswith("  "))
        axes.text(x, y + LINE * number, row, va="center", color=RED if broken else plot.INK, zorder=4)


def draw_cables(
    axes: Any, graph: facts.Graph, space: facts.Space, place: tuple[float, float], edges: tuple[float, float],
    heights: list[float],
) -> None:  # fmt: skip
    """The cables of a container, side by side: to their bars, to the host, or to where they end."""
    from . import plot

    ceiling, floor = edges
    devices = [device for device, _ in space_rows(space) if device and cable(graph, space, device)[1]]
    for number, device in enumerate(devices):
        position, name = cable(graph, space, device)
        x = place[0] + place[1] * (number + 0.35) / len(devices)
        colour, marker, dashes = plot.LINES[position % len(plot.LINES)] if position >= 0 else (plot.INK, "o", "-")
        end = heights[position] + BAR if position >= 0 else floor
        if position < 0 and device.link.kind == "veth":
            end, colour, marker = ceiling - 0.3, RED, "x"  # it does not get there
        axes.plot([x, x], [ceiling, end], color=colour, linestyle=dashes, linewidth=2, zorder=2)
        axes.plot([x], [end], marker=marker, color=colour, markersize=6, zorder=5)
        axes.plot([x], [ceiling], marker="s", color=plot.INK, markersize=5, zorder=5)
        axes.text(x + 0.08, floor + 0.22, name, va="center", color=RED if marker == "x" else plot.INK, zorder=4)
        axes.text(x + 0.08, ceiling - 0.12, device.link.name, va="center", color=plot.QUIET, zorder=4)
