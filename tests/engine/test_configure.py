"""From docker's options to an OCI config. Pure: nothing is started, no privilege is needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, host
from minicontainer.engine import configure, containers, users, volumes

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(autouse=True)
def as_root_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same config whoever runs the tests."""
    monkeypatch.setattr(host, "in_user_namespace", lambda: False)
    monkeypatch.setattr(host, "forbids_setgroups", lambda *_: False)
    monkeypatch.setenv("MINICONTAINER_ROOT", host.DEFAULT_ROOT)


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[list[str]]:
    """Two layers; the upper one replaces the lower one's group file."""
    for name, passwd, group in (
        ("lower", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n", "root:x:0:\nold:x:5:user\n"),
        ("upper", None, "root:x:0:\nuser:x:1000:\nnew:x:6:user,root\n"),
    ):
        (tmp_path / name / "etc").mkdir(parents=True)
        if passwd:
            (tmp_path / name / "etc/passwd").write_text(passwd)
        (tmp_path / name / "etc/group").write_text(group)
    yield [str(tmp_path / "lower"), str(tmp_path / "upper")]


def config(
    image: dict[str, Any] | None = None,
    layers: list[str] | None = None,
    joined: dict[str, int] | None = None,
    **given: Any,
) -> dict[str, Any]:
    """The config for these options, on an image with these defaults."""
    options = {**configure.DEFAULTS, "hostname": "h", "command": ["true"], **given}
    whole = {"architecture": "amd64", "config": image or {}}
    mounts = options["mounts"]
    return configure.config(options, whole, layers or [], "/c/id", mounts, lambda name: f"/v/{name}", joined or {})


@pytest.mark.parametrize(("text", "size"), [
    ("10m", 10**7), ("1.5k", 1500), ("7", 7), ("7b", 7), ("2GB", 2 * 10**9), ("-1", 0), ("0", 0),
])  # fmt: skip
def test_a_log_s_size_is_a_size_like_any_other_in_thousands(text: str, size: int) -> None:
    given = {"type": "json-file", "config": {"max-size": text}}
    assert containers.log_options(given, {"Labels": {}, "Env": []})["max_size"] == size
    assert configure.bytes_of("1.5k") == 1536


@pytest.mark.parametrize("text", ["", "m", "-5m", "5x", "5 m", "1e999"])
def test_what_is_no_size_of_a_log_is_refused(text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="max-size"):
        containers.log_options({"config": {"max-size": text}}, {"Labels": {}, "Env": []})


def mount_at(result: dict[str, Any], destination: str) -> dict[str, Any]:
    """The only mount at that place."""
    (found,) = [mount for mount in result["mounts"] if mount["destination"] == destination]
    return dict(found)


@pytest.mark.parametrize(
    ("image", "given", "args"),
    [
        ({"Cmd": ["a"]}, {"command": []}, ["a"]),
        ({"Cmd": ["a"]}, {"command": ["b"]}, ["b"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"command": []}, ["e", "a"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"command": ["b", "c"]}, ["e", "b", "c"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"command": [], "entrypoint": "f"}, ["f"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"command": ["b"], "entrypoint": "f"}, ["f", "b"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"command": ["b"], "entrypoint": ""}, ["b"]),
        ({"Entrypoint": None, "Cmd": None}, {"command": ["b"]}, ["b"]),
    ],
)
def test_entrypoint_and_command(image: dict[str, Any], given: dict[str, Any], args: list[str]) -> None:
    assert config(image, **given)["process"]["args"] == args


def test_no_command() -> None:
    with pytest.raises(errors.InvalidArgument, match="no command"):
        config({"Cmd": ["a"]}, command=[], entrypoint="")


def test_environment() -> None:
    image = {"Env": ["A=image", "B=image", "PATH=/bin"]}
    assert config(image)["process"]["env"] == ["PATH=/bin", "HOSTNAME=h", "HOME=/", "A=image", "B=image"]
    env = config(image, environment={"B": "ours", "A": None, "C": "x=y"}, tty=True)["process"]["env"]
    assert env == ["PATH=/bin", "HOSTNAME=h", "TERM=xterm", "HOME=/", "B=ours", "C=x=y"]
    assert config()["process"]["env"][0] == PATH


def test_working_directory() -> None:
    assert config({})["process"]["cwd"] == "/"
    assert config({"WorkingDir": "/srv/"})["process"]["cwd"] == "/srv"
    assert config({"WorkingDir": "/srv"}, working_dir="/a/../b")["process"]["cwd"] == "/b"


def test_namespaces() -> None:
    kinds = ["mount", "uts", "ipc", "pid", "network", "cgroup"]
    assert [space["type"] for space in config()["linux"]["namespaces"]] == kinds
    assert "pid" not in [space["type"] for space in config(pid_mode="host")["linux"]["namespaces"]]
    spaces = config(network_mode="container:x", joined={"network": 77})["linux"]["namespaces"]
    assert {"type": "network", "path": "/proc/77/ns/net"} in spaces
    without = config(network_mode="host", ipc_mode="host", uts_mode="host", pid_mode="host")
    assert [space["type"] for space in without["linux"]["namespaces"]] == ["mount", "cgroup"]
    assert without["hostname"] == ""


def test_resources() -> None:
    assert configure.resources(configure.DEFAULTS) == {}
    given = {
        "cpus": 0.5,
        "cpu_shares": 512,
        "cpuset_cpus": "0",
        "mem_limit": 64,
        "pids_limit": 9,
        "mem_reservation": 32,
    }
    assert configure.resources({**configure.DEFAULTS, **given}) == {
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 512, "cpus": "0"},
        "memory": {"limit": 64, "swap": 128, "reservation": 32},
        "pids": {"limit": 9},
    }
    assert configure.resources({**configure.DEFAULTS, "mem_limit": 64, "memswap_limit": -1})["memory"]["swap"] == -1
    assert configure.resources({**configure.DEFAULTS, "cpu_quota": 5, "cpu_period": 9})["cpu"] == {
        "quota": 5,
        "period": 9,
    }


