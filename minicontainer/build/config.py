"""What instructions say about an image, as its config has it: ENV, CMD, LABEL and their kin change no file. Pure.

`Image` is the image being made; each function gives a new one. Instructions come here expanded. The history's words
are BuildKit's (frontend/dockerfile/dockerfile2llb, commitToHistory), for tools read them. Other source: OCI image
specification, config.md; docker's fields beside it (Healthcheck, OnBuild, Shell) as moby's image spec v1.2 has them.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

from ..engine import committing

COMMENT = "buildkit.dockerfile.v0"  # of each entry of the history: by which rules the words are
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Image(NamedTuple):
    """An image being made: its `platform` fields, its `config` with docker's names, its `history`.

    `own_command` says whether a CMD came with this build: an ENTRYPOINT forgets one that was inherited. So many entries
    of the history are `inherited` from an image.
    """

    platform: dict[str, str]
    config: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    own_command: bool = False
    inherited: int = 0

    @property
    def environment(self) -> dict[str, str]:
        """Its variables."""
        return dict(line.partition("=")[::2] for line in self.config.get("Env") or [])

    @property
    def shell(self) -> list[str]:
        """What runs the shell forms."""
        return list(self.config.get("Shell") or ["/bin/sh", "-c"])

    @property
    def directory(self) -> str:
        """Where relative paths begin."""
        return str(self.config.get("WorkingDir") or "/")

    def noted(self, words: str, created: str, layer: bool = False) -> Image:
        """With one entry more in the history. What has been said before the first `layer` is dated as that is."""
        entry: dict[str, Any] = {"created": created, "created_by": words, "comment": COMMENT}
        own = self.history[self.inherited :]
        if not layer:
            entry["empty_layer"] = True
        elif all("empty_layer" in one for one in own):
            own = tuple({**one, "created": created} for one in own)
        return self._replace(history=(*self.history[: self.inherited], *own, entry))

    def with_config(self, **fields: Any) -> Image:
        """With these fields of the config."""
        return self._replace(config={**self.config, **fields})

    def document(self, created: str) -> dict[str, Any]:
        """The config's JSON, without its `rootfs`."""
        described = {key: value for key, value in sorted(self.config.items()) if value not in (None, "", [], {})}
        return {**self.platform, "created": created, "config": described, "history": list(self.history)}


def scratch(platform: dict[str, str]) -> Image:
    """FROM scratch: nothing but where programs may be found."""
    return Image(platform, {"Env": [PATH], "WorkingDir": "/"}, ())


def based_on(document: dict[str, Any]) -> Image:
    """FROM an image, by its config."""
    platform = {key: str(document[key]) for key in ("architecture", "os", "variant") if document.get(key)}
    config = dict(document.get("config") or {})
    if not any(line.startswith("PATH=") for line in config.get("Env") or []):
        config["Env"] = [PATH, *(config.get("Env") or [])]
    history = tuple(document.get("history") or ())
    return Image(platform, config, history, inherited=len(history))


def command(image: Image, words: tuple[str, ...] | None, text: str) -> list[str]:
    """A command's words: those of the exec form, or the shell's with the text behind."""
    return list(words) if words is not None else [*image.shell, text]


def env(image: Image, pairs: list[tuple[str, str]], created: str) -> Image:
    """ENV: later ones win, where they stand already they stay."""
    variables = image.environment | dict(pairs)
    image = image.with_config(Env=[f"{name}={value}" for name, value in variables.items()])
    return image.noted("ENV " + " ".join(f"{name}={value}" for name, value in pairs), created)


def label(image: Image, pairs: list[tuple[str, str]], created: str) -> Image:
    """LABEL."""
    image = image.with_config(Labels={**(image.config.get("Labels") or {}), **dict(pairs)})
    return image.noted("LABEL " + " ".join(f"{name}={value}" for name, value in pairs), created)


def cmd(image: Image, words: list[str], created: str) -> Image:
    """CMD."""
    return image.with_config(Cmd=words, ArgsEscaped=True)._replace(own_command=True).noted(
        f"CMD {go_strings(words)}", created
    )  # fmt: skip


def entrypoint(image: Image, words: list[str], created: str) -> Image:
    """ENTRYPOINT: a CMD of the base was for its entrypoint, and goes."""
    image = image.with_config(Entrypoint=words, **({} if image.own_command else {"Cmd": None}))
    return image.noted(f"ENTRYPOINT {go_strings(words)}", created)


