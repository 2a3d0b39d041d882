"""pull, push, login, logout as they are typed, against Debian's docker-registry: open, with passwords, tokens, TLS."""

import contextlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicontainer import errors, oci
from minicontainer.engine import client, pushing
from minicontainer.image import making, registry, removal
from minicontainer.image.store import Store
from tests.conftest import minicontainer
from tests.engine_fixtures import layer
from tests.registries import Fake, Real, Request, digest

pytestmark = [pytest.mark.root, pytest.mark.needs("docker-registry", "skopeo", "openssl", "busybox", "libseccomp")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with busybox in it, from which skopeo pushes."""
    root = tmp_path_factory.mktemp("source") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINICONTAINER_ROOT", str(root))
        minicontainer("bootstrap", "busybox")
    yield root


@pytest.fixture
def clean(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store and a home that nothing of this machine's is in. Returns where config.json would be."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("REGISTRY_AUTH_FILE", "MINICONTAINER_REGISTRIES", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "docker" / "config.json"


def skopeo(source: Path, target: str, *flags: str) -> None:
    """Push busybox there, compressed with gzip."""
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", *flags, f"oci:{source}:busybox:latest", f"docker://{target}"],
        check=True, capture_output=True,
    )  # fmt: skip


def refused(*arguments: str, stdin: str | None = None) -> str:
    """The one sentence of a command that must fail with 1."""
    done = minicontainer(*arguments, check=False, stdin=stdin)
    assert done.returncode == 1, done
    lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING!")]
    assert len(lines) == 1 and "Errno" not in lines[0], done.stderr
    assert lines[0].startswith("minicontainer: ")
    return lines[0]


def test_pull_says_what_docker_says_and_what_was_pulled_runs(source: Path, clean: Path, tmp_path: Path) -> None:
    with Real(tmp_path / "registry") as real:
        name = f"{real.host}/lib/busybox"
        skopeo(source, f"{name}:latest")
        told = json.loads(subprocess.check_output(["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"]))
        layer = told["Layers"][0][7:19]
        assert minicontainer("pull", name).stdout.splitlines() == [
            "Using default tag: latest", "latest: Pulling from lib/busybox", f"{layer}: Pulling fs layer",
            f"{layer}: Download complete", f"{layer}: Pull complete", f"Digest: {told['Digest']}",
            f"Status: Downloaded newer image for {name}:latest", f"{name}:latest",
        ]  # fmt: skip
        assert minicontainer("pull", f"{name}:latest").stdout.splitlines() == [
            "latest: Pulling from lib/busybox", f"{layer}: Already exists", f"Digest: {told['Digest']}",
            f"Status: Image is up to date for {name}:latest", f"{name}:latest",
        ]  # fmt: skip
        by_digest = f"{name}@{told['Digest']}"
        assert minicontainer("pull", "-q", by_digest).stdout == f"{by_digest}\n"
        skopeo(source, f"{name}:other")
        minicontainer("pull", "-a", name)
        listed = minicontainer("images", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}}").stdout.splitlines()
        assert sorted(listed) == [f"{name}:latest {told['Digest']}", f"{name}:other {told['Digest']}"]
        inspected = json.loads(minicontainer("inspect", name).stdout)[0]
        assert inspected["RepoDigests"] == [by_digest]
    for image in (name, by_digest):
        assert minicontainer("run", "--rm", "--network", "none", image, "echo", "here").stdout == "here\n"
    assert "cannot reach" in refused("pull", name)
    minicontainer("system", "check")


def test_a_pull_in_a_terminal_has_a_line_for_each_layer_which_changes(
    source: Path, clean: Path, tmp_path: Path
) -> None:
    with Real(tmp_path / "registry") as real:
        skopeo(source, f"{real.host}/b:1")
        done = subprocess.run(
            ["script", "-qec", f"stty cols 100; {sys.executable} -m minicontainer pull {real.host}/b:1", "/dev/null"],
            stdin=subprocess.DEVNULL, capture_output=True, check=True,
        )  # fmt: skip
        lines = done.stdout.split(b"\r\n")
        layer = next(line for line in lines if b"Pulling fs layer" in line)
        assert layer.split(b"\r")[-1].endswith(b": Pull complete")
        assert lines[-2].decode() == f"{real.host}/b:1"


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_login_pull_logout(source: Path, clean: Path, tmp_path: Path, auth: str) -> None:
    with Real(tmp_path / "registry", auth=auth) as real:
        name = f"{real.host}/private/busybox:1"
        skopeo(source, name, "--dest-creds=alice:secret")
        assert "pull access denied for private/busybox" in refused("pull", name)
        assert not clean.exists()
        said = refused("login", "-u", "alice", "--password-stdin", real.host, stdin="wrong\n")
        assert f"{real.host} does not accept" in said
        assert not clean.exists()
        done = minicontainer("login", "-u", "alice", "--password-stdin", real.host, stdin="secret\n")
        assert done.stdout == "Login Succeeded\n"
        assert json.loads(clean.read_text()) == {"auths": {real.host: {"auth": "YWxpY2U6c2VjcmV0"}}}
        assert stat.S_IMODE(clean.stat().st_mode) == 0o600
        assert minicontainer("login", real.host).stdout == "Login Succeeded\n"  # by what is remembered
        assert minicontainer("pull", "-q", name).stdout == f"{name}\n"
        if real.tokens:
            assert real.tokens.asked[-1] == ["repository:private/busybox:pull"]
        assert minicontainer("logout", real.host).stdout == f"Removing login credentials for {real.host}\n"
        assert json.loads(clean.read_text()) == {"auths": {}}
        assert minicontainer("logout", real.host).stdout == f"Not logged in to {real.host}\n"
        refused("pull", name)


def test_without_a_login_a_token_is_asked_for_nobody(source: Path, clean: Path, tmp_path: Path) -> None:
    with Real(tmp_path / "registry", auth="token") as real:
        name = f"{real.host}/open/busybox:1"
        skopeo(source, name, "--dest-creds=alice:secret")
        assert minicontainer("pull", "-q", name).stdout == f"{name}\n"


def test_what_docker_has_written_counts_and_what_stands_beside_it_stays(clean: Path, tmp_path: Path) -> None:
    clean.parent.mkdir()
    clean.write_text(json.dumps({"auths": {"x.org": {"auth": "YTpi"}}, "psFormat": "{{.ID}}", "HttpHeaders": {}}))
    with Real(tmp_path / "registry", auth="basic") as real:
        minicontainer("login", "-u", "alice", "--password-stdin", real.host, stdin="secret")
        found = json.loads(clean.read_text())
        assert found["psFormat"] == "{{.ID}}" and set(found["auths"]) == {"x.org", real.host}
        clean.write_text("{")
        assert str(clean) in refused("pull", f"{real.host}/x")


HELPER = """#!/bin/sh
echo "$1" >>{log}
case "$1" in
store) cat >{kept} ;;
erase) rm -f {kept} ;;
get) read server; [ -e {kept} ] || {{ echo "credentials not found in native keychain"; exit 1; }}; cat {kept} ;;
esac
"""


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_passwords_that_a_helper_keeps(
    source: Path, clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    log, kept = tmp_path / "log", tmp_path / "kept"
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER.format(log=log, kept=kept))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    clean.parent.mkdir()
    with Real(tmp_path / "registry", auth="basic") as real:
        settings = json.dumps({key: "test" if key == "credsStore" else {real.host: "test"}})
        clean.write_text(settings)
        name = f"{real.host}/busybox:1"
        skopeo(source, name, "--dest-creds=alice:secret")
        refused("pull", name)
        done = minicontainer("login", "-u", "alice", "--password-stdin", real.host, stdin="secret")
        assert done.stderr == ""
        assert json.loads(kept.read_text()) == {"ServerURL": real.host, "Username": "alice", "Secret": "secret"}
        assert clean.read_text() == settings  # no password in there
        minicontainer("pull", "-q", name)
        minicontainer("logout", real.host)
        assert not kept.exists()
        program.unlink()
        assert "docker-credential-test" in refused("pull", name)


def test_insecure_only_when_named(source: Path, clean: Path, tmp_path: Path) -> None:
    """In a network namespace of the test's own, where the registry has an address that is not loopback's."""
    with Other(tmp_path / "registry") as other:
        name = f"{other.host}/busybox:1"
        other.push(source, name)
        assert "insecure-registries" in other.refused("pull", name)
        settings = tmp_path / "config/minicontainer/registries.json"
        settings.parent.mkdir(parents=True)
        settings.write_text(json.dumps({"insecure-registries": ["192.0.2.0/24"]}))
        assert other.minicontainer("pull", "-q", name).stdout == f"{name}\n"
    shutil.rmtree(tmp_path / "registry")
    settings.unlink()
    with Other(tmp_path / "registry", tls=True) as other:
        name = f"{other.host}/busybox:1"
        other.push(source, name)
        assert "certificate cannot be verified" in other.refused("pull", name)
        os.environ["SSL_CERT_FILE"] = str(tmp_path / "registry" / "ca.crt")
        try:
            assert other.minicontainer("pull", "-q", name).stdout == f"{name}\n"
        finally:
            del os.environ["SSL_CERT_FILE"]
        settings.write_text(json.dumps({"insecure-registries": [other.host]}))
        assert other.minicontainer("pull", "-q", name).stdout == f"{name}\n"


class Other:
    """A docker-registry at 192.0.2.1, an address that only its own network namespace has (RFC 5737)."""

    def __init__(self, folder: Path, tls: bool = False) -> None:
        self.holder = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "ip link set lo up && ip address add 192.0.2.1/32 dev lo; echo; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.holder.stdout is not None
        self.holder.stdout.readline()
        self.words = ("nsenter", f"--net=/proc/{self.holder.pid}/ns/net")
        self.real = Real(folder, tls=tls, words=self.words, address="192.0.2.1")
        self.host = self.real.host

    def __enter__(self) -> "Other":
        return self

    def __exit__(self, *_: object) -> None:
        self.real.__exit__()
        self.holder.kill()
        self.holder.communicate()

    def push(self, source: Path, name: str) -> None:
        subprocess.run(
            [*self.words, "skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{source}:busybox:latest",
             f"docker://{name}"], check=True, capture_output=True,
        )  # fmt: skip

    def minicontainer(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, sys.executable, "-m", "minicontainer", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip

    def refused(self, *arguments: str) -> str:
        done = self.minicontainer(*arguments)
        assert done.returncode == 1, done
        return done.stderr


def test_a_blob_that_was_deleted_is_named(source: Path, clean: Path, tmp_path: Path) -> None:
    with Real(tmp_path / "registry") as real:
        name = f"{real.host}/busybox:1"
        skopeo(source, name)
        told = json.loads(subprocess.check_output(["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"]))
        real.blob(told["Layers"][0]).unlink()
        assert "has been deleted" in refused("pull", name)
        assert f"manifest for {real.host}/busybox:2 not found" in refused("pull", f"{real.host}/busybox:2")
    assert minicontainer("images", "-q").stdout == ""


def test_login_where_nobody_is_asked(clean: Path, tmp_path: Path) -> None:
    with Real(tmp_path / "registry") as real:
        assert "no login is needed" in refused("login", "-u", "a", "--password-stdin", real.host, stdin="b")
        assert "non TTY" in refused("login", real.host)
    assert not clean.exists()


def test_bad_words(clean: Path) -> None:
    refused("pull")
    refused("pull", "a", "b")
    refused("pull", "-a", "a:b")
    refused("pull", "UPPER")
    assert "linux/arm64" in refused("pull", "--platform", "a/b/c/d", "localhost:1/x")


def test_an_identity_token_goes_to_the_token_server(clean: Path, tmp_path: Path) -> None:
    """docker's identitytoken: a refresh token in place of a password goes to the token server by POST."""
    asked: list[bytes] = []

    def trick(request: Request) -> bool:
        if request.path.startswith("/token"):
            asked.append(request.take())
            return request.answer(200, b'{"access_token": "good"}')
        if request.headers.get("Authorization") == "Bearer good":
            return False
        realm = f'Bearer realm="http://{request.server.host}/token",service="s"'
        return request.refuse(401, "UNAUTHORIZED", WWW_Authenticate=realm)

    with Fake() as fake:
        fake.tricks.append(trick)
        clean.parent.mkdir()
        clean.write_text(json.dumps({"auths": {fake.host: {"identitytoken": "refresh"}}}))
        name = fake.image("demo", "1", [])
        minicontainer("pull", name)
        assert digest(fake.manifests["demo@1"][1]) in minicontainer("images", "--digests").stdout
    assert asked == [
        b"service=s&client_id=minicontainer&scope=repository%3Ademo%3Apull&grant_type=refresh_token&refresh_token=refresh"
    ]


