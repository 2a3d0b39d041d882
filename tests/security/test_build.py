"""What a step of a build may try: targets and caches that turn into links, secrets, hostile stages."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_cve_2024_23651_a_cache_that_another_step_swaps_meanwhile(yard: Yard) -> None:
    """Two steps side by side: the one turns what the other mounts a part of into a link, over and over."""
    turn = "RUN --mount=type=cache,target=/c,id=race i=0; while [ $i -lt 60 ]; do mkdir -p /c/d; rm -rf /c/d; "
    turn += "ln -s / /c/d; rm -rf /c/d; i=$((i+1)); done\n"
    look = "".join(
        f"RUN --mount=type=cache,target=/c,id=race --mount=type=tmpfs,target=/c/d echo {number} >/c/d/mark\n"
        for number in range(3)
    )
    last = "FROM plain\nCOPY --from=a /etc/group /1\nCOPY --from=b /etc/group /2\n"
    (yard.context / "Dockerfile").write_text(f"FROM plain AS a\n{turn}FROM plain AS b\n{look}{last}")
    minicontainer("build", "--network", "none", str(yard.context), check=False)  # some order may make a mount fail
    assert not Path("/mark").exists()
    assert yard.containers() == []


def test_a_secret_in_a_variable_is_in_nobodys_sight(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the step runs: not in command lines nor in what others may read; afterwards nowhere in the store."""
    monkeypatch.setenv("TOKEN", "geheim-19")
    (yard.context / "Dockerfile").write_text(
        "FROM plain\nRUN --mount=type=secret,id=t,env=TOKEN --mount=type=secret,id=t echo now; sleep 2\n"
    )
    words = [
        "build",
        "-t",
        "app",
        "--network",
        "none",
        "--progress",
        "json",
        "--secret",
        "id=t,env=TOKEN",
        "--no-cache",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "minicontainer", *words, str(yard.context)], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        while '"data": "now' not in client.stdout.readline():
            pass
        for process in Path("/proc").glob("[0-9]*"):
            try:
                assert b"geheim-19" not in (process / "cmdline").read_bytes()
            except OSError:
                continue
        found = subprocess.run(["grep", "-rl", "geheim-19", yard.root], capture_output=True, text=True).stdout.split()
        assert all(Path(path).is_relative_to(yard.root / "containers") for path in found)
        for path in found:  # the container's own config, which root alone may read
            with contextlib.suppress(FileNotFoundError):  # the step is over meanwhile
                assert os.stat(Path(path).parent).st_mode & 0o77 == 0
        client.communicate(timeout=30)
        assert client.returncode == 0
    assert subprocess.run(["grep", "-rl", "geheim-19", yard.root], capture_output=True, text=True).stdout == ""
    assert "geheim" not in json.dumps(yard.image().config)