def expose(image: Image, ports: list[str], created: str) -> Image:
    """EXPOSE: `80`, `80/udp`, `80-90/tcp`, each one named with its protocol, in the order of the instruction."""
    found = []
    for port in ports:
        numbers, _, protocol = port.rpartition(":")[2].partition("/")
        first, _, last = numbers.partition("-")
        for number in range(int(first), int(last or first) + 1):
            found.append(f"{number}/{protocol.lower() or 'tcp'}")
    exposed = {**(image.config.get("ExposedPorts") or {}), **{port: {} for port in found}}
    return image.with_config(ExposedPorts=exposed).noted(f"EXPOSE [{' '.join(found)}]", created)


def volume(image: Image, paths: list[str], created: str) -> Image:
    """VOLUME."""
    image = image.with_config(Volumes={**(image.config.get("Volumes") or {}), **{path: {} for path in paths}})
    return image.noted(f"VOLUME [{' '.join(paths)}]", created)


def user(image: Image, text: str, created: str) -> Image:
    """USER."""
    return image.with_config(User=text).noted(f"USER {text}", created)


def workdir(image: Image, path: str, created: str) -> Image:
    """WORKDIR: relative to the one before. The root is there; else a layer has the directory."""
    whole = os.path.normpath(os.path.join("/", image.directory, path)).replace("//", "/")
    return image.with_config(WorkingDir=whole).noted(f"WORKDIR {whole}", created, layer=whole != "/")


def shell(image: Image, words: list[str], created: str) -> Image:
    """SHELL."""
    return image.with_config(Shell=words).noted(f"SHELL [{' '.join(words)}]", created)


def stopsignal(image: Image, text: str, created: str) -> Image:
    """STOPSIGNAL."""
    return image.with_config(StopSignal=text).noted(f"STOPSIGNAL {text}", created)


def onbuild(image: Image, text: str) -> Image:
    """ONBUILD: the line waits for who builds on this image."""
    return image.with_config(OnBuild=[*(image.config.get("OnBuild") or []), text])


def maintainer(image: Image, name: str, created: str, author: str = "") -> Image:
    """MAINTAINER: the config's `author`."""
    return image._replace(platform={**image.platform, "author": name}).noted(f"MAINTAINER {name}", created)


def healthcheck(image: Image, test: list[str], times: dict[str, int], created: str) -> Image:
    """HEALTHCHECK: `test` begins with NONE, CMD or CMD-SHELL; `times` in nanoseconds, and Retries; 0 is the default."""
    check: dict[str, Any] = {"Test": test, **{name: value for name, value in times.items() if value}}
    shown = [f"Test:[{' '.join(test)}]", *(f"{name}:{go_duration(times.get(name, 0))}" for name in TIMES)]
    words = " ".join([*shown, f"Retries:{times['Retries']}"])
    return image.with_config(Healthcheck=check).noted(f"HEALTHCHECK {{{words}}}", created)


TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval")


def ran(image: Image, words: list[str], arguments: dict[str, str], created: str) -> Image:
    """RUN, as history: the build arguments that were declared, with what it saw of them, then its words."""
    seen = [f"|{len(arguments)}", *(f"{name}={value}" for name, value in arguments.items())] if arguments else []
    return image.noted(f"RUN {' '.join([*seen, *words])} # buildkit", created, layer=True)


def copied(image: Image, words: list[str], created: str) -> Image:
    """COPY or ADD, as history."""
    return image.noted(f"{' '.join(words)} # buildkit", created, layer=True)


def go_strings(words: list[str]) -> str:
    """As Go's %q prints a list of strings."""
    return f"[{' '.join(json.dumps(word, ensure_ascii=False) for word in words)}]"


def go_duration(nanoseconds: int) -> str:
    """As Go prints a duration: `1m30s`."""
    if not nanoseconds:
        return "0s"
    seconds, rest = divmod(nanoseconds, 10**9)
    if not seconds:
        return f"{rest / 10**6:g}ms"
    hours, minutes = divmod(seconds // 60, 60)[0], seconds // 60 % 60
    text = f"{seconds % 60 + rest / 10**9:g}s"
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}" if minutes else text


def created(epoch: int | None) -> str:
    """Now, or SOURCE_DATE_EPOCH, in RFC 3339."""
    return committing.moment(epoch)