def test_run_fetches_what_is_not_here(source: Path, clean: Path, tmp_path: Path) -> None:
    with Real(tmp_path / "registry") as real:
        name = f"{real.host}/busybox"
        skopeo(source, f"{name}:latest")
        run = ["run", "--rm", "--network", "none"]
        assert minicontainer(*run, "--pull", "never", name, "true", check=False).returncode == 125
        done = minicontainer(*run, name, "echo", "here")
        assert done.stdout == "here\n"  # whatever is said about the image goes elsewhere
        said = done.stderr.splitlines()
        assert said[:2] == [f"Unable to find image '{name}:latest' locally", "latest: Pulling from busybox"]
        assert said[-1] == f"Status: Downloaded newer image for {name}:latest"
        assert minicontainer(*run, name, "echo", "here").stderr == ""
        assert "Image is up to date" in minicontainer(*run, "--pull=always", name, "true").stderr
        assert minicontainer(*run, "-q", "--pull=always", name, "true").stderr == ""
        minicontainer("create", "--pull", "missing", "--name", "made", "-q", f"{name}:latest", "true")
        done = minicontainer(*run, f"{name}:2", check=False)
        assert done.returncode == 125 and "busybox:2 not found" in done.stderr
        done = minicontainer(*run, "--pull", "sometimes", name, check=False)
        assert done.returncode == 125 and "'always', 'missing' or 'never'" in done.stderr
        settings = tmp_path / "config/minicontainer/registries.json"
        settings.parent.mkdir(parents=True)
        settings.write_text('{"pull": "never"}')
        done = minicontainer(*run, f"{name}:3", check=False)
        assert done.returncode == 125 and "No such image" in done.stderr
        assert minicontainer("run", "--explain=json", f"{name}:3", check=False).returncode == 125
    assert "cannot reach" in minicontainer(*run, "--pull=always", name, check=False).stderr


