"""Registries for tests: one in memory that can be told to misbehave, and Debian's docker-registry, the real one.

    with Fake() as fake:
        name = fake.image("demo", "1", [layer])        # 127.0.0.1:PORT/demo:1
        fake.tricks.append(lambda request: …)          # answers instead of it, if it returns True
        fake.log                                       # (method, path, headers) of every request

All listen on loopback only.
"""

import base64
import contextlib
import gzip
import hashlib
import http.server
import itertools
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minicontainer import oci
from minicontainer.image import reference


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Request(http.server.BaseHTTPRequestHandler):
    """One request; `answer` and `broken` are what tricks need."""

    protocol_version = "HTTP/1.1"
    server: "Fake"
    body = b""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):  # the client has had enough, or we have
            self.close_connection = True

    def do_GET(self) -> None:
        self.server.handle_it(self)

    do_HEAD = do_POST = do_PATCH = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Not on the test's output."""

    def take(self) -> bytes:
        """The request's body."""
        if not self.body and (size := int(self.headers.get("Content-Length", 0))):
            self.body = self.rfile.read(size)
        return self.body

    def answer(self, status: int, content: bytes = b"", length: int | None = None, **headers: str) -> bool:
        """Answer; `length` is what Content-Length says, whatever is true."""
        self.take()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        if length is not None and length != len(content):
            self.close_connection = True
        return True

    def refuse(self, status: int, code: str, **headers: str) -> bool:
        """An error as the specification has it."""
        return self.answer(
            status, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode(), **headers
        )


Trick = Callable[[Request], bool]


def squeeze(content: bytes) -> bytes:
    """gzip without the time of day, which would be another digest in the next second."""
    return gzip.compress(content, mtime=0)


