"""`--explain=sh`: the plan of a start as a script for sh(1), which makes the same container by hand.

    host part      the parent's plan, a wait for the child, the teardown plan (in a trap, so also after a failure)
    child part     the child's plan in files of its own: a shell cannot change its own namespaces, so at each change
                   it becomes `unshare … sh` or `nsenter … sh` with the rest of the plan
    two fifos      between them, for the points where one waits for the other

When its root has changed, the child has only the image's programs, which may be none. So a directory with a static
busybox (and setpriv and sh, with their libraries) is kept open as descriptor 9 across pivot_root: its programs are
/proc/self/fd/9/mount and so on. The descriptor is closed last, and nothing of it is left in the container.

`VERBS` and `CALLS` render every verb and every function that a step may call. What no command can do stands in the
script as `# not reproduced: …`. Every word that comes from outside goes through `Sheet.word`, which quotes it.

Sources: sh is POSIX.1-2017 (XCU 2); unshare(1), nsenter(1), setpriv(1), mount(8), ip(8), nft(8); busybox(1).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .. import netlink, steps
from ..kernel import capabilities, cgroups
from ..network import foreign, ipam, nat, spoofing

TOOLS = "/proc/self/fd/9"


class Name(NamedTuple):
    """A variable of the script, which `--explain` uses as an abbreviation too."""

    name: str
    definition: str  # for the shell, in double quotes
    value: str


def names_of(planned: Any) -> list[Name]:
    """The few long values of a start, each defined by those before it."""
    identifier, cgroup = planned.record["id"], planned.record["cgroup"]
    store = next(
        step.arguments[0].removesuffix(f"/containers/{identifier}/config.json")
        for step in planned.plan
        if step.verb == "write" and str(step.arguments[0]).endswith(f"/containers/{identifier}/config.json")
    )
    container = f"{store}/containers/{identifier}"
    return [
        Name("id", identifier, identifier),
        *([Name("cgroup", cgroup.replace(identifier, "$id"), cgroup)] if cgroup else []),
        Name("store", store, store),
        Name("container", "$store/containers/$id", container),
        Name("rootfs", "$container/rootfs", f"{container}/rootfs"),
    ]


def name_of(function: Any) -> str:
    """`cgroups.empty`: the module's last name and the function's own."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"


# -------------------------------------------------------------------------------------------------------------- a sheet