def test_the_library_s_run_fetches_what_is_not_here_and_its_create_does_not(
    source: Path, clean: Path, tmp_path: Path
) -> None:
    containers = client.Client().containers
    with Real(tmp_path / "registry") as real:
        name = f"{real.host}/busybox"
        skopeo(source, f"{name}:latest")
        with pytest.raises(errors.ImageNotFound):
            containers.create(name, ["true"], network="none")
        assert containers.run(name, ["echo", "here"], network="none", remove=True) == b"here\n"
        with pytest.raises(errors.RegistryError, match="busybox:2 not found"):
            containers.run(f"{name}:2", network="none")
    settings = tmp_path / "config/minicontainer/registries.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"pull": "never"}')
    assert containers.run(name, ["echo", "still"], network="none", remove=True) == b"still\n"
    for other in (f"{name}:3", "sha256:1234"):
        with pytest.raises(errors.ImageNotFound):
            containers.run(other, network="none")
    assert containers.records() == []


def test_manifest_inspect_shows_what_the_registry_has_and_fetches_nothing(clean: Path) -> None:
    with Fake() as fake:
        name = fake.image("demo", "1", [layer({"a": b"1"})])
        media, content = fake.manifests["demo@1"]
        assert json.loads(minicontainer("manifest", "inspect", name).stdout) == json.loads(content)
        described = {"mediaType": media, "digest": digest(content), "size": len(content)}
        listed = [{**described, "platform": {"os": "linux", "architecture": "s390x"}}]
        index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed}
        many = fake.document("demo", "many", index)
        assert json.loads(minicontainer("manifest", "inspect", many).stdout) == index
        assert json.loads(minicontainer("manifest", "inspect", "-v", many).stdout) == [
            {"Ref": f"{fake.host}/demo@{digest(content)}", "Descriptor": listed[0], "OCIManifest": json.loads(content)}
        ]
        one = json.loads(minicontainer("manifest", "inspect", "-v", name).stdout)
        assert one == {"Ref": name, "Descriptor": described, "OCIManifest": json.loads(content)}
        assert fake.asked("GET", "/blobs/") == []
        assert "not found" in refused("manifest", "inspect", f"{fake.host}/demo:2")