@pytest.mark.parametrize("text", ["x", "1-", "-1", "1,,2", "2-x", "", "0-99999999"])
def test_no_list_of_numbers(text: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        configure.numbers_of(text)


def test_lists_of_numbers() -> None:
    assert configure.numbers_of("0-2,4,7-8") == {0, 1, 2, 4, 7, 8}


@pytest.mark.parametrize(
    "name", ["kernel.panic", "vm.swappiness", "fs.file-max", "kernel.hostname", "network.x", "net"]
)
def test_a_parameter_of_the_whole_machine(name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=name):
        config(sysctls={name: "1"})


def test_parameters_of_namespaces() -> None:
    wanted = {"net.ipv4.ip_forward": "1", "kernel.sem": "1 2 3 4", "fs.mqueue.msg_max": "9", "kernel.domainname": "d"}
    assert config(sysctls=wanted)["linux"]["sysctl"] == wanted
    for name, mode in (
        ("net.core.somaxconn", {"network_mode": "host"}),
        ("kernel.shmmax", {"ipc_mode": "host"}),
        ("kernel.domainname", {"uts_mode": "host"}),
    ):
        with pytest.raises(errors.InvalidArgument, match=name):
            config(sysctls={name: "1"}, **mode)


def test_users_come_from_the_topmost_file(layers: list[str]) -> None:
    process = config({"User": "user"}, layers)["process"]
    assert process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 6]}
    assert "HOME=/home/user" in process["env"]
    assert config({"User": "user"}, layers, user="0:new")["process"]["user"] == {
        "uid": 0,
        "gid": 6,
        "additionalGids": [6],
    }
    assert users.lookup("", ["6", "1000"], layers).groups == [0, 6, 1000]


@pytest.mark.parametrize("user", ["nosuch", "user:nosuch", "-1", "0x0", "user:old"])
def test_users_that_the_image_does_not_have(layers: list[str], user: str) -> None:
    with pytest.raises(errors.NotFound):
        users.lookup(user, [], layers)


@pytest.mark.parametrize("user", ["2147483648", "4294967295", "18446744073709551616", "0:4294967295"])
def test_numbers_that_would_mean_root(layers: list[str], user: str) -> None:
    """setresuid(2) takes -1, which is 4294967295, for "leave it as it is"."""
    with pytest.raises(errors.InvalidArgument):
        users.lookup(user, [], layers)


def test_a_passwd_that_points_out_of_its_layer(tmp_path: Path) -> None:
    """The link is followed as inside of the image: the host's own file is never read."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/etc/../../../../secret")
    (tmp_path / "secret").write_text("inside:x:7:7::/:/bin/sh\n")
    assert users.lookup("inside", [], [str(tmp_path)]).uid == 7
    (tmp_path / "secret").unlink()
    with pytest.raises(errors.NotFound):
        users.lookup("root", [], [str(tmp_path)])


def test_where_setgroups_is_forbidden(layers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the image's file says is left out; what was asked for by name stays, to be refused by name."""
    monkeypatch.setattr(host, "forbids_setgroups", lambda *_: True)
    assert users.lookup("user", [], layers).groups == [1000]
    assert users.lookup("user", ["new"], layers).groups == [1000, 6]