class Sheet:
    """Lines of shell, the functions they use, and how to quote a word for them."""

    def __init__(self, names: list[Name], process: str) -> None:
        self.names = names
        self.process = process
        self.lines: list[str] = []
        self.used: list[str] = []
        self.parts: list[Sheet] = []  # of the child: what comes after each change of namespaces
        self.entering: list[str] = []  # the commands of that change
        self.stdin = False
        self.result = ""  # what the step at hand binds
        self.why = ""  # the last step's: the same is not said twice in a row

    def add(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines

    def use(self, *functions: str) -> None:
        """The lines call these functions of FUNCTIONS."""
        for function in functions:
            for other in (*REQUIRES.get(function, ()), function):
                if other not in self.used:
                    self.used.append(other)

    def word(self, *values: Any) -> str:
        """The values, joined, as one word of the shell: long known values and symbols as variables, the rest quoted."""
        pieces: list[tuple[bool, str]] = []  # (variable?, text)
        for value in values:
            if isinstance(value, steps.Symbol):
                pieces.append((True, value.name))
            elif isinstance(value, steps.Text):
                for part in value:
                    pieces += [(True, part.name)] if isinstance(part, steps.Symbol) else self.split(str(part))
            else:
                pieces += self.split(str(value))
        if not any(variable for variable, _ in pieces):
            return shlex.quote("".join(text for _, text in pieces))
        return f'"{self.joined(pieces)}"'

    def joined(self, pieces: list[tuple[bool, str]]) -> str:
        """For the inside of double quotes, or of a here-document."""
        text = ""
        for position, (variable, piece) in enumerate(pieces):
            if variable:
                after = "".join(text for _, text in pieces[position + 1 :])[:1]
                text += f"${{{piece}}}" if re.match(r"[A-Za-z0-9_]", after) else f"${piece}"
            else:
                text += re.sub(r'([\\"$`])', r"\\\1", piece)
        return text

    def split(self, text: str) -> list[tuple[bool, str]]:
        """The text with the known long values cut out."""
        # A path at the beginning, an id or a cgroup anywhere.
        whole = {name.name: re.escape(name.value) for name in reversed(self.names)}
        pattern = "|".join(
            f"(?P<{name}>{value})" if name in ("id", "cgroup") else f"(?P<{name}>^{value}(?=/|$))"
            for name, value in whole.items()
        )
        pieces, end = [], 0
        if "cgroup" in whole and not text.startswith("/sys/"):  # the directory in /run has the same name by chance
            pattern = pattern.replace(f"(?P<cgroup>{whole['cgroup']})", "(?!)")
        for found in re.finditer(pattern, text) if pattern else ():
            pieces += [(False, text[end : found.start()]), (True, str(found.lastgroup))]
            end = found.end()
        return [(variable, piece) for variable, piece in [*pieces, (False, text[end:])] if piece]

    def document(self, content: Any) -> list[str]:
        """`<<EOF`, the content, `EOF`: for content that ends with a line's end."""
        parts = content if isinstance(content, steps.Text) else (content,)
        text, symbols = "", False
        for part in parts:
            if isinstance(part, steps.Symbol):
                text, symbols = f"{text}${{{part.name}}}", True
            else:
                text += re.sub(r"([\\$`])", r"\\\1", str(part)) if len(parts) > 1 else str(part)
        end = "EOF"
        while end in text.split("\n"):
            end += "_"
        quoted = end if symbols or len(parts) > 1 else f"'{end}'"
        return [f"<<{quoted}", *text.removesuffix("\n").split("\n"), end]

    def step(self, step: steps.Step) -> None:
        """One step: why, then how."""
        sheet = self.parts[-1] if self.parts else self
        spaces = step.verb in ("unshare", "setns") and self.process == "child"
        if self.entering and not spaces:
            sheet = self.turn()
        before = len(sheet.lines)
        sheet.result = step.result
        if step.verb == "call":
            name = step.arguments[0] if isinstance(step.arguments[0], str) else name_of(step.arguments[0])
            if name in CALLS:
                CALLS[name](sheet, *step.arguments[1:])
            else:  # a learner's own
                sheet.add(f"# not reproduced: {name}, which has no rendering as a command")
        elif spaces:
            self.entering.append(namespaces_of(sheet, step))
        else:
            VERBS[step.verb](sheet, *step.arguments)
        why = [f"# {line}" for line in textwrap.wrap(step.why, 110)]
        if spaces:
            sheet.add(*why)
        elif step.why != sheet.why:
            sheet.lines[before:before] = why
        sheet.why = step.why

    def turn(self) -> Sheet:
        """Become the next part of the child, in the namespaces that were collected."""
        sheet = self.parts[-1] if self.parts else self
        number = len(self.parts) + 2
        sheet.add(f'exec {" ".join(self.entering)} sh "$container/script/child-{number}"')
        self.entering = []
        part = Sheet(self.names, "part")
        self.parts.append(part)
        return part

    def text(self) -> str:
        """The sheet with the functions it uses in front."""
        return "\n".join([*(FUNCTIONS[name] for name in self.used), *self.lines])


# ------------------------------------------------------------------------------------------- functions of the script

FUNCTIONS = {
    "inside": """\
# inside PATH: $place is where PATH lies below the new root; its links are followed as the container would follow them
inside() {
    todo=${1#/} place='' links=0
    while [ -n "$todo" ]; do
        name=${todo%%/*}
        case $todo in */*) todo=${todo#*/} ;; *) todo='' ;; esac
        case $name in
        '' | .) ;;
        ..) place=${place%/*} ;;
        *)
            if [ -L "$rootfs$place/$name" ]; then
                links=$((links + 1))
                [ "$links" -le 40 ]
                link=$(readlink "$rootfs$place/$name")
                case $link in /*) place='' ;; esac
                todo=$link/$todo
            else
                place=$place/$name
            fi
            ;;
        esac
    done
    place=$rootfs$place
}
""",
    "directory": """\
# directory PATH: the same, and a directory is made if nothing is there
directory() {
    inside "$1"
    mkdir -p "$place"
}
""",
    "file": """\
# file PATH: the same with an empty file
file() {
    inside "$1"
    [ -e "$place" ] || { mkdir -p "${place%/*}" && : >"$place"; }
}
""",
    "remount": """\
# remount PLACE FLAGS: add flags to a mount, and keep those it has, which proc_pid_mountinfo(5) lists in its sixth field
remount() {
    at=$(printf %s "$1" | sed 's/ /\\\\040/g')
    has=$(at=$at awk '$5 == ENVIRON["at"] { has = $6 } END { print has }' /proc/self/mountinfo)
    mount -o "remount,bind,$has,$2" none "$1"
}
""",
    "make_readonly": """\
# make_readonly PATH: bind it on itself, read-only, if it is there
make_readonly() {
    [ -e "$1" ] || return 0
    mount -o rbind "$1" "$1"
    remount "$1" ro
}
""",
    "mask": """\
# mask PATH: hide a directory under an empty one, a file under /dev/null
mask() {
    if [ -d "$1" ]; then
        mount -t tmpfs -o ro,size=0k,nr_inodes=1 tmpfs "$1"
    elif [ -e "$1" ]; then
        mount -o bind /dev/null "$1"
    fi
}
""",
    "device": """\
# device PATH TYPE MAJOR MINOR MODE OWNER: a node below the new root
device() {
    directory "${1%/*}"
    place=$place/${1##*/}
    [ -e "$place" ] || { mknod -m "$5" "$place" "$2" "$3" "$4" && chown "$6" "$place"; }
}
""",
    "link": """\
# link TARGET PATH: a symbolic link below the new root; one that is there stays
link() {
    directory "${2%/*}"
    place=$place/${2##*/}
    [ -e "$place" ] || [ -L "$place" ] || ln -s "$1" "$place"
}
""",
    "number": """\
# number 172.30.0.2, dotted 2887647234: an address as a number, and back
number() {
    echo "$1" | { IFS=. read -r a b c d && echo $(((a << 24) + (b << 16) + (c << 8) + d)); }
}
dotted() {
    echo "$(($1 >> 24 & 255)).$(($1 >> 16 & 255)).$(($1 >> 8 & 255)).$(($1 & 255))"
}
""",
    "lease": """\
# lease DIRECTORY FIRST COUNT GATEWAY: $address is the next free one; two links in the directory say who has which
lease() {
    mkdir -p -m 700 "$1"
    {
        flock 9
        offset=0 tried=0 address=''
        [ ! -L "$1/last" ] || offset=$(($(number "$(readlink "$1/last")") - $(number "$2") + 1))
        [ "$offset" -ge 0 ] || offset=0
        while [ -z "$address" ] && [ "$tried" -lt "$3" ]; do
            address=$(dotted $(($(number "$2") + (offset + tried) % $3)))
            tried=$((tried + 1))
            if [ "$address" = "$4" ] || [ -L "$1/$address" ]; then address=''; fi
        done
        [ -n "$address" ]
        ln -s "$address" "$1/$id"
        ln -s "$id" "$1/$address"
        ln -sfn "$address" "$1/last"
    } 9<"$1"
}
""",
    "lease6": """\
# lease6 DIRECTORY FORMAT FIRST COUNT GATEWAY: $found is the first free one, whose last sixteen bits are counted
lease6() {
    mkdir -p -m 700 "$1"
    {
        flock 9
        tried=0 found=''
        while [ -z "$found" ] && [ "$tried" -lt "$4" ]; do
            found=$(printf "$2" $(($3 + tried)))
            tried=$((tried + 1))
            if [ "$found" = "$5" ] || [ -L "$1/$found" ]; then found=''; fi
        done
        [ -n "$found" ]
        ln -s "$found" "$1/$id:6"
        ln -s "$id" "$1/$found"
        ln -sfn "$found" "$1/last:6"
    } 9<"$1"
}
""",
    "number6": """\
# number6 ADDRESS: an address of IPv6 as a number, 0x and 32 digits
number6() {
    awk -v address="$1" 'BEGIN {
        split(address, half, "::")
        left = split(half[1], head, ":")
        right = split(half[2], tail, ":")
        printf "0x"
        for (i = 1; i <= 8; i++) {
            word = i <= left ? head[i] : i > 8 - right ? tail[i - 8 + right] : ""
            printf "%s", substr("0000" word, length(word) + 1)
        }
    }'
}
""",
    "release": """\
# release DIRECTORY: give the addresses back
release() {
    [ ! -d "$1" ] || {
        flock 9
        for link in "$1/$id" "$1/$id:6"; do
            mine=$(readlink "$link") && [ "$(readlink "$1/$mine")" = "$id" ] && rm -f "$1/$mine"
            rm -f "$link"
        done
    } 9<"$1"
}
""",
    "empty": """\
# empty DIRECTORY...: kill what runs in these cgroups, wait until it is gone, remove the cgroups below
empty() {
    tries=0
    while [ "$tries" -lt 200 ]; do
        tries=$((tries + 1))
        left=$(find "$@" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | grep -vx 0)
        [ -n "$left" ] || break
        for process in $left; do kill -KILL "$process" 2>/dev/null; done
        sleep 0.02
    done
    find "$@" -mindepth 1 -depth -type d -exec rmdir {} \\; 2>/dev/null
}
""",
    "copy_up": """\
# copy_up PATH VOLUME: an empty volume gets what the image has at PATH
copy_up() {
    inside "$1"
    if [ -d "$place" ] && [ -z "$(ls -A "$2")" ]; then cp -a "$place/." "$2/"; fi
}
""",
    "free_port": """\
# free_port tcp|udp FIRST LAST: $port is the first that nobody listens on
free_port() {
    for port in $(seq "$2" "$3"); do
        ss --no-header --listening --numeric "--$1" "sport = :$port" | grep -q . || return 0
    done
    return 1
}
""",
    "withdraw": """\
# withdraw map|set FAMILY TABLE NAME…: delete all elements that bear the container's id as a comment
withdraw() {
    kind=$1 family=$2 table=$3
    shift 3
    for name; do
        nft list "$kind" "$family" "$table" "$name" 2>/dev/null |
            tr -d '\\n\\t' | sed 's/.*elements = {//; s/}.*//' | tr ',' '\\n' |
            sed -n 's/^ *\\(.*\\) comment "'"$id"'".*/\\1/p' |
            while read -r element || [ -n "$element" ]; do
                nft delete element "$family" "$table" "$name" "{ $element }"
            done
    done
}
""",
    "move_to_leaf": """\
# move_to_leaf DIRECTORY: what runs in this cgroup itself moves one level down, to make room for children
move_to_leaf() {
    mkdir -p "$1/processes"
    while read -r process; do echo "$process" >"$1/processes/cgroup.procs"; done <"$1/cgroup.procs"
}
""",
    "tools": """\
# tools DIRECTORY: the programs that finish the container when its root is the image's, which may have none
tools() {
    mkdir -p "$1/lib"
    cp "$(command -v busybox)" "$1/busybox"
    for name in awk cat chmod chown env ls mkdir mount readlink rm rmdir sed umount; do ln -s busybox "$1/$name"; done
    for name in setpriv prlimit sh; do
        program=$(command -v "$name")
        ldd "$program" >/dev/null 2>&1 || { cp -L "$program" "$1/$name" && continue; }
        cp -L "$program" "$1/lib/$name"
        for library in $(ldd "$program" | grep -o '/[^ )]*'); do
            case $library in */ld-*) cp -L "$library" "$1/lib/ld.so" ;; *) cp -L "$library" "$1/lib/" ;; esac
        done
        at=/proc/self/fd/9
        printf '#!%s/busybox sh\\nexec %s/lib/ld.so --library-path %s/lib %s/lib/%s "$@"\\n' \\
            "$at" "$at" "$at" "$at" "$name" >"$1/$name"
        chmod 755 "$1/$name"
    done
}
""",
}
REQUIRES = {
    "directory": ("inside",),
    "file": ("inside", "directory"),
    "make_readonly": ("remount",),
    "device": ("inside", "directory"),
    "link": ("inside", "directory"),
    "lease": ("number",),
    "copy_up": ("inside",),
}

# ------------------------------------------------------------------------------------------------------------ the verbs

# mount(8)'s words for mount(2)'s flags, in the order of proc_pid_mountinfo(5).
WORDS = {
    1: "ro", 2: "nosuid", 4: "nodev", 8: "noexec", 1024: "noatime", 1 << 21: "relatime", 1 << 24: "strictatime",
}  # fmt: skip
MS_REMOUNT, MS_BIND, MS_REC = 32, 4096, 16384
PROPAGATION = {1 << 18: "private", 1 << 19: "slave", 1 << 20: "shared"}

NAMESPACES = {
    0x00020000: "mount", 0x04000000: "uts", 0x08000000: "ipc", 0x20000000: "pid", 0x40000000: "net",
    0x02000000: "cgroup", 0x10000000: "user", 0x80: "time",
}  # fmt: skip


def options(flags: int, data: str = "") -> list[str]:
    """`-o nosuid,nodev,size=64m`, or nothing."""
    words = [word for bit, word in WORDS.items() if flags & bit]
    words += [data] if data else []
    return ["-o", ",".join(words)] if words else []


def namespaces_of(sheet: Sheet, step: steps.Step) -> str:
    """The command that goes into the namespaces of an unshare or setns step."""
    if step.verb == "setns":
        path, kind = step.arguments
        return f"nsenter --{NAMESPACES[kind]}={sheet.word(path)}"
    kinds = [f"--{name}" for bit, name in NAMESPACES.items() if step.arguments[0] & bit]
    if "--pid" in kinds:  # busybox's: util-linux 2.38 loses the exit code of a child that was killed
        return " ".join(["busybox unshare", *kinds, "--fork $(command -v setpriv) --pdeathsig=KILL"])
    if "--mount" in kinds:
        kinds += ["--propagation", "unchanged"]
    return " ".join(["unshare", *kinds])


def unshare(sheet: Sheet, flags: int) -> None:
    """In the parent: for the child to come."""
    if flags == 0x00020000:  # a list of mounts for the script itself, made before anything else: see `script`
        sheet.add("# (done in the first lines)")
        return
    sheet.add(f'launch="{namespaces_of(sheet, steps.unshare(flags, why=""))} $launch"')


def setns(sheet: Sheet, path: Any, kind: int) -> None:
    """The same."""
    sheet.add(f'launch="{namespaces_of(sheet, steps.setns(path, kind, why=""))} $launch"')


def mkdir(sheet: Sheet, path: Any, mode: int) -> None:
    sheet.add(f"mkdir -p {'' if mode == 0o755 else f'-m {mode:o} '}{sheet.word(path)}")


def write(sheet: Sheet, path: Any, content: Any) -> None:
    if str(path).endswith("/config.json"):
        sheet.add("# not reproduced: config.json, the same in the words of the OCI runtime specification")
    elif str(content).endswith("\n"):
        first, *rest = sheet.document(content)
        sheet.add(f"cat >{sheet.word(path)} {first}", *rest)
    else:
        sheet.add(f"printf %s {sheet.word(content)} >{sheet.word(path)}")


def put(sheet: Sheet, path: Any, content: Any) -> None:
    plain = isinstance(content, str) and re.fullmatch(r"(?!-[neE])[\w .:,*+/-]*", content)
    echo = "echo" if plain or not isinstance(content, str) else "printf '%s\\n'"
    sheet.add(f"{echo} {sheet.word(content)} >{sheet.word(path)}")


def mount(sheet: Sheet, source: str, target: str, kind: str, flags: int, data: str) -> None:
    place = sheet.word(target)
    for bit, name in PROPAGATION.items():
        if flags & bit:
            sheet.add(f"mount --make-{'r' if flags & MS_REC else ''}{name} {place}")
            return
    if flags & MS_BIND and not flags & MS_REMOUNT:
        sheet.add(f"mount --{'r' if flags & MS_REC else ''}bind {sheet.word(source)} {place}")
        return
    words = ["mount", "-t", shlex.quote(kind), *map(sheet.word, options(flags, data)), sheet.word(source)]
    sheet.add(" ".join([*words, place]))


def umount(sheet: Sheet, target: str, flags: int) -> None:
    sheet.add(f"umount {'-l ' if flags & 2 else ''}{sheet.word(target)}")


def umount_all(sheet: Sheet, target: str, flags: int) -> None:
    sheet.add(f"while umount {'-l ' if flags & 2 else ''}{sheet.word(target)} 2>/dev/null; do :; done")


def pivot_root(sheet: Sheet, new_root: str, put_old: str) -> None:
    sheet.add(
        f"pivot_root {sheet.word(new_root)} {sheet.word(put_old)}",
        "# / is the image now: from here on these are the programs behind descriptor 9",
        f"PATH={TOOLS}",
    )


def within(sheet: Sheet, namespace: Any) -> str:
    """The command prefix that acts in the network namespace of a process."""
    return f"nsenter --net={sheet.word(steps.Text(('/proc/', namespace, '/ns/net')))} " if namespace else ""


def link_add(
    sheet: Sheet,
    name: str,
    kind: str,
    peer: str,
    namespace: Any,
    master: str,
    mtu: int,
    mac: str,
    up: bool,
    exist_ok: bool,
    peer_mac: str = "",
    parent: str = "",
    mode: str = "",
) -> None:
    words = ["ip link add", *([f"link {sheet.word(parent)} name"] if parent else []), sheet.word(name)]
    size = f" mtu {mtu}" if mtu else ""
    words += [f"address {sheet.word(mac)}"] if mac else []
    inside = f" netns {sheet.word(namespace)}" if parent and namespace else ""
    command = " ".join(words) + size + inside + f" type {shlex.quote(kind)}"
    if mode:
        command += f" {'id' if kind == 'vlan' else 'mode'} {mode}"
    if peer:
        command += f" peer name {sheet.word(peer)}{size}" + (f" address {sheet.word(peer_mac)}" if peer_mac else "")
        command += f" netns {sheet.word(namespace)}" if namespace else ""
    sheet.add((f"ip link show {sheet.word(name)} >/dev/null 2>&1 || " if exist_ok else "") + command)
    if master or up:
        port = f" master {sheet.word(master)}" if master else ""
        sheet.add(f"ip link set {sheet.word(name)}{port}{' up' if up else ''}")


def link_set(
    sheet: Sheet, name: str, up: bool | None, master: str, mtu: int, namespace: Any, hairpin: bool = False,
    isolated: bool = False,
) -> None:  # fmt: skip
    words = [f"{within(sheet, namespace)}ip link set {sheet.word(name)}"]
    words += [f"master {sheet.word(master)}"] if master else []
    words += [f"mtu {mtu}"] if mtu else []
    words += [] if up is None else ["up" if up else "down"]
    if len(words) > 1:
        sheet.add(" ".join(words))
    for asked, word in ((hairpin, "hairpin"), (isolated, "isolated")):
        if asked:
            sheet.add(f"{within(sheet, namespace)}ip link set {sheet.word(name)} type bridge_slave {word} on")


def address_add(sheet: Sheet, device: str, address: Any, namespace: Any) -> None:
    sheet.add(f"{within(sheet, namespace)}ip address replace {sheet.word(address)} dev {sheet.word(device)}")


def link_delete(sheet: Sheet, name: str, namespace: Any = 0) -> None:
    sheet.add(f"{within(sheet, namespace)}ip link delete {sheet.word(name)} 2>/dev/null || :")


def route_add(sheet: Sheet, destination: str, gateway: str, namespace: Any, device: str = "") -> None:
    way = f"{sheet.word(destination)} {f'dev {device}' if device else f'via {sheet.word(gateway)}'} proto static"
    sheet.add(f"{within(sheet, namespace)}ip route replace {way}")


def nft(sheet: Sheet, *commands: netlink.Command) -> None:
    lines = "".join(f"{netlink.nft_text(command)}\n" for command in commands)
    symbols = re.search(r"\$[a-z]", lines)
    # nft's own text has neither backslash nor backquote; a dollar in it is a symbol of the plan.
    sheet.add(f"nft -f - <<{'EOF' if symbols else chr(39) + 'EOF' + chr(39)}", *lines.splitlines(), "EOF")


def one(template: str) -> Callable[..., None]:
    """A rendering that is one line with the arguments in it."""
    return lambda sheet, *words: sheet.add(template.format(*[sheet.word(word) for word in words]))


VERBS: dict[str, Callable[..., None]] = {
    "mkdir": mkdir,
    "rmdir": one("[ ! -d {0} ] || rmdir {0}"),
    "write": write,
    "put": put,
    "symlink": one("ln -s {0} {1}"),
    "unlink": one("rm -f {0}"),
    "remove_tree": one("rm -rf --one-file-system {0}"),
    "mount": mount,
    "umount": umount,
    "umount_all": umount_all,
    "pivot_root": pivot_root,
    "chdir": one("cd {0}"),
    "unshare": unshare,
    "setns": setns,
    "sethostname": one("busybox hostname {0}"),
    "link_add": link_add,
    "link_set": link_set,
    "link_delete": link_delete,
    "link_wait": one("until ip -o link show {0} | grep -q 'state UP'; do sleep 0.01; done"),
    "address_add": address_add,
    "route_add": route_add,
    "nft": nft,
}

# --------------------------------------------------------------------------------------- the functions that steps call


def open_journal(sheet: Sheet, containers: str, directory: str) -> None:
    sheet.add(
        f"mkdir -p {sheet.word(containers, '/names')}",
        f"exec 8<>{sheet.word(containers, '.lock')}",
        "flock --shared 8",
        f"mkdir -m 700 {sheet.word(directory)}",
        "trap teardown EXIT  # from here on, whatever happens is taken down again",
        f"exec 8<{sheet.word(directory)}",
        "flock 8",
    )


def lease(sheet: Sheet, network: Any, identifier: str, wanted: str = "") -> None:
    sheet.use("lease")
    subnet = ipam.bounds(network.subnet)
    first, last = ipam.bounds(network.ip_range) if network.ip_range else subnet
    first, last = max(first, subnet[0] + 1), min(last, subnet[1] - 1)
    if wanted:  # a range of one
        first = last = ipam.number(wanted)
    words = (ipam.directory(network), ipam.dotted(first), last - first + 1, network.gateway)
    command = "lease " + " ".join(map(sheet.word, words))
    sheet.add(command if sheet.result == "address" else f'{sheet.result}=$({command} && echo "$address")')


def lease6(sheet: Sheet, network: Any, identifier: str, wanted: str = "") -> None:
    sheet.use("lease6")
    first, last = ipam.bounds(network.ip_range6 or network.subnet6)
    subnet = ipam.bounds(network.subnet6)
    first = ipam.number(wanted) if wanted else max(first, subnet[0] + 1)
    count = 1 if wanted else min(last - first, 0xFFFE - (first & 0xFFFF)) + 1
    form = (
        ipam.written(first | 0xFFFF, network.subnet6).removesuffix("ffff") + "%x"
    )  # the last sixteen bits are counted
    words = (ipam.directory(network), form, first & 0xFFFF, count, network.gateway6)
    sheet.add(f"lease6 {' '.join(map(sheet.word, words))}", f"{sheet.result}=$found")


def release(sheet: Sheet, network: Any, identifier: str) -> None:
    sheet.use("release")
    sheet.add(f"release {sheet.word(ipam.directory(network))}")


def announce(sheet: Sheet, network: Any, record: dict[str, Any], address: Any, address6: Any = "") -> None:
    from ..network import dns

    place = sheet.word(dns.place(network.name))
    names = sheet.word(address, f" {record['name']} {record['id'][:12]} {record['hostname']}".lower())
    sheet.add(f"mkdir -p -m 700 {place}", f'echo {names} >{place}/"$id"')
    if address6:
        sheet.add(f'echo {sheet.word("ip6 ", address6)} >>{place}/"$id"')


def switch_on(sheet: Sheet, process: Any, device: str) -> None:
    sheet.add(f"until {within(sheet, process)}ip link set {device} up; do sleep 0.1; done")


def ipv4_only(sheet: Sheet, process: Any, device: str) -> None:
    sheet.add(f"{within(sheet, process)}sh -c 'echo 1 >/proc/sys/net/ipv6/conf/{device}/disable_ipv6'")


def ipv6_quietly(sheet: Sheet, process: Any, device: str) -> None:
    settings = " ".join(
        f"echo {value} >{name};"
        for name, value in (("accept_ra", 0), ("accept_dad", 0), ("addr_gen_mode", 0), ("disable_ipv6", 0))
    )
    sheet.add(f"{within(sheet, process)}sh -c 'cd /proc/sys/net/ipv6/conf/{device}; {settings}'")


def remember_forwarding(sheet: Sheet) -> None:
    from ..network import bridge

    directory = os.path.dirname(bridge._forwarding_note())
    sheet.add(
        f"mkdir -p -m 700 {sheet.word(directory)}",
        f"note={sheet.word(directory)}/ip_forward-$(stat -Lc %i /proc/self/ns/net)",
        '[ -e "$note" ] || cat /proc/sys/net/ipv4/ip_forward >"$note"',
    )


def withdraw(sheet: Sheet, identifier: str) -> None:
    sheet.use("withdraw")
    sheet.add(f"withdraw map inet {sheet.word(nat.table())} ports ports_at")


def admit(sheet: Sheet, *cable: Any) -> None:
    identifier, end, mac, address, address6 = (*cable, "")[:5]
    commands = spoofing.cable_commands([(identifier, end, mac, address, "")])
    if address6:
        sheet.use("number6")
        sheet.add(f"number6=$(number6 {sheet.word(address6)})")
        commands += spoofing.commands6(identifier, end, mac, address6, str(steps.Symbol("number6")))
    nft(sheet, *commands)


def forget(sheet: Sheet, identifier: str, cable: str = "") -> None:
    sheet.use("withdraw")
    sheet.add(f"withdraw set {spoofing.table()} cables macs addresses addresses6 targets6")


def expel(sheet: Sheet, device: str) -> None:
    for way in ("-i", "-o"):
        rule = f"{way} {device} -m comment --comment {sheet.word(foreign._tag(device))} -j ACCEPT"
        sheet.add(f"iptables -D {foreign.USER} {rule} 2>/dev/null || :")


def reserve_any(sheet: Sheet, identifier: str, port: Any) -> None:
    sheet.use("free_port")
    first, last = (port.host, port.host_end) if port.host else (32768, 60999)
    sheet.add(f"free_port {port.protocol} {first} {last}", f"{sheet.result}=$port")
    sheet.add("# not reproduced: a socket that keeps this port from other programs")


def conntrack_delete(sheet: Sheet, protocol: str, ports: list[Any], family: str = "ip") -> None:
    command = "conntrack --delete" + (" --family ipv6" if family == "ip6" else "")
    for port in ports:
        sheet.add(f"{command} --proto {protocol} --orig-port-dst {sheet.word(port)} 2>/dev/null || :")


def create_volume(sheet: Sheet, name: str) -> None:
    volume = f'"$store"/volumes/{sheet.word(name)}'
    sheet.add(
        f"mkdir -p {volume}/_data",
        f"[ -e {volume}/volume.json ] ||",
        f"""    date -u '+{{"created": "%Y-%m-%dT%H:%M:%SZ", "labels": {{}}}}' >{volume}/volume.json""",
    )


def copy_up(sheet: Sheet, rootfs: str, target: str, volume: str) -> None:
    sheet.use("copy_up")
    sheet.add(f"copy_up {sheet.word(target)} {sheet.word(volume)}")


def mount_at(sheet: Sheet, directory: str, data: str, target: str) -> None:
    sheet.add(f"(cd {sheet.word(directory)} && mount -t overlay -o {sheet.word(data)} overlay {sheet.word(target)})")


def empty(sheet: Sheet, directories: Iterable[str], *_: Any) -> None:
    sheet.use("empty")
    words = " \\\n    ".join(sheet.word(directory) for directory in directories)
    sheet.add(f"empty {words}")


def delegate(sheet: Sheet, unit: str, directory: str) -> None:
    sheet.use("move_to_leaf")
    properties = " ".join(f"--property={name}" for name in cgroups.SERVICE)
    sheet.add(
        f"systemd-run --quiet --collect --unit={sheet.word(unit)} --service-type=exec \\",
        f"    {properties} sleep infinity ||",
        f"    systemctl start {sheet.word(unit)}  # another was first",
        f"move_to_leaf {sheet.word(directory)}",
    )


def move_to_leaf(sheet: Sheet, directory: str) -> None:
    sheet.use("move_to_leaf")
    sheet.add(f"move_to_leaf {sheet.word(directory)}")


def attach(sheet: Sheet, root: str, source: str, destination: str, kind: str, flags: int, data: str) -> None:
    sheet.use("directory")
    sheet.add(f"directory {sheet.word(destination)}")
    words = ["mount", "-t", shlex.quote(kind), *map(sheet.word, options(flags, data)), sheet.word(source or "none")]
    sheet.add(f'{" ".join(words)} "$place"')


def tree(sheet: Sheet, path: str, below: bool, space: Any = None, all_below: bool = False) -> None:
    if space is None:
        what = "a mount that is attached nowhere: no command makes one; its source is bound, and hears of nothing"
    else:
        what = "a mount that translates ids: mount(8) makes one with X-mount.idmap= since util-linux 2.39"
    sheet.add(f"# not reproduced: {what}", f"export {sheet.result}={sheet.word(path)}")


def bind(sheet: Sheet, root: str, source: str, destination: str, flags: int, propagation: int) -> None:
    """The source may be made by an earlier step, so the script itself looks what it is."""
    sheet.use("directory", "file")
    origin, place = sheet.word(source), sheet.word(destination)
    sheet.add(f"if [ -d {origin} ]; then directory {place}; else file {place}; fi")
    sheet.add(f'mount --{"r" if flags & MS_REC else ""}bind {origin} "$place"')
    rest = options(flags & ~(MS_BIND | MS_REC))
    if rest:
        sheet.use("remount")
        sheet.add(f'remount "$place" {rest[1]}')
    name = next((name for bit, name in PROPAGATION.items() if propagation & bit), "private")
    recursive = "r" if name in ("private", "slave") or propagation & MS_REC else ""
    sheet.add(f'mount --make-{recursive}{name} "$place"')


def cgroup_tree(sheet: Sheet, root: str, destination: str, hierarchies: dict[str, str], flags: int) -> None:
    if "" in hierarchies:
        attach(sheet, root, "cgroup", destination, "cgroup2", flags, "")
        return
    attach(sheet, root, "cgroup", destination, "tmpfs", flags & ~1, "mode=755")
    for name, controllers in hierarchies.items():
        attach(sheet, root, "cgroup", f"{destination}/{name}", "cgroup", flags, controllers)
    if flags & 1:
        sheet.use("directory", "remount")
        sheet.add(f"directory {sheet.word(destination)}", 'remount "$place" ro')


def remount(sheet: Sheet, target: str, flags: int) -> None:
    sheet.use("remount")
    sheet.add(f"remount {sheet.word(target)} {','.join(options(flags)[1:])}")


def function(name: str) -> Callable[..., None]:
    """A rendering that calls the script's function of that name with the same arguments."""

    def rendering(sheet: Sheet, *words: Any) -> None:
        sheet.use(name)
        sheet.add(" ".join([name, *map(sheet.word, words)]))

    return rendering


def make_device(sheet: Sheet, root: str, device: dict[str, Any]) -> None:
    sheet.use("device")
    kind = {"u": "c"}.get(device["type"], device["type"])
    sheet.add(
        f"device {sheet.word(device['path'])} {kind} {device.get('major', 0)} {device.get('minor', 0)}"
        f" {device.get('fileMode', 0o666):o} {device.get('uid', 0)}:{device.get('gid', 0)}"
    )


def bind_device(sheet: Sheet, root: str, device: dict[str, Any]) -> None:
    bind(sheet, root, device["path"], device["path"], MS_BIND, 0)


def link(sheet: Sheet, root: str, target: str, path: str) -> None:
    sheet.use("link")
    sheet.add(f"link {sheet.word(target)} {sheet.word(path)}")


def begin(sheet: Sheet, *_: Any) -> None:
    sheet.add("umask 022  # (the rest where it was started: setsid, --pdeathsig)")


def tell(sheet: Sheet, end: Any, point: str) -> None:
    sheet.add(f"echo {sheet.word(point)} >&{5 if sheet.process == 'parent' else 4}")


def wait(sheet: Sheet, end: Any, point: str, values: Any) -> None:
    if point == "execve":
        sheet.add("! read -r reached <&6")
    else:
        sheet.add(f"read -r reached <&{6 if sheet.process == 'parent' else 3}  # {point}")


def set_limit(sheet: Sheet, kind: str, soft: int, hard: int) -> None:
    word = {-1: "unlimited"}
    name = kind.removeprefix("RLIMIT_").lower()
    sheet.add(f"prlimit --pid $$ --{name}={word.get(soft, soft)}:{word.get(hard, hard)}")


def capability_list(mask: int) -> str:
    """`-all,+chown,+kill`, as setpriv(1) has it."""
    return ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities.names(mask))])