# ------------------------------------------------------------------------------------------------------------- push


@pytest.mark.parametrize("auth", ["", "basic", "token"])
def test_push_says_what_docker_says_and_another_engine_reads_it(
    source: Path, clean: Path, tmp_path: Path, auth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICONTAINER_ROOT", str(source))
    with Real(tmp_path / "registry", auth=auth) as real:
        name = f"{real.host}/mine/busybox"
        tag(source, "busybox", f"{name}:latest")
        try:
            if auth:
                assert "push access denied for mine/busybox" in refused("push", name)
                minicontainer("login", "-u", "alice", "--password-stdin", real.host, stdin="secret")
            short = store_of(source).get("busybox").config["rootfs"]["diff_ids"][0][7:19]
            said = minicontainer("push", name).stdout.splitlines()
            pushed = told(real, name, auth)
            size = len(real.blob(pushed["Digest"]).read_bytes())
            assert [line for line in said if ": Compressing" not in line] == [
                "Using default tag: latest", f"The push refers to repository [{name}]", f"{short}: Preparing",
                f"{short}: Pushed", f"latest: digest: {pushed['Digest']} size: {size}",
            ]  # fmt: skip
            again = minicontainer("push", f"{name}:latest").stdout.splitlines()
            assert again[2] == f"{short}: Layer already exists" and again[-1] == said[-1]
            tag(source, "busybox", f"{real.host}/other:1")
            mounted = minicontainer("push", f"{real.host}/other:1").stdout
            assert f"{short}: Mounted from mine/busybox" in mounted
            if real.tokens:
                assert ["repository:other:pull,push", "repository:mine/busybox:pull"] in real.tokens.asked
            assert minicontainer("push", "-q", "-a", name).stdout == f"{name}\n"
            assert told(real, f"{real.host}/other:1", auth)["Digest"] == pushed["Digest"]
            assert pushed["Digest"] in minicontainer("inspect", "-f", "{{.RepoDigests}}", name).stdout
        finally:
            removal.remove(store_of(source), f"{name}:latest")
            removal.remove(store_of(source), f"{real.host}/other:1")
        monkeypatch.setenv("MINICONTAINER_ROOT", str(tmp_path / "store"))
        minicontainer("pull", "-q", name)
        assert minicontainer("run", "--rm", "--network", "none", name, "echo", "back").stdout == "back\n"


def store_of(root: Path) -> Store:
    return Store(str(root))


def tag(root: Path, name: str, other: str) -> None:
    store_of(root).tag(name, other)


def told(real: Real, name: str, auth: str) -> dict[str, Any]:
    """What skopeo sees there."""
    creds = ["--creds=alice:secret"] if auth else []
    seen = subprocess.check_output(["skopeo", "inspect", "--tls-verify=false", *creds, f"docker://{name}"])
    found: dict[str, Any] = json.loads(seen)
    return found


@pytest.mark.parametrize("where", ["inside a part", "between two parts"])
def test_an_upload_to_the_real_registry_that_breaks_off(
    clean: Path, store: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay before the registry hangs up. Between two parts, the registry knows how much it has; inside of one,
    distribution 2 gives the upload up, and it begins again."""
    noise = os.urandom(5 << 20)
    monkeypatch.setattr(registry, "LARGEST", 1 << 20)
    cut = b"Content-Range: 2097152-" if where == "between two parts" else noise[2_500_000:2_500_064]
    with Real(tmp_path / "registry") as real, Relay(real.host, cut) as relay:
        name = f"{relay.host}/big:1"
        with store_of(store).job() as job:
            path = job.path("tar")
            Path(path).write_bytes(layer({"noise": noise}))
            making.make(job, {"architecture": "amd64", "os": "linux", "config": {}}, [path], name)
        pushing.push(store_of(store), name)
        assert relay.broken
        begun = [part for part in relay.parts if part.startswith(b"0-")]
        assert len(begun) == (1 if where == "between two parts" else 2), relay.parts
        removal.remove(store_of(store), name)
        minicontainer("pull", "-q", f"{real.host}/big:1")
        image = store_of(store).get(f"{real.host}/big:1")
        assert Path(store_of(store).layer_directories(image)[0], "noise").read_bytes() == noise


class Relay:
    """Connections to a registry; the first that sends `cut` is cut before that is passed on. `parts` are what the
    PATCHes say that they send."""

    def __init__(self, to: str, cut: bytes) -> None:
        self.to, self.cut = to, cut
        self.broken = False
        self.parts: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def __enter__(self) -> "Relay":
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                address, _, port = self.to.partition(":")
                server = socket.create_connection((address, int(port)))
                threading.Thread(target=self.up, args=(client, server), daemon=True).start()
                threading.Thread(target=copy, args=(server, client), daemon=True).start()

    def up(self, client: socket.socket, server: socket.socket) -> None:
        before = b""
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                self.parts += re.findall(rb"Content-Range: ([0-9-]+)", piece)
                if self.cut in before + piece and not self.broken:
                    self.broken = True
                    break
                server.sendall(piece)
                before = piece[-len(self.cut) :]
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
