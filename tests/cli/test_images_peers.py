"""The life of images, typed to us and to a real docker side by side: the same exit codes, the same output.

Normalised as in test_life_peers.py, and nothing else.
"""

import itertools
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import engine_fixtures, peers
from tests.cli.test_life_peers import typed
from tests.conftest import minicontainer
from tests.registries import Real

pytestmark = [pytest.mark.root, pytest.mark.slow]

OURS = [sys.executable, "-m", "minicontainer"]

# One line each, as typed behind `docker` or `minicontainer`. DEMO is demo's id, ARCHIVE a file, `\x20` a blank.
TRANSCRIPT = r"""
history
history nosuch
history demo
history told
image history told:latest
history --no-trunc told
history -H=false told
history -q told
history -q --no-trunc told
history --format json told
history --format {{.ID}}|{{.CreatedAt}}|{{.CreatedSince}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}} told
history --human=false --format table\x20{{.CreatedSince}}\x20{{.Size}} told
history --format {{.Nope}} told
image prune -f
image prune -f x
image prune -f --filter foo=bar
image prune -f --filter until=1x
image prune
system prune
system prune -a --volumes
system df
system df -v
system df --format json
system df --format {{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}
system df --format table\x20{{.Type}}\t{{.Reclaimable}}
system df -v --format {{len\x20.Images}}
system df -v --format {{.Nope}}
system df -v --format {{
system df -v --format {{range\x20.Images}}{{.Nope}}{{end}}
system df -v --format table
system df -v --format raw
tag told plain
run --name still --network none demo true
run -d --name web --network none foreign nosuch
rm web
system df
system df -v
system df -v --format {{range\x20.Images}}{{.Repository}}|{{.ID}}|{{.CreatedAt}}|{{.CreatedSince}}|{{.Digest}}\n{{end}}
system df -v --format {{range\x20.Images}}{{.VirtualSize}}|{{.SharedSize}}|{{.UniqueSize}}|{{.Containers}}\n{{end}}
system df -v --format {{range\x20.Containers}}{{.ID}}|{{.Image}}|{{.Mounts}}|{{.Label\x20"made"}}|{{.State}}{{end}}
system df -v --format {{range\x20.Volumes}}{{.Name}}|{{.Links}}|{{.Size}}|{{.Driver}}{{end}}{{json\x20.BuildCache}}
image prune -f
image prune -a -f --filter until=1s
rmi told plain
load -q -i ARCHIVE
system prune -f
run --name still --network none demo true
image prune -a -f --filter label!=made
image prune -a -f --filter label=nosuch
system prune -f --filter label=nosuch
system prune -a -f --volumes
system df
load -q -i ARCHIVE
rmi told
save
save nosuch
save -o OUT demo nosuch
save -o OUT demo
image save -o OUT demo:latest plain
save -o /no/such/out.tar demo
load -q -i OUT
import
import nosuch.tar
import -c RUN\x20x TREE
import TREE Bad
import -c CMD\x20["cat","/hello"] -m words TREE imported
image import --platform linux/arm64 -c ENV\x20A=b TREE imported:2
history imported
image inspect -f {{.Config.Env}}{{.Config.Cmd}}{{.Os}}{{.Comment}} imported:2
run --rm --network none imported
rmi imported imported:2
tag
tag demo
tag nosuch x
tag demo Not
tag demo mine:1
tag demo host.example:5000/team/mine
image tag demo mine:2
images
rmi
rmi nosuch
rmi -f nosuch
rmi mine:1
image rm mine:2
rmi DEMO
create --name still demo
rmi host.example:5000/team/mine
rmi DEMO
rmi -f DEMO
images
ps -a
rm still
image load -q -i ARCHIVE
create --name still demo
rmi demo
rmi DEMO
rmi -f demo
images
rm still
load -q -i ARCHIVE
run -d --name web --network none demo sleep 1000
rmi demo
rmi -f DEMO
rmi -f demo
rmi -f DEMO
images
rm -f web
rmi DEMO
rmi plain foreign told nosuch
images
load -q -i ARCHIVE
""".strip().splitlines()