def privilege(sheet: Sheet, words: str) -> None:
    """One more option of the setpriv that starts the command."""
    sheet.add(f'privileges="$privileges {words}"')


def set_capabilities(sheet: Sheet, effective: int, permitted: int, inheritable: int) -> None:
    privilege(sheet, f"--inh-caps={capability_list(inheritable)}")
    sheet.add("# (effective and permitted follow from the bounding set and the user at execve: capabilities(7))")


def become(sheet: Sheet, uid: int, gid: int, groups: list[int]) -> None:
    with open("/proc/self/setgroups") as file:  # a user namespace may forbid setgroups(2)
        allowed = file.read().strip() == "allow"
    chosen = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    if not allowed and not set(groups) - {gid}:
        chosen = "--keep-groups"
    privilege(sheet, f"--reuid={uid} --regid={gid} {chosen} --pdeathsig=KILL")


def execute(sheet: Sheet, arguments: list[str], environment: list[str], *_: Any) -> None:
    last = 'cd "$0" && unset PWD OLDPWD SHLVL && exec 3<&- 4>&- 9<&- && exec "$@"'
    sheet.add(
        f"exec setpriv $privileges {TOOLS}/env -i \\",
        *(f"    {sheet.word(variable)} \\" for variable in environment),
        f"    {TOOLS}/sh -c '{last}' \"$directory\" \\",
        f"    {' '.join(map(sheet.word, arguments))}",
    )


