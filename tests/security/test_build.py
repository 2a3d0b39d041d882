"""What a step of a build may try: targets and caches that turn into links, secrets, hostile stages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tests.conftest import minicontainer
from tests.yard import Yard, fresh_yard  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.needs("overlay", "libseccomp")]


def test_cve_2024_23652_what_was_made_for_a_mount_goes_through_no_link(yard: Yard, tmp_path: Path) -> None:
    """The empty places that mounts stood on are taken away after the step: not through a link put in their way."""
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "empty").write_text("")
    step = (
        "FROM plain\nRUN --mount=type=tmpfs,target=/a/sub --mount=type=secret,id=s,target=/b/empty "
        f"umount /a/sub /b/empty 2>/dev/null; mv /a /a2 && ln -s {victim} /a; mv /b /b2 && ln -s {victim} /b; "
        f"ln -s {victim} /c; ls -d /a2 /b2\n"
    )
    (tmp_path / "s").write_text("x")
    yard.build(step, "--secret", f"id=s,src={tmp_path}/s")
    assert sorted(os.listdir(victim)) == ["empty", "sub"]
    yard.build(
        f"FROM plain\nRUN rm -rf /tmp; ln -s {victim} /tmp\nRUN --mount=type=tmpfs,target=/tmp/sub true\n", code=1
    )
    assert sorted(os.listdir(victim)) == ["empty", "sub"]


def test_cve_2024_23651_a_cache_that_another_step_swaps_meanwhile(yard: Yard, tmp_path: Path) -> None:
    """Two steps side by side: the one turns what the other mounts a part of into a link to the host's, over and over.

    A mount that had gone astray would not be in the step's own tree.
    """
    victim = tmp_path / "victim"
    victim.mkdir()
    turn = "RUN --mount=type=cache,target=/c,id=race mkdir -p /c/d; i=0; while [ $i -lt 300 ]; do "
    turn += f"mv /c/d /c/old; ln -s {victim} /c/d; rm /c/d; mv /c/old /c/d; i=$((i+1)); done\n"
    here = f"{victim}|/c/d|/c/old"  # a mount goes with its directory
    look = "".join(
        "RUN --mount=type=cache,target=/c,id=race --mount=type=tmpfs,target=/c/d "
        f"grep ' - tmpfs' /proc/self/mountinfo | grep -qE ' ({here}) ' && echo fine-{number} || echo astray-{number}\n"
        for number in range(4)
    )
    last = "FROM plain\nCOPY --from=a /etc/group /1\nCOPY --from=b /etc/group /2\n"
    (yard.context / "Dockerfile").write_text(f"FROM plain AS a\n{turn}FROM plain AS b\n{look}{last}")
    words = ("build", "--network", "none", "--no-cache", "--progress", "json", str(yard.context))
    fine = 0
    for _ in range(5):
        done = minicontainer(*words, check=False)  # some order may make a mount fail
        said = [json.loads(line).get("data", "") for line in done.stdout.splitlines()]
        assert not [line for line in said if line.startswith("astray-")]
        fine += sum(line.startswith("fine-") for line in said)
        assert os.listdir(victim) == []
        if fine > 4:
            break
    assert fine
    assert yard.containers() == []


def holding(text: str, *places: Path) -> list[str]:
    """The files below these places that have this text in them, or in their names."""
    command = ["grep", "-rlaF", "-D", "skip", "--", text, *map(str, places)]
    found = [command, ["find", *map(str, places), "-name", f"*{text}*"]]
    return [line for one in found for line in subprocess.run(one, capture_output=True, text=True).stdout.splitlines()]


def test_a_secret_in_a_variable_is_in_nobodys_sight(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the step runs: not in command lines, nor in any file of the store's; nor if all is killed then."""
    monkeypatch.setenv("TOKEN", "geheim-19")
    (yard.context / "Dockerfile").write_text(
        "FROM plain\nRUN --mount=type=secret,id=t,env=TOKEN --mount=type=secret,id=t "
        "[ $TOKEN = geheim-1$((4+5)) ] && echo now; sleep 30\n"
    )
    words = [sys.executable, "-m", "minicontainer", "build", "--network", "none", "--progress", "json"]
    words += ["--secret", "id=t,env=TOKEN", str(yard.context)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        while '"data": "now' not in client.stdout.readline():
            pass
        for process in Path("/proc").glob("[0-9]*"):
            try:
                assert b"geheim-19" not in (process / "cmdline").read_bytes()
            except OSError:
                continue
        assert holding("geheim-19", yard.root) == [] and holding("TOKEN", yard.root) != []
        (identifier,) = yard.containers()
        assert "geheim-19" not in minicontainer("inspect", identifier).stdout
        client.kill()
    assert holding("geheim-19", yard.root) == []
    yard.build("FROM plain\n")
    assert yard.containers() == []


def test_a_secret_in_a_file_is_in_nobodys_sight(yard: Yard, tmp_path: Path) -> None:
    """Nor is anything of it left where all are killed, without another build that sweeps."""
    (tmp_path / "secret").write_text("geheim-20")
    (yard.context / "Dockerfile").write_text(
        "FROM plain\nRUN --mount=type=secret,id=f [ $(cat /run/secrets/f) = geheim-$((4*5)) ] && echo now; sleep 300\n"
    )
    words = [sys.executable, "-m", "minicontainer", "build", "--network", "none", "--progress", "json"]
    words += ["--secret", f"id=f,src={tmp_path}/secret", str(yard.context)]

    def places() -> list[Path]:
        """Where there may be something of ours."""
        return [yard.root, *Path("/run").glob("minicontainer*"), *Path("/dev/shm").glob("minicontainer*")]  # noqa: S108

    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert any('"data": "now' in line for line in client.stdout)
        assert holding("geheim-20", *places()) == []
        (identifier,) = yard.containers()
        client.kill()
    minicontainer("kill", identifier)
    minicontainer("wait", identifier)
    assert holding("geheim-20", *places()) == []
    assert str(yard.root) not in Path("/proc/self/mountinfo").read_text()
    yard.build("FROM plain\n")
    assert yard.containers() == []


def test_a_networks_resolver_that_a_build_starts_sees_no_secret(yard: Yard, tmp_path: Path) -> None:
    """It goes on when the build has ended, or was killed."""
    (tmp_path / "secret").write_text("geheim-20")
    minicontainer("network", "create", "backend")
    (yard.context / "Dockerfile").write_text(
        "FROM plain\nRUN --mount=type=secret,id=f nslookup nobody; echo now; sleep 300\n"
    )
    words = [sys.executable, "-m", "minicontainer", "build", "--network", "backend", "--progress", "json"]
    words += ["--secret", f"id=f,src={tmp_path}/secret", str(yard.context)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert any('"data": "now' in line for line in client.stdout)
        (identifier,) = yard.containers()
        (resolver,) = leftovers.resolvers(yard.root)
        seen = Path(f"/proc/{resolver}/mountinfo").read_text()
        client.kill()
    minicontainer("kill", identifier)
    assert f"{yard.root}/build/memory" not in seen
    yard.build("FROM plain\n")
    minicontainer("network", "rm", "backend")


@pytest.mark.parametrize("code", [0, 3])
def test_a_secret_is_nowhere_after_a_build(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Whether it ends well or not: by the same look what a step has written is found, and no secret."""
    secrets = [f"geheim-{os.urandom(8).hex()}" for _ in range(3)]
    (tmp_path / "file").write_text("\n".join(secrets[:2]))
    monkeypatch.setenv("TOKEN", secrets[2])
    cache = tmp_path / "cache"
    text = (
        "FROM plain\nLABEL control=offen-0\nRUN --mount=type=secret,id=f --mount=type=secret,id=t,env=TOKEN,target=/t "
        "cat /run/secrets/f /t >/dev/null; [ ${#TOKEN} = 23 ] && printf offen-%d 1 >/tmp/control\n"
        f"RUN --mount=type=secret,id=t,env=TOKEN [ ${{#TOKEN}} = 23 ] && exit {code}\n"
    )
    words = ["--secret", f"id=f,src={tmp_path}/file", "--secret", "id=t,env=TOKEN", "--why"]
    done = yard.build(text, *words, "--cache-to", f"type=local,dest={cache}", code=min(code, 1))
    said = done.stdout + done.stderr
    for command in ("builder du --verbose", "events --since 1 --until 0s", "system df -v"):
        said += minicontainer(*command.split()).stdout
    if code == 0:
        minicontainer("run", "--name", "cc", "--network", "none", "app", "env")
        said += minicontainer("logs", "cc").stdout + minicontainer("inspect", "cc", "app").stdout
        said += minicontainer("history", "--no-trunc", "app").stdout
        minicontainer("save", "-o", str(cache / "saved.tar"), "app")
        assert "offen-0" in said and holding("offen-0", cache) and holding("offen-1", cache)
    run = list(Path("/run").glob("minicontainer*"))
    assert holding("offen-1", yard.root) != []
    for secret in secrets:
        assert secret not in said
        assert holding(secret, yard.root, *run, *([cache] if cache.exists() else [])) == []