def images() -> dict[str, tuple[dict[str, Any], list[bytes]]]:
    """Those of engine_fixtures, and one with a history."""
    history = [
        {"created": "2024-01-02T03:04:05.678Z", "created_by": f"/bin/sh -c #(nop) ADD file:{64 * 'a'} in / "},
        {"created": "2024-01-02T03:05:05Z", "created_by": '/bin/sh -c #(nop)  CMD ["bash"]', "empty_layer": True},
        {"created_by": "RUN\ta b\nc", "comment": "a comment that goes on and on and on and on and on and on and on"},
        {"created": "2024-02-02T03:05:05Z", "empty_layer": True, "author": "me"},
    ]
    layers = [engine_fixtures.layer({"a": 1500 * b"1"}), engine_fixtures.layer({"b": b"1"})]
    told = {"created": "2024-01-02T03:04:05Z", "history": history, "config": {}}
    return {**engine_fixtures.images(), "told:latest": (told, layers)}


@pytest.fixture
def sides(docker: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[str], Path]]:
    """docker's words, and the archive; both engines have its images and nothing else."""
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "store"))
    archive = tmp_path / "images.tar"
    archive.write_bytes(engine_fixtures.archive(images()))
    tree = {
        "bin": 0o755,
        "bin/busybox": Path(engine_fixtures.BUSYBOX).read_bytes(),
        "bin/cat": "busybox",
        "hello": b"hi\n",
    }
    Path(f"{archive}.tree").write_bytes(engine_fixtures.layer(tree, modes={"bin/busybox": 0o755}))
    for engine in (docker, OURS):
        clear(engine)
        subprocess.run([*engine, "load", "-q", "-i", archive], check=True, capture_output=True)
    yield docker, archive
    for engine in (docker, OURS):
        clear(engine)
    minicontainer("system", "reset", "--force")


def clear(engine: list[str]) -> None:
    """No container, no image, no volume, no network of its own and no build cache is left."""
    for words, remove in ((["ps", "-aq"], ["rm", "-f", "-v"]), (["images", "-q"], ["rmi", "-f"])):
        left = subprocess.run([*engine, *words], capture_output=True, text=True).stdout.split()
        if left:
            subprocess.run([*engine, *remove, *dict.fromkeys(left)], capture_output=True)
    volumes = subprocess.run([*engine, "volume", "ls", "-q"], capture_output=True, text=True).stdout.split()
    if volumes:
        subprocess.run([*engine, "volume", "rm", "-f", *volumes], capture_output=True)
    subprocess.run([*engine, "network", "prune", "-f"], check=True, capture_output=True)
    subprocess.run([*engine, "builder", "prune", "-af"], check=True, capture_output=True)


def test_the_transcripts_are_the_same(sides: tuple[list[str], Path]) -> None:
    docker, archive = sides
    demo = subprocess.run([*docker, "images", "-q", "demo"], capture_output=True, text=True).stdout.strip()
    different = []
    for line in TRANSCRIPT:
        words = [
            {"DEMO": demo, "ARCHIVE": str(archive), "OUT": f"{archive}.out", "TREE": f"{archive}.tree"}.get(word, word)
            for word in line.split()
        ]
        words = [word.replace("\\x20", " ") for word in words]
        theirs, ours = typed(docker, words), typed(OURS, words)
        if words[0] in ("images", "image", "system"):  # in which order is nobody's promise
            theirs, ours = ((code, "".join(sorted(text.splitlines(True))), said) for code, text, said in (theirs, ours))
        if theirs != ours:
            different.append((line, theirs, ours))
    assert not different, "\n".join(f"{line}\n  {theirs}\n  {ours}" for line, theirs, ours in different)


EVENTS = r"""
load -q -i ARCHIVE
load -q -i ARCHIVE
tag demo mine
tag demo mine
save -o OUT demo plain
save -o OUT told
import TREE made:1
import TREE
create --name web plain true
commit -m why web com:1
commit web
rm web
tag plain demo
rmi foreign
rmi nosuch
rmi com:1
image prune -f
rmi -f demo plain
image prune -a -f
load -q -i ARCHIVE
load -q -i OUT
tag demo demo:2
rmi -f DEMO
run -d --name web --network none plain sleep 100
rmi -f plain
rm -f web
create --name web demo true
container prune -f
volume create kept
volume prune -f
network create idle
network prune -f
""".strip().splitlines()