def fork(sheet: Sheet, child_plan: list[steps.Step], *_: Any) -> None:
    child = Sheet(sheet.names, "child")
    child.add("# first: how the host numbers this process", "read -r pid rest </proc/self/stat", 'echo "$pid" >&4', "")
    child.add("privileges=''")
    for step in child_plan:
        child.step(step)
    for part in child.parts[-1:]:
        part.lines.insert(0, "privileges=''")
    sheet.use("tools")
    sheet.add(
        'mkdir "$container/script"',
        'mkfifo "$container/script/up" "$container/script/down"',
        'tools "$container/script/tools"',
    )
    for number, part in enumerate((child, *child.parts), 1):
        end = f"CHILD_{number}"
        sheet.add(
            f"cat >\"$container/script/child-{number}\" <<'{end}'",
            "set -eu",
            *part.text().split("\n"),
            end,
        )
    stdin = "<&7 7<&-" if sheet.stdin else "</dev/null"
    sheet.add(
        f"export {' '.join(name.name for name in sheet.names)}",
        'setpriv --pdeathsig=KILL $launch setsid sh "$container/script/child-1" \\',
        f'    3<"$container/script/down" 4>"$container/script/up" 9<"$container/script/tools" 8<&- {stdin} &',
        "child=$!",
        'exec 5>"$container/script/down" 6<"$container/script/up"',
        "read -r pid <&6",
    )


