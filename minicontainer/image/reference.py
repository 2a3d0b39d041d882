"""What an image is called, and which of its platforms this machine runs.

Offers: `parse` → `Reference`, with its full form `docker.io/library/debian:latest` and the familiar one
`debian:latest`; `host_platform`, `choose` and `runs_here` for platforms. Pure but for one look at uname(2) and
/proc/cpuinfo. Written without `re`: compiling the grammar would cost more than all of parsing, and `run` passes here.

Sources: the grammar of distribution/reference; OCI image specification, image-index.md (platform).
"""

import os

from .. import errors, oci

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_ALNUM = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_WORD = _ALNUM | {"_"}
_TAG = _WORD | {".", "-"}
_HEX = frozenset("0123456789abcdef")


class Reference:
    """A parsed name. `domain` is the registry, `path` the repository in it; `tag` and `digest` may be empty."""

    __slots__ = ("digest", "domain", "path", "tag")

    def __init__(self, domain: str, path: str, tag: str = "", digest: str = "") -> None:
        self.domain = domain
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def name(self) -> str:
        """Registry and repository: `docker.io/library/debian`."""
        return f"{self.domain}/{self.path}"

    def full(self) -> str:
        """The one spelling that the store compares: `docker.io/library/debian:latest`, or `…@sha256:…` where a digest
        is given.
        """
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag or DEFAULT_TAG}"

    def familiar_name(self) -> str:
        """What people type: without docker.io/, and without library/ where one component is left."""
        if self.domain != DEFAULT_REGISTRY:
            return self.name
        short = self.path.removeprefix("library/")
        return self.path if "/" in short else short

    def familiar(self) -> str:
        """What people type, with its tag or digest: `debian:latest`."""
        return (
            f"{self.familiar_name()}@{self.digest}"
            if self.digest
            else f"{self.familiar_name()}:{self.tag or DEFAULT_TAG}"
        )


def parse(text: str) -> Reference:
    """Parse what a user typed, or an archive holds, by Docker's rules. Raises InvalidArgument.

    The part before the first slash is a registry only if it has a dot, a colon or an upper-case letter, or is
    `localhost`. Where both a tag and a digest are given, the digest decides which image is meant; the tag is kept.
    """
    if len(text) == 64 and _HEX.issuperset(text):
        raise errors.InvalidArgument(f"invalid repository name {text!r}: 64 hex digits are an image's id, not a name")
    rest, digest = text, ""
    if "@" in text:
        rest, _, digest = text.partition("@")
        if not oci.is_digest(digest):
            raise _invalid(text, "what follows @ must be sha256: and 64 lower-case hex digits")
    first, slash, remainder = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        domain = first
    else:
        domain, remainder = DEFAULT_REGISTRY, rest
    path, colon, tag = remainder.partition(":")
    if colon and not (tag and len(tag) <= 128 and tag[0] in _WORD and _TAG.issuperset(tag)):
        raise _invalid(
            text, "a tag is 1 to 128 letters, digits, `_`, `.` and `-`, and begins with neither of the last two"
        )
    if domain == "index.docker.io":
        domain = DEFAULT_REGISTRY
    if path != path.lower():
        raise _invalid(text, "a repository name must be lower case")
    if not all(_is_component(part) for part in path.split("/")):
        raise _invalid(
            text, "a repository name is lower-case letters and digits, joined by `.`, `_`, `__`, `-` and `/`"
        )
    if not _is_domain(domain):
        raise _invalid(text, f"{domain!r} is no host name")
    if domain == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    if len(domain) + 1 + len(path) > 255:
        raise _invalid(text, "a repository name has at most 255 characters")
    return Reference(domain, path, tag, digest)


def _invalid(text: str, why: str) -> errors.InvalidArgument:
    return errors.InvalidArgument(f"invalid reference format: {text!r}: {why}")