class Fake(http.server.ThreadingHTTPServer):
    """A registry in memory."""

    daemon_threads = True
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.numbers = itertools.count()
        self.tricks: list[Trick] = []
        self.log: list[tuple[str, str, dict[str, str]]] = []

    def __enter__(self) -> "Fake":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is none."""

    def asked(self, method: str, part: str) -> list[dict[str, str]]:
        """The headers of all such requests."""
        return [headers for verb, path, headers in self.log if verb == method and part in path]

    def handle_it(self, request: Request) -> None:
        request.body = b""  # one object serves all requests of a connection
        self.log.append((request.command, request.path, dict(request.headers)))
        for trick in list(self.tricks):
            if trick(request):
                return
        path = urllib.parse.urlsplit(request.path)
        query = dict(urllib.parse.parse_qsl(path.query))
        if match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path.path):
            self.manifest(request, f"{match[1]}@{match[2]}")
        elif match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", path.path):
            self.blob(request, match[2])
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(\w*)", path.path):
            self.upload(request, match[2], query)
        elif path.path == "/v2/":
            request.answer(200, b"{}")
        else:
            request.refuse(404, "NOT_FOUND")

    def manifest(self, request: Request, key: str) -> None:
        if request.command == "PUT":
            content = request.take()
            self.manifests[key] = (request.headers["Content-Type"], content)
            self.manifests[f"{key.partition('@')[0]}@{digest(content)}"] = self.manifests[key]
            request.answer(201, Docker_Content_Digest=digest(content))
        elif key not in self.manifests:
            request.refuse(404, "MANIFEST_UNKNOWN")
        else:
            media, content = self.manifests[key]
            request.answer(200, content, Content_Type=media)

    def blob(self, request: Request, name: str) -> None:
        content = self.blobs.get(name)
        if content is None:
            request.refuse(404, "BLOB_UNKNOWN")
            return
        begin = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if begin and self.ranges:
            at = int(begin[1])
            request.answer(206, content[at:], Content_Range=f"bytes {at}-{len(content) - 1}/{len(content)}")
        else:
            request.answer(200, content)

    def upload(self, request: Request, name: str, query: dict[str, str]) -> None:
        if request.command == "POST":
            if query.get("mount") in self.blobs:
                request.answer(201)
                return
            name = f"u{next(self.numbers)}"
            self.uploads[name] = b""
        elif name not in self.uploads:
            request.refuse(404, "BLOB_UPLOAD_UNKNOWN")
            return
        have = self.uploads[name]
        told = {"Location": f"{request.path.partition('?')[0].removesuffix(name)}{name}?state=x"}
        if request.command == "PATCH":
            if int(request.headers["Content-Range"].partition("-")[0]) != len(have):
                request.answer(416, Range=f"0-{max(len(have) - 1, 0)}", **told)
                return
            have += request.take()
        elif request.command == "PUT":
            have += request.take()
            assert query["state"] == "x"
            if digest(have) != query["digest"]:
                request.refuse(400, "DIGEST_INVALID")
                return
            self.blobs[digest(have)] = have
            request.answer(201)
            return
        self.uploads[name] = have
        request.answer(204 if request.command == "GET" else 202, Range=f"0-{max(len(have) - 1, 0)}", **told)

    # What is in it

    def image(
        self, repository: str, tag: str, tars: list[bytes], compress: Callable[[bytes], bytes] = squeeze,
        media: str = oci.LAYER_GZIP, manifest_media: str = oci.MANIFEST, config_media: str = oci.CONFIG, **fields: Any,
    ) -> str:  # fmt: skip
        """An image of these layers; returns its name. `fields` go into the config."""
        config = json.dumps(
            {
                "architecture": reference.host_architecture(), "os": "linux", "config": {"Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}, **fields,
            }
        ).encode()  # fmt: skip
        packed = [compress(tar) for tar in tars]
        for content in [config, *packed]:
            self.blobs[digest(content)] = content
        self.layers = [digest(content) for content in packed]
        manifest = {
            "schemaVersion": 2, "mediaType": manifest_media,
            "config": {"mediaType": config_media, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": media, "digest": digest(blob), "size": len(blob)} for blob in packed],
        }  # fmt: skip
        return self.document(repository, tag, manifest)

    def document(self, repository: str, tag: str, manifest: dict[str, Any], media: str = "") -> str:
        """Any manifest or index; returns its name."""
        content = json.dumps(manifest).encode()
        for name in (tag, digest(content)):
            self.manifests[f"{repository}@{name}"] = (media or str(manifest["mediaType"]), content)
        return f"{self.host}/{repository}:{tag}"


def once(trick: Trick, method: str = "GET", part: str = "/blobs/") -> Trick:
    """The trick, for the first such request only."""
    done: list[bool] = []

    def first(request: Request) -> bool:
        if done or request.command != method or part not in request.path:
            return False
        done.append(True)
        return trick(request)

    return first


def always(trick: Trick, method: str = "GET", part: str = "/blobs/") -> Trick:
    """The trick, for every such request."""
    return lambda request: request.command == method and part in request.path and trick(request)


# ------------------------------------------------------------------------------------------------------------- the real


# `perl -e 'print crypt("secret", "\$2y\$05\$abcdefghijklmnopqrstuv")'`: htpasswd's bcrypt, which the registry asks for
HTPASSWD = "alice:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"


class Real:
    """Debian's docker-registry, in a folder of its own, at a port of its own.

    `auth` is "", "basic" (alice, secret) or "token" (from a server that the test has); `tls` gives it a certificate
    for 127.0.0.1 that only `folder/ca.crt` vouches for. `words` stand before its command: a network namespace.
    """

    def __init__(
        self, folder: Path, auth: str = "", tls: bool = False, words: tuple[str, ...] = (), address: str = "127.0.0.1"
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.host = f"{address}:{free_port()}"
        config: dict[str, Any] = {
            "version": "0.1", "log": {"level": "warn"}, "http": {"addr": self.host},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        }  # fmt: skip
        self.tokens: Tokens | None = None
        if auth == "basic":
            (folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        if auth == "token" or tls:
            certificate(folder)
        if auth == "token":
            self.tokens = Tokens(folder)
            config["auth"] = {
                "token": {
                    "realm": f"http://{self.tokens.host}/token", "service": "test", "issuer": "tests",
                    "rootcertbundle": str(folder / "ca.crt"),
                }
            }  # fmt: skip
        if tls:
            config["http"]["tls"] = {"certificate": str(folder / "ca.crt"), "key": str(folder / "ca.key")}
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [*words, "docker-registry", "serve", str(folder / "config.yml")],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        self.wait()

    def wait(self) -> None:
        """Until it listens."""
        for _ in range(3000):
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text())
            if listens(self.process.pid, int(self.host.partition(":")[2])):
                return
            time.sleep(0.02)
        raise RuntimeError(f"docker-registry does not listen: {(self.folder / 'log').read_text()}")

    def __enter__(self) -> "Real":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()
        if self.tokens:
            self.tokens.__exit__()

    def blob(self, name: str) -> Path:
        """Where it keeps a blob."""
        return self.folder / "data/docker/registry/v2/blobs/sha256" / name[7:9] / name[7:] / "data"


def listens(pid: int, port: int) -> bool:
    """Whether somebody listens at that port, in the network namespace of that process: /proc/PID/net/tcp{,6}."""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
            if any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines):
                return True
    return False


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def certificate(folder: Path) -> None:
    """A key, and a certificate for 127.0.0.1 that it has signed itself."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
         "-addext", "subjectAltName=IP:127.0.0.1,IP:192.0.2.1", "-keyout", folder / "ca.key",
         "-out", folder / "ca.crt"],
        check=True, capture_output=True,
    )  # fmt: skip


class Tokens(http.server.ThreadingHTTPServer):
    """A token server (distribution, docs/spec/auth/token.md): alice, secret may do anything, others may pull from
    `open`. `lifetime` is what it says in seconds."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            server: "Tokens"

            def do_GET(self) -> None:
                self.server.handle_it(self)

            def log_message(self, *_: object) -> None:
                """Not on the test's output."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.lifetime = 300
        self.asked: list[list[str]] = []  # the scopes of each request
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_it(self, request: http.server.BaseHTTPRequestHandler) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        self.asked.append(query.get("scope", []))
        known = request.headers.get("Authorization") == "Basic " + base64.b64encode(b"alice:secret").decode()
        if "Authorization" in request.headers and not known:
            request.send_response(401)
            request.end_headers()
            return
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if known else ["pull"] if name.startswith("open") else []
            access.append({"type": kind, "name": name, "actions": allowed})
        content = json.dumps({"token": self.token(access), "expires_in": self.lifetime}).encode()
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def token(self, access: list[dict[str, Any]]) -> str:
        """A JWT, signed by openssl."""
        lines = (self.folder / "ca.crt").read_text().splitlines()
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines[1:-1])]}
        claims = {
            "iss": "tests", "sub": "", "aud": "test", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": os.urandom(8).hex(), "access": access,
        }  # fmt: skip
        text = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        signed = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self.folder / "ca.key"],
            input=text.encode(), check=True, capture_output=True,
        )  # fmt: skip
        return f"{text}.{encoded(signed.stdout)}"


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