def none(what: str) -> Callable[..., None]:
    """What no command can do."""
    return lambda sheet, *_: sheet.add(f"# not reproduced: {what}")


CALLS: dict[str, Callable[..., None]] = {
    "containers.open_journal": open_journal,
    "containers.take_name": lambda sheet, containers, record: sheet.add(
        f'ln -s "$id" {sheet.word(containers, "/names/", record["name"])}'
    ),
    "containers.drop_name": lambda sheet, containers, name, identifier: sheet.add(
        '[ "$(readlink {0})" != "$id" ] || rm -f {0}'.format(sheet.word(containers, "/names/", name))
    ),
    "containers.claim": lambda sheet, root, directory, record: write(
        sheet, f"{directory}/record.json", json.dumps(record, indent=1) + "\n"
    ),
    "containers.change": none("that it is being started, in record.json"),
    "containers.note_end": none("how it ended, in record.json"),
    "containers.lock_journal": one("exec 9<{0} && flock 9"),
    "events.write": none("a line in the store's journal of events"),
    "userns.confirm": none("a lease of the ids, which other containers of the machine respect"),
    "volumes.Volumes.create": create_volume,
    "volumes.copy_up": copy_up,
    "volumes.make_source": one("[ -e {0} ] || mkdir -p {0}"),
    "ipam.lease": lease,
    "ipam.lease6": lease6,
    "ipam.release": release,
    "bridge.ipv4_only": ipv4_only,
    "parent.switch_on": switch_on,
    "bridge.ipv6_quietly": ipv6_quietly,
    "bridge.listens": none("a moment: the kernel joins the group where its address of IPv6 is asked for"),
    "bridge.remember_forwarding6": none(
        "what the host's IPv6 forwarding was, and accept_ra=2 where it believes routers"
    ),
    "bridge.restore_forwarding6": none("forwarding of IPv6 as it was before the first network with it (system reset)"),
    "dns.listen": none("where the container asks for names: sockets inside, and a program outside that answers there"),
    "networks.announce": announce,
    "bridge.remember_forwarding": remember_forwarding,
    "bridge.restore_forwarding": none("ip_forward as it was before the first container (system reset)"),
    "nat.reserve": none("sockets that keep these ports from other programs"),
    "nat.reserve_any": reserve_any,
    "nat.withdraw": withdraw,
    "spoofing.admit": admit,
    "spoofing.forget": forget,
    "spoofing.remove": lambda sheet: sheet.add(f"nft delete table {spoofing.table()} 2>/dev/null || :"),
    "foreign.expel": expel,
    "nat.forget": none("the network's elements in the firewall's sets (network rm)"),
    "conntrack.conntrack_delete": conntrack_delete,
    "overlay.mount_at": mount_at,
    "userns.give_back": none("the lease of its ids (--userns auto)"),
    "overlay.mount_translated": none("an overlay of layers whose ids a mount of the store translates (--userns auto)"),
    "cgroups.empty": empty,
    "cgroups.guard_devices": none("the device rules: a BPF program, which no command of this script can make"),
    "cgroups.delegate": delegate,
    "cgroups.move_to_leaf": move_to_leaf,
    "cgroups.systemd": lambda sheet, *words: sheet.add(" ".join(map(sheet.word, words))),
    "mounts.attach": attach,
    "mounts.bind": bind,
    "mounts.cgroup_tree": cgroup_tree,
    "idmap.namespace": none("a user namespace without a process, whose maps a mount takes"),
    "idmap.let_go": none("that again"),
    "idmap.tree": tree,
    "idmap.listen": none("that it tells the host nothing: so it is where it is bound"),
    "mounts.remount": remount,
    "mounts.make_readonly": function("make_readonly"),
    "mounts.mask": function("mask"),
    "rootfs.make_device": make_device,
    "rootfs.bind_device": bind_device,
    "rootfs.link": link,
    "capabilities.set_no_new_privileges": lambda sheet: privilege(sheet, "--no-new-privs"),
    "capabilities.keep_capabilities": lambda sheet: sheet.add("# (setpriv sees to it)"),
    "capabilities.limit_bounding_set": lambda sheet, kept: privilege(sheet, f"--bounding-set={capability_list(kept)}"),
    "capabilities.set_capabilities": set_capabilities,
    "capabilities.set_ambient": lambda sheet, wanted: privilege(sheet, f"--ambient-caps={capability_list(wanted)}"),
    "syscalls.seccomp_load": none("the filter: seccomp(2) takes it from a program only"),
    "init.begin": begin,
    "init.fork": fork,
    "init.set_limit": set_limit,
    "init.become": become,
    "init.make_directory": one("mkdir -p {0}"),
    "init.find_directory": none("the look whether a link of /proc leads out of the root"),
    "apparmor.confine": none("an AppArmor profile: aa-exec(1) becomes its command under one"),
    "keyring.join": none("a session keyring: keyctl(1) makes one for its own command only"),
    "init.enter_directory": one("directory={0}"),
    "threshold.prepare": none("a program in memory, between us and the command (runtime/threshold.py)"),
    "init.execute": execute,
    "init.give_terminal": none("the terminal: a program has to sit behind it (script(1) is one)"),
    "channel.tell": tell,
    "channel.wait": wait,
}