def _is_component(text: str) -> bool:
    """Runs of lower-case letters and digits, joined by one dot, one or two underscores, or any number of dashes."""
    if not text or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    joint = ""
    for character in text:
        if character not in _LOWER:
            if character not in "._-":
                return False
            joint += character
        elif joint:
            if joint not in (".", "_", "__") and joint.strip("-"):
                return False
            joint = ""
    return True


def _is_domain(text: str) -> bool:
    """A host name or address, and a port: `example.org`, `127.0.0.1:5000`, `[::1]:5000`."""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or not host or not frozenset("0123456789abcdefABCDEF:").issuperset(host):
            return False
        return not port or (port[0] == ":" and port[1:].isdecimal())
    host, colon, port = text.partition(":")
    if colon and not (port.isascii() and port.isdecimal()):
        return False
    for label in host.split("."):
        if not label or label[0] == "-" or label[-1] == "-" or not (_ALNUM | {"-"}).issuperset(label):
            return False
    return True


# Platforms ----------------------------------------------------------------------------------------------------------

_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}

# What each step of x86-64 asks of the processor, in the spelling of /proc/cpuinfo (the x86-64 psABI's levels).
_AMD64_LEVELS = (
    ("v2", ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3")),
    ("v3", ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave")),
    ("v4", ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")),
)


def host_architecture() -> str:
    """This machine's architecture as OCI spells it: amd64, arm64, …"""
    machine = os.uname().machine
    return _MACHINES.get(machine, (machine, ""))[0]


def host_platform() -> tuple[str, str]:
    """Architecture and variant: ("amd64", "v3"), ("arm64", "v8")."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    if architecture == "amd64":
        variant = "v1"
        flags: set[str] = set()
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("flags"):
                    flags.update(line.split())
                    break
        for level, needed in _AMD64_LEVELS:
            if not flags.issuperset(needed):
                break
            variant = level
    return architecture, variant


def acceptable(host: tuple[str, str]) -> list[tuple[str, str]]:
    """The platforms that `host` runs, best first. ("amd64", "v3") → v3, v2, v1; arm64 → v9, v8; arm → v7, v6, v5."""
    architecture, variant = host
    lowest = {"amd64": 1, "arm64": 8, "arm": 5}.get(architecture)
    if lowest is None or variant[1:].split(".")[0].isdecimal() is False:
        return [(architecture, variant), (architecture, "")] if variant else [(architecture, "")]
    number = int(variant[1:].split(".")[0])
    ladder = [(architecture, f"v{level}") for level in range(number, lowest - 1, -1)]
    if architecture == "arm64" and number > 8:
        ladder = [(architecture, variant), *ladder]
    return ladder


def normal(architecture: str, variant: str) -> tuple[str, str]:
    """One spelling for the platforms that have two: no variant means v1 on amd64, v8 on arm64, v7 on arm."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(architecture, architecture)
    return architecture, variant or {"amd64": "v1", "arm64": "v8", "arm": "v7"}.get(architecture, "")


def choose(platforms: list[dict[str, object]], host: tuple[str, str] | None = None) -> int | None:
    """The index of the platform that suits `host` (default: this machine) best, or None. `{}` is an unknown platform.

    Attestations, which builders file under `unknown/unknown`, are never chosen.
    """
    ladder = acceptable(host or host_platform())
    best: tuple[int, int] | None = None
    for position, platform in enumerate(platforms):
        if platform.get("os", "linux") != "linux":
            continue
        key = normal(str(platform.get("architecture", "")), str(platform.get("variant", "")))
        if key in ladder:
            candidate = (ladder.index(key), position)
            if best is None or candidate < best:
                best = candidate
    return best[1] if best else None


def runs_here(architecture: str) -> bool:
    """Whether this machine's processor executes images of `architecture`. Empty (old images say nothing) counts as
    yes.
    """
    here = host_architecture()
    return architecture in ("", here) or normal(architecture, "")[0] == here