def test_events_of_images_are_the_same(sides: tuple[list[str], Path]) -> None:
    """Those of push and pull, too, to a registry where both meet; of networks and volumes ours tells prunes alone."""
    docker, archive = sides
    paths = {"ARCHIVE": str(archive), "OUT": f"{archive}.out", "TREE": f"{archive}.tree"}
    told = []
    with Real(archive.parent / "registry", words=tuple(peers.own_network())) as real:
        name = f"{real.host}/plain:1"
        going_round = [f"tag plain {name}", f"push -q {name}", f"rmi {name}", f"pull -q {name}", f"pull -q {name}"]
        for engine in (docker, [*peers.own_network(), *OURS]):
            began = time.time()
            demo = subprocess.run([*engine, "images", "-q", "demo"], capture_output=True, text=True).stdout.strip()
            for line in [*going_round, f"rmi {name}", *EVENTS]:
                words = [demo if word == "DEMO" else paths.get(word, word) for word in line.split()]
                subprocess.run([*engine, *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
            asked = ["events", "--since", str(began), "--until", str(time.time())]
            told.append([
                shown(typed(engine, [*asked, "-f", "type=image", "-f", "type=container"])[1]),
                shown(typed(engine, [*asked, "-f", "image=demo"])[1]),
                shown(typed(engine, [*asked, "-f", "image=mine:latest"])[1]),
                shown(typed(engine, [*asked, "-f", "event=prune"])[1]),
                shown(typed(engine, [*asked, "-f", "label=made", "-f", "event=tag"])[1]),
            ])  # fmt: skip
    assert "\n".join(told[1][0]) == "\n".join(told[0][0])
    assert told[0] == told[1]


def shown(events: str) -> list[str]:
    """The events without their times. What one save or prune names comes in docker's order of the day; bytes vary."""
    lines = [re.sub(r"reclaimed=\d+", "reclaimed=", line.partition(" ")[2]) for line in events.splitlines()]
    at = [place for place, line in enumerate(lines) if " prune " in line]
    for begin, end in zip([0, *at], at, strict=False):
        others = (place for place in range(end, begin, -1) if not re.search(" (untag|delete) ", lines[place - 1]))
        first = next(others, begin)
        lines[first:end] = sorted(lines[first:end])
    runs = (list(run) for _, run in itertools.groupby(lines, lambda line: line.split()[:2]))
    return [line for run in runs for line in (sorted(run) if run[0].startswith("image save ") else run)]


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("form", ["docker-archive", "oci"])
def test_others_read_what_we_save(sides: tuple[list[str], Path], podman: list[str], tmp_path: Path, form: str) -> None:
    docker, _ = sides
    out = tmp_path / "out.tar"
    minicontainer("save", "--format", form, "-o", str(out), "demo", *(["plain"] if form == "docker-archive" else []))
    said = ["run", "--rm", "--network", "none", "demo", "cat", "/opt/plain"]
    identifier = minicontainer("images", "-q", "--no-trunc", "demo").stdout.strip()
    skopeo = ["skopeo", "inspect", "--config"]
    if form == "docker-archive":
        clear(docker)
        loaded = subprocess.run([*docker, "load", "-i", out], capture_output=True, text=True, check=True).stdout
        assert "Loaded image: demo:latest" in loaded and "Loaded image: plain:latest" in loaded
        assert subprocess.run([*docker, *said], capture_output=True).stdout == b"nobody may execute this\n"
        shown = subprocess.run([*docker, "images", "-q", "--no-trunc", "demo"], capture_output=True, text=True).stdout
        assert shown.strip() == identifier
        subprocess.run([*skopeo, f"docker-archive:{out}:demo:latest"], check=True, capture_output=True)
    else:
        subprocess.run([*skopeo, f"oci-archive:{out}:demo:latest"], check=True, capture_output=True)
    subprocess.run([*podman, "load", "-i", out], capture_output=True, check=True)
    done = subprocess.run([*podman, *said], capture_output=True)
    assert done.stdout == b"nobody may execute this\n", done
    subprocess.run([*podman, "rmi", "-af"], capture_output=True)