# ----------------------------------------------------------------------------------------------------------- the script


def script(planned: Any) -> str:
    """The whole script of a planned start."""
    from ..engine import containers

    names = names_of(planned)
    record = planned.record
    host = Sheet(names, "parent")
    host.stdin = planned.options["stdin_open"]
    for step in planned.plan:
        host.step(step)
    down = Sheet(names, "parent")
    store = next(name.value for name in names if name.name == "store")
    for step in containers.Containers(store).teardown(record, remove=True):
        down.step(step)
    for name in down.used:
        host.use(name)
    own_mounts = planned.plan[0].verb == "unshare" and planned.plan[0].arguments[0] == 0x00020000
    unshared = (
        'if [ -z "${UNSHARED:-}" ]; then UNSHARED=1 exec unshare --mount --propagation unchanged sh "$0" "$@"; fi'
    )
    title = " ".join(map(shlex.quote, [record["image"], *record["args"]])).replace("\n", " ")
    lines = [
        "#!/bin/sh",
        f"# {record['name']}: {title}",
        "#",
        "# The plan of `minicontainer run` as commands: what the engine does by system calls, done by hand. Above each",
        "# command stands why. Run it as root: `sh SCRIPT`. It needs util-linux, iproute2, nftables, a static busybox.",
        "set -eu",
        "umask 022",
        *([unshared] if own_mounts else []),
        'if ! command -v busybox >/dev/null || ldd "$(command -v busybox)" >/dev/null 2>&1; then',
        '    echo "this script needs a static busybox: apt-get install busybox-static" >&2',
        "    exit 1",
        "fi",
        "",
        *(f"{name}={shlex.quote(text) if text == value else text}" for name, text, value in names),
        "launch='' pid=''",
        *(["exec 7<&0"] if host.stdin else []),
        "",
        *"\n".join(FUNCTIONS[name] for name in host.used).split("\n"),
        "teardown() {",
        "    code=$?",
        "    trap - EXIT",
        "    trap '' HUP INT TERM PIPE",
        "    set +e",
        '    [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null',
        *(f"    {line}" if line and not in_document else line for line, in_document in documents(down.lines)),
        '    exit "$code"',
        "}",
        "trap 'exit 129' HUP",
        "trap 'exit 130' INT",
        "trap 'exit 141' PIPE",
        "trap 'exit 143' TERM",
        "",
        *host.lines,
        "",
        "# the container runs; its exit code becomes ours",
        "code=0",
        'wait "$child" || code=$?',
        "pid=''",
        'exit "$code"',
    ]
    return "\n".join(lines) + "\n"


def documents(lines: list[str]) -> Iterable[tuple[str, bool]]:
    """Each line, and whether it lies in a here-document."""
    end = ""
    for line in lines:
        yield line, bool(end)
        if end:
            end = "" if line == end else end
        elif found := re.search(r"<<'?(\w+)'?$", line):
            end = found[1]