def test_mounts_of_the_user(layers: list[str]) -> None:
    mounts = [
        volumes.Mount("bind", "/host/deep", "/a/b", readonly=True),
        volumes.Mount("volume", "name", "/a"),
        volumes.Mount("tmpfs", "tmpfs", "/t", False, ("nosuid", "size=1m")),
        volumes.Mount("bind", "/host/shm", "/dev/shm"),
    ]
    result = config(mounts=mounts)
    assert mount_at(result, "/a/b") == {
        "destination": "/a/b",
        "type": "bind",
        "source": "/host/deep",
        "options": ["rbind", "ro"],
    }
    assert mount_at(result, "/a")["source"] == "/v/name"
    assert mount_at(result, "/t")["options"] == ["nosuid", "size=1m"]
    assert mount_at(result, "/dev/shm")["source"] == "/host/shm", "the user's own replaces the default one"
    order = [mount["destination"] for mount in result["mounts"]]
    assert order.index("/a") < order.index("/a/b") and order.index("/dev") < order.index("/dev/shm")


def test_files_of_etc() -> None:
    for name in ("hosts", "hostname", "resolv.conf"):
        assert mount_at(config(), f"/etc/{name}")["source"] == f"/c/id/{name}"
        assert "ro" in mount_at(config(read_only=True), f"/etc/{name}")["options"]
    own = volumes.Mount("bind", "/host/hosts", "/etc/hosts")
    assert [m["source"] for m in config(mounts=[own])["mounts"] if m["destination"] == "/etc/hosts"][
        -1
    ] == "/host/hosts"


def test_shared_memory() -> None:
    assert "size=67108864" in mount_at(config(), "/dev/shm")["options"]
    assert "size=4096" in mount_at(config(shm_size=4096), "/dev/shm")["options"]
    assert mount_at(config(ipc_mode="host"), "/dev/shm")["source"] == "/dev/shm"
    assert not [mount for mount in config(ipc_mode="none")["mounts"] if mount["destination"] == "/dev/shm"]


def test_security() -> None:
    result = config()
    granted = result["process"]["capabilities"]
    assert len(granted["bounding"]) == 14 and granted["bounding"] == granted["effective"] == granted["permitted"]
    assert not granted.get("ambient") and not granted.get("inheritable")
    assert result["linux"]["seccomp"] and not result["process"]["noNewPrivileges"]
    assert "/proc/kcore" in result["linux"]["maskedPaths"] and "/proc/sys" in result["linux"]["readonlyPaths"]
    assert {"allow": False, "access": "rwm"}.items() <= result["linux"]["resources"]["devices"][0].items()


def test_less_security() -> None:
    assert config(security_opt=["no-new-privileges"])["process"]["noNewPrivileges"]
    assert config(security_opt=["no-new-privileges:true"])["process"]["noNewPrivileges"]
    assert not config(security_opt=["no-new-privileges=false"])["process"]["noNewPrivileges"]
    assert "seccomp" not in config(security_opt=["seccomp=unconfined"])["linux"]
    assert "seccomp" not in config(security_opt=["seccomp:unconfined"])["linux"]
    assert config(security_opt=["systempaths=unconfined"])["linux"]["maskedPaths"] == []
    assert config(security_opt=["apparmor=one"])["process"]["apparmorProfile"] == "one"
    assert config(security_opt=["apparmor:unconfined"])["process"]["apparmorProfile"] == "unconfined"
    for text in ("nosuch", "seccomp", "apparmor=", "no-new-privileges=maybe"):
        with pytest.raises(errors.InvalidArgument, match="--security-opt"):
            config(security_opt=[text])


def test_privileged() -> None:
    result = config(privileged=True)
    assert len(result["process"]["capabilities"]["bounding"]) > 30
    assert "seccomp" not in result["linux"]
    assert result["linux"]["maskedPaths"] == result["linux"]["readonlyPaths"] == []
    assert result["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "rw" in mount_at(result, "/sys")["options"]
    assert "/dev/null" in [device["path"] for device in result["linux"]["devices"]]
    assert config(privileged=True, security_opt=["seccomp=unconfined"])["linux"].get("seccomp") is None


def test_devices() -> None:
    (device,) = configure.host_devices("/dev/null:/dev/nothing:r")
    assert (device["path"], device["type"], device["major"], device["minor"], device["access"]) == (
        "/dev/nothing",
        "c",
        1,
        3,
        "r",
    )
    assert configure.host_devices("/dev/null")[0]["access"] == "rwm"
    allowed = config(devices=["/dev/full:rw"])["linux"]["resources"]["devices"]
    assert allowed[-1] == {"allow": True, "type": "c", "major": 1, "minor": 7, "access": "rw"}
    for text in ("/dev/nosuch", "/etc/passwd", "null", "/dev/null:/dev/x:q", "/dev/null:/a:/b:rw"):
        with pytest.raises(errors.InvalidArgument, match="--device"):
            configure.host_devices(text)


def test_the_images_architecture_travels_along() -> None:
    assert config()["annotations"] == {"org.opencontainers.image.architecture": "amd64"}
