"""`doctor`: it says the truth about this host, says it readably, and changes nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minicontainer import host, syscalls
from minicontainer.cli import doctor
from minicontainer.engine import bootstrap, userns
from minicontainer.host import Fact
from minicontainer.kernel import idmap, overlay
from minicontainer.teach import lab
from tests.conftest import minicontainer, missing


def facts(**environment: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the facts by name."""
    done = subprocess.run(
        [sys.executable, "-m", "minicontainer", "doctor", "--json"],
        capture_output=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert not done.stderr, done.stderr
    said = json.loads(done.stdout)
    assert said["ready"] == (done.returncode == 0)
    return done.returncode, {fact["name"]: fact for fact in said["facts"]}


def test_every_fact_is_one_line_and_every_missing_one_has_a_mend() -> None:
    code, found = facts()
    assert code == int(any(fact["state"] == "missing" for fact in found.values()))
    for fact in found.values():
        assert fact["state"] in ("ok", "missing", "warn")
        assert fact["said"] and "\n" not in fact["said"] + fact["mend"], fact
        assert fact["mend"] or fact["state"] != "missing", fact
        assert not (fact["mend"] and fact["state"] == "ok"), fact


@pytest.mark.parametrize(
    ("fact", "feature"),
    [("overlay", "overlay"), ("nf_tables", "nftables"), ("macvlan", "macvlan"), ("ipvlan", "ipvlan"),
     ("libseccomp", "libseccomp"), ("idmapped mounts", "idmapped-overlay")],
)  # fmt: skip
@pytest.mark.root
def test_it_agrees_with_what_unshare_and_mount_say(fact: str, feature: str) -> None:
    """tests/conftest.py asks by other programs."""
    assert (facts()[1][fact]["state"] == "ok") == (missing(feature) is None)


@pytest.mark.root
@pytest.mark.needs("ip", "nft")
def test_it_changes_nothing(tmp_path: Path) -> None:
    """In a network namespace of its own, where nobody else's bridges come and go meanwhile."""
    state = "ip -o link; nft list ruleset; cat /proc/self/mountinfo /proc/sys/net/ipv4/ip_forward; ls /run"
    script = f'before=$({state}); {sys.executable} -m minicontainer doctor >/dev/null; test "$before" = "$({state})"'
    store = tmp_path / "deep" / "store"
    environment = {**os.environ, "MINICONTAINER_ROOT": str(store)}
    done = subprocess.run(
        ["unshare", "-nm", "sh", "-c", f"mount -t tmpfs t /run && {script}"],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not store.parent.exists()


@pytest.mark.root
def test_a_file_system_in_whose_mounts_no_ids_are_translated(tmp_path: Path) -> None:
    """ramfs, as good as any without FS_ALLOW_IDMAP: a file system for the store is missing, and nothing else."""
    script = f"mount -t ramfs r {tmp_path} && exec {sys.executable} -m minicontainer doctor --json"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        capture_output=True, text=True, env={**os.environ, "MINICONTAINER_ROOT": f"{tmp_path}/deep/store"},
    )  # fmt: skip
    [fact] = [fact for fact in json.loads(done.stdout)["facts"] if fact["name"] == "idmapped mounts"]
    assert fact["state"] == "warn" and f"a mount of {tmp_path}:" in fact["said"]
    assert fact["mend"] == (
        "export MINICONTAINER_ROOT=/a/folder/on/ext4" if idmap.translates() else "boot Linux 5.19 or newer"
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.userns
@pytest.mark.needs("user-namespace")
def test_an_ordinary_user_is_told_what_to_type(tmp_path: Path) -> None:
    code, found = facts(HOME=str(tmp_path))
    assert code == 1
    assert found["privilege"]["state"] == "missing"
    assert "unshare -Ur" in found["privilege"]["mend"]
    assert "root of the machine" in found["idmapped mounts"]["said"] and "ids to lease" not in found
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-m", "minicontainer", "doctor", "--json"],
        capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    inside = {fact["name"]: fact for fact in json.loads(done.stdout)["facts"]}
    assert inside["privilege"]["state"] == "ok", done.stdout
    assert inside["overlay"]["state"] == ("ok" if missing("user-overlay") is None else "missing")


# ------------------------------------------------------------------------------------------ hosts that are not this one


@pytest.mark.parametrize(
    ("name", "value", "better"),
    [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
    ],
)
def test_the_three_ways_to_forbid_user_namespaces(
    name: str, value: str, better: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "sysctl", lambda asked: value if asked == name else "")
    fact = host.user_namespaces_fact()
    assert (fact.state, fact.mend) == ("warn", f"sudo sysctl -w {name}={better}")


@pytest.mark.parametrize(
    ("release", "state"),
    [("5.10.0-21-amd64", "missing"), ("5.11.0", "ok"), ("6.1.0-13-amd64", "ok"), ("4.18", "missing")],
)
def test_the_kernels_age(release: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((real[0], real[1], release, *real[3:])))
    assert host.kernel_fact().state == state


@pytest.mark.parametrize(
    ("subuid", "subgid", "state", "said"),
    [
        ("", "", "ok", "4096 containers, from 1879048192 on; others by a line containers:"),
        ("anna:100000:65536\n", "anna:100000:65536\n", "ok", "from 1879048192 on; others"),
        (
            "containers:500000:200000\n",
            "containers:500000:140000\n",
            "ok",
            "2 containers, from 500000 on, as /etc/subuid",
        ),
        ("containers:500000:65536\n", "", "warn", "no 65536 ids in common for `containers`"),
        ("containers:500000:65535\n", "containers:500000:65536\n", "warn", "no 65536 ids in common"),
    ],
)
def test_the_ids_that_userns_auto_has_to_give(
    subuid: str, subgid: str, state: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be typed where there are too few is what mends it."""
    texts = {"/etc/subuid": subuid, "/etc/subgid": subgid}
    monkeypatch.setattr(idmap, "text_of", texts.get)
    fact = doctor.ids_to_lease()
    assert fact.state == state and said in fact.said
    assert bool(fact.mend) == (state == "warn")
    if fact.mend:
        line = re.fullmatch(r"echo (\S+) \| sudo tee -a /etc/subuid /etc/subgid", fact.mend)
        assert line
        for path in texts:
            texts[path] += f"{line[1]}\n"
        assert doctor.ids_to_lease().state == "ok"


def test_a_kernel_too_old_for_idmapped_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "is_root", lambda: True)
    monkeypatch.setattr(userns, "obstacle", lambda directory: overlay.TOO_OLD)
    fact = next(iter(doctor.own_ids()))
    assert (fact.state, fact.mend) == ("warn", "boot Linux 5.19 or newer") and "--userns auto" in fact.said


@pytest.mark.parametrize(
    ("mounted", "state", "word"),
    [
        (("/", "ext4", "rw,relatime"), "ok", "ext4"),
        (("/", "overlay", "rw"), "missing", "overlay on an overlay"),
        (("/", "nfs4", "rw"), "missing", "xattrs"),
        (("/", "fuse.sshfs", "rw"), "missing", "whiteouts"),
        (("/", "ext4", "rw,nosuid,nodev"), "warn", "nodev, nosuid"),
        (("/", "ext4", "ro"), "missing", "ro"),
    ],
)
def test_where_layers_can_live(
    mounted: tuple[str, str, str], state: str, word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr(host, "mount_of", lambda path: mounted)
    fact = host.store_facts()[0]
    assert fact.state == state
    assert word.replace("overlay on an overlay", "an overlay") in fact.said
    assert not (tmp_path / "not").exists()


def test_the_mount_that_a_path_is_on() -> None:
    """As findmnt(8) sees it."""
    for path in ("/proc/self/status", "/sys/kernel", "/usr/bin", "/dev/null"):
        done = subprocess.run(["findmnt", "-n", "-o", "TARGET,FSTYPE", "-T", path], capture_output=True, text=True)
        if done.returncode == 0:
            assert list(host.mount_of(path)[:2]) == done.stdout.split(), path
    assert host.mount_of("/proc/self/no/such/file")[1] == "proc"


def test_a_probe_says_why_and_is_seen_by_nobody() -> None:
    before = os.stat("/proc/self/ns/net").st_ino
    assert host.probe(lambda: None) == ""
    assert host.probe(lambda: os.mkdir("/proc/nothing")) != ""
    assert "division" in host.probe(lambda: 1 // 0)
    assert host.probe(lambda: os.kill(os.getpid(), 9)) == "the probe was killed (wait status 9)"
    assert os.stat("/proc/self/ns/net").st_ino == before


@pytest.mark.root
def test_a_probe_has_namespaces_of_its_own() -> None:
    before = os.stat("/proc/self/ns/net").st_ino

    def same() -> None:
        if os.stat("/proc/self/ns/net").st_ino != before:
            raise OSError("elsewhere")

    assert host.probe(same) == ""
    assert host.probe(same, syscalls.CLONE_NEWNET) == "elsewhere"


def test_programs_that_need_libraries_are_told_from_those_that_do_not(tmp_path: Path) -> None:
    assert doctor.is_dynamic(os.path.realpath(str(shutil.which("ls"))))
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert doctor.is_dynamic(str(tmp_path / "script"))
    if missing("busybox") is None:
        linked = subprocess.run(["ldd", str(shutil.which("busybox"))], capture_output=True, text=True)
        assert doctor.is_dynamic(str(shutil.which("busybox"))) == (linked.returncode == 0)


def test_a_debian_needs_debians_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/env")
    for made, state in ((False, "warn"), (True, "ok")):
        if made:
            (tmp_path / "keyring").touch()
        monkeypatch.setattr(bootstrap, "KEYRING", str(tmp_path / "keyring"))
        [fact] = [fact for fact in doctor.image_programs() if fact.name == "debootstrap"]
        assert fact.state == state and ("debian-archive-keyring" in fact.mend) is not made


def test_it_reads_well() -> None:
    groups = [
        ("the first", [Fact("kernel", "ok", "Linux 6.1"), Fact("overlay", "missing", "none", "sudo modprobe overlay")]),
        ("the second", [Fact("tini", "warn", "not installed", "sudo apt-get install tini")]),
    ]
    assert doctor.shown(groups, colour=False).splitlines() == [
        "the first:",
        "  ok       kernel   Linux 6.1",
        "  missing  overlay  none",
        "                    → sudo modprobe overlay",
        "",
        "the second:",
        "  warn     tini     not installed",
        "                    → sudo apt-get install tini",
        "",
        "Not ready yet, for want of: overlay. The lines with → mend it.",
    ]
    assert doctor.shown(groups[1:], colour=False).splitlines()[-1] == (
        "Ready: `run` will work. 1 thing could be better, see →."
    )
    kernel = [("the network", [Fact("ipvlan", "warn", "this kernel was built without")])]
    assert doctor.shown(kernel, colour=False).endswith("1 thing could be better, which nothing here mends.")
    assert "\x1b[31mmissing\x1b[0m" in doctor.shown(groups, colour=True)


def test_every_lab_is_spoken_of() -> None:
    """In one line or another: it can be checked whole, or not every test of it, with the mend."""
    lines = [line for line in minicontainer("doctor", check=False).stdout.splitlines() if " labs " in line]
    told = {word for line in lines for word in re.findall(r"\b\d\d\b", line)}
    assert told == {one.number for one in lab.every()}
