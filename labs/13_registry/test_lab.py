"""Lab 13, graded by what a registry in the room's network was asked, by what it sent, and by the bytes that arrived."""

import gzip
import hashlib
import http.server
import io
import json
import re
import secrets
import socket
import tarfile
import threading
import urllib.parse

import pytest

pytestmark = pytest.mark.pure

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow")
OCI = "application/vnd.oci.image"


def sha256(content):
    """A digest as registries spell it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


# ---------------------------------------------------------------------------------------------------------- a registry


class Request(http.server.BaseHTTPRequestHandler):
    """One request to the registry below."""

    protocol_version = "HTTP/1.1"

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError):  # who asks has hung up
            self.close_connection = True

    def log_message(self, *_):
        """Not on the test's output."""

    def do_GET(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlsplit(self.path)
        self.query = {key: value[-1] for key, value in urllib.parse.parse_qs(url.query).items()}
        self.entry = {
            "method": self.command, "path": url.path, "query": self.query, "sent": 0, "got": len(self.body),
            "token": self.headers.get("Authorization", ""), "status": 0,
        }  # fmt: skip
        self.server.log.append(self.entry)
        self.server.answer(self, url.path)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_GET

    def say(self, status, content=b"", cut=None, **headers):
        """An answer; with `cut`, the connection breaks after so many bytes of it."""
        self.entry["status"] = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            shown = content if cut is None else content[:cut]
            self.entry["sent"] = len(shown)
            self.wfile.write(shown)
        self.close_connection = self.close_connection or cut is not None

    def refuse(self, status, code, detail=""):
        """An error as the specification has it."""
        self.say(status, json.dumps({"errors": [{"code": code, "message": code.lower(), "detail": detail}]}).encode())


class Registry(http.server.ThreadingHTTPServer):
    """A registry that listens in the room's network; it is a thread of the tests' process, which no learner reaches."""

    daemon_threads = True

    def __init__(self, room):
        super().__init__(("127.0.0.1", 0), Request, bind_and_activate=False)
        self.socket.close()
        self.socket = room.socket(socket.SOCK_STREAM)
        self.socket.bind(("127.0.0.1", 0))
        self.server_address = self.socket.getsockname()
        self.server_activate()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.blobs = {}  # (repository, digest): bytes
        self.manifests = {}  # (repository, tag or digest): (media type, bytes)
        self.uploads = {}
        self.granted = {}  # by token
        self.log = []
        self.guarded = self.mounts = self.ranges = True
        self.elsewhere = None  # where it keeps its blobs
        self.cuts = {}  # by digest: after how many bytes the next answers break off
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        """Who hangs up is no error."""

    def asked(self, method, part):
        """All such requests."""
        return [entry for entry in self.log if entry["method"] == method and part in entry["path"]]

    def story(self, last=12):
        """The last requests, for hints."""
        return "; ".join(f"{entry['method']} {entry['path']} {entry['status']}" for entry in self.log[-last:])

    def answer(self, request, path):
        if path == "/token":
            return self.token(request)
        if match := re.fullmatch(r"/data/(sha256:\w+)", path):
            named = {name: data for (_, name), data in self.blobs.items()}
            return self.blob(request, named[match[1]], match[1])
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/(uploads/.*|[^/]+)", path)
        if not match:
            return request.refuse(404, "NOT_FOUND")
        repository, kind, rest = match.groups()
        if not self.allowed(request, repository):
            return None
        if kind == "manifests":
            return self.manifest(request, repository, rest)
        if rest.startswith("uploads/"):
            return self.upload(request, repository, rest.removeprefix("uploads/"))
        if (repository, rest) not in self.blobs:
            return request.refuse(404, "BLOB_UNKNOWN")
        if self.elsewhere and request.command == "GET":
            return request.say(307, Location=f"{self.elsewhere.address}/data/{rest}?signature=x")
        return self.blob(request, self.blobs[repository, rest], rest)

    def allowed(self, request, repository):
        """Whether the request's token is good for it; if not, the answer tells where there is a better one."""
        reading = request.command in ("GET", "HEAD")
        wanted = {(repository, "pull")} if reading else {(repository, "pull"), (repository, "push")}
        if "from" in request.query:
            wanted.add((request.query["from"], "pull"))
        if not self.guarded or wanted <= self.granted.get(request.headers.get("Authorization", ""), set()):
            return True
        scopes = {name: ",".join(sorted(what for of, what in wanted if of == name)) for name, _ in sorted(wanted)}
        scope = " ".join(f"repository:{name}:{what}" for name, what in scopes.items())
        challenge = f'Bearer realm="{self.address}/token",service="lab",scope="{scope}"'
        request.say(401, b'{"errors": [{"code": "UNAUTHORIZED"}]}', WWW_Authenticate=challenge)
        return False

    def token(self, request):
        """Anybody gets what he asks for."""
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        if query.get("service") != ["lab"]:
            return request.refuse(400, "UNSUPPORTED", "another service was named in the challenge")
        token = secrets.token_hex(8)
        scopes = [scope.split(":") for scope in " ".join(query.get("scope", [])).split() if scope.count(":") == 2]
        self.granted[f"Bearer {token}"] = {(name, what) for _, name, actions in scopes for what in actions.split(",")}
        return request.say(200, json.dumps({"token": token}).encode())

    def manifest(self, request, repository, reference):
        if request.command == "PUT":
            document, kind = json.loads(request.body), request.headers["Content-Type"]
            inside = [(repository, entry["digest"]) for entry in document.get("manifests", [])]
            blobs = [(repository, pointer["digest"]) for pointer in document.get("layers", [])]
            blobs += [(repository, document["config"]["digest"])] if "config" in document else []
            lacking = [name for _, name in inside if (repository, name) not in self.manifests]
            lacking += [name for _, name in blobs if (repository, name) not in self.blobs]
            if lacking:
                return request.refuse(400, "MANIFEST_BLOB_UNKNOWN", lacking)
            for name in (reference, sha256(request.body)):
                self.manifests[repository, name] = kind, request.body
            return request.say(201, Docker_Content_Digest=sha256(request.body))
        kind, content = self.manifests.get((repository, reference), ("", b""))
        if not kind or kind not in request.headers.get("Accept", ""):
            return request.refuse(404, "MANIFEST_UNKNOWN", f"{kind or 'nothing'}; the header Accept does not name it")
        return request.say(200, content, Content_Type=kind)

    def blob(self, request, content, name):
        cut = self.cuts.get(name, []).pop(0) if self.cuts.get(name) and request.command == "GET" else None
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if not part or not self.ranges:
            return request.say(200, content, cut)
        first, last = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        if first > last:
            return request.say(416, Content_Range=f"bytes */{len(content)}")
        headers = {"Content_Range": f"bytes {first}-{last}/{len(content)}"}
        return request.say(206, content[first : last + 1], cut, **headers)

    def upload(self, request, repository, name):
        if request.command == "POST":
            origin, digest = request.query.get("from"), request.query.get("mount")
            if self.mounts and (origin, digest) in self.blobs:
                self.blobs[repository, digest] = self.blobs[origin, digest]
                return request.say(201)
            name = secrets.token_hex(4)
            self.uploads[name] = b""
        elif name not in self.uploads or request.query.get("state") != "kept":
            return request.refuse(404, "BLOB_UPLOAD_UNKNOWN", "go where the header Location leads, all of it")
        if request.headers["Content-Type"] == "application/x-www-form-urlencoded":
            request.body = b""  # as docker-registry: the fields of a form have been read by then
        self.uploads[name] += request.body
        if request.command == "PUT":
            content = self.uploads.pop(name)
            if sha256(content) != request.query.get("digest"):
                return request.refuse(400, "DIGEST_INVALID", f"{len(content)} bytes came; of a form, none count")
            request.entry["digest"] = sha256(content)
            self.blobs[repository, sha256(content)] = content
            return request.say(201)
        return request.say(202, Location=f"/v2/{repository}/blobs/uploads/{name}?state=kept")

    # What is in it

    def keep(self, repository, *contents):
        """Blobs; their digests."""
        for content in contents:
            self.blobs[repository, sha256(content)] = content
        return [sha256(content) for content in contents]

    def document(self, repository, tag, kind, manifest):
        """A manifest or index under its digest, and under a tag if there is one; its digest."""
        content = json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}.{kind}.v1+json", **manifest}).encode()
        for name in filter(None, (tag, sha256(content))):
            self.manifests[repository, name] = f"{OCI}.{kind}.v1+json", content
        return sha256(content)

    def image(self, rng, repository, tag, architecture, shared=None):
        """An image of two layers, of which the lower one may be shared; the digests of manifest, config and layers."""
        tars = [shared or packed({rng.choice(WORDS): rng.randbytes(rng.randrange(40_000, 90_000))})]
        tars.append(packed({rng.choice(WORDS): rng.randbytes(rng.randrange(40_000, 90_000))}))
        config = {
            "architecture": architecture, "os": "linux", "config": {"Cmd": [rng.choice(WORDS)]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in tars]},
        }  # fmt: skip
        contents = [json.dumps(config).encode(), *(gzip.compress(tar, 1, mtime=0) for tar in tars)]
        names = self.keep(repository, *contents)
        kinds = ["config.v1+json", "layer.v1.tar+gzip", "layer.v1.tar+gzip"]
        pointers = [
            {"mediaType": f"{OCI}.{kind}", "digest": name, "size": len(content)}
            for kind, name, content in zip(kinds, names, contents, strict=True)
        ]
        manifest = {"config": pointers[0], "layers": pointers[1:]}
        return [self.document(repository, tag, "manifest", manifest), *names]

    def index(self, rng, repository, tag, architectures):
        """An index over images for several machines, which share a layer; between them, what is no image for linux."""
        shared = packed({rng.choice(WORDS): rng.randbytes(rng.randrange(40_000, 90_000))})
        images = {name: self.image(rng, repository, "", name, shared) for name in architectures}
        entries = []
        for name, (digest, *_) in images.items():
            size = len(self.manifests[repository, digest][1])
            pointer = {"mediaType": f"{OCI}.manifest.v1+json", "digest": digest, "size": size}
            entries.append({**pointer, "platform": {"os": "linux", "architecture": name}})
        other = self.image(rng, repository, "", rng.choice(WORDS))[0]
        size = len(self.manifests[repository, other][1])
        pointer = {"mediaType": f"{OCI}.manifest.v1+json", "digest": other, "size": size}
        entries += [
            {**pointer, "platform": {"os": "windows", "architecture": name}} for name in rng.sample(architectures, 2)
        ]
        entries.append({**pointer, "platform": {"os": "unknown", "architecture": "unknown"}})
        rng.shuffle(entries)
        return self.document(repository, tag, "index", {"manifests": entries}), images


def packed(files):
    """A tar of {name: bytes}."""
    return packed_in_order(list(files.items()))


def packed_in_order(members):
    """A tar of (name, bytes)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return target.getvalue()


def without_proxy():
    """In the room: what the machine says of proxies is not for the room's own registry."""
    import os

    os.environ["no_proxy"] = "*"


@pytest.fixture
def registry(room):
    """A registry in the room's network, and behind it another host, which may keep its blobs."""
    room.prepare(without_proxy)
    found = Registry(room)
    found.behind = Registry(room)
    found.behind.blobs, found.behind.guarded = found.blobs, False
    yield found
    for each in (found, found.behind):
        each.shutdown()
        each.server_close()


def name(rng):
    """A repository's name."""
    return "/".join(rng.sample(WORDS, 2))


def arrived(room, registry, names, repository):
    """Why what is in the folder is not these blobs and manifests, whole; "" if it is."""
    there = room.names("/tmp/image/blobs/sha256")
    wanted = sorted(each.removeprefix("sha256:") for each in names)
    if there != wanted:
        return f"in blobs/sha256 are {brief(there)}, and should be {brief(wanted)}; it was asked {registry.story()}"
    for each in names:
        content = registry.blobs.get((repository, each)) or registry.manifests[repository, each][1]
        if room.read(f"/tmp/image/blobs/sha256/{each[7:]}") != content:
            return f"blobs/sha256/{each[7:19]}… has other bytes than the registry's"
    return ""


def refused(room, function, *arguments):
    """What the learner's function raised; the test fails where it is still the stub."""
    outcome = room.attempt(function, *arguments)
    assert outcome.raised != "NotImplementedError", f"{function}() is still the stub: it raises NotImplementedError"
    return outcome


def brief(names):
    """The beginnings of digests."""
    return [f"{each[:12]}…{'.part' * each.endswith('.part')}" for each in names]


# ---------------------------------------------------------------------------------------------------------------- pull


@pytest.mark.points(2)
def test_an_image(room, rng, registry):
    """pull fetches manifest, config and layers, from a registry that asks for nothing."""
    registry.guarded = False
    repository, tag = name(rng), f"{rng.randrange(9)}.{rng.randrange(9)}"
    names = registry.image(rng, repository, tag, "arm64")
    told = room.call("pull", registry.address, repository, tag, "arm64", "/tmp/image")
    assert told == names[0], f"pull says {told}; the manifest has the digest {names[0]}"
    wrong = arrived(room, registry, names, repository)
    assert not wrong, wrong


@pytest.mark.points(3)
def test_for_this_machine(room, rng, registry):
    """Of an index it takes the image for linux and the architecture, with a token that it has asked for once."""
    repository, tag = name(rng), rng.choice(WORDS)
    machines = rng.sample(("amd64", "arm64", "riscv64", "s390x", "ppc64le"), 3)
    _, images = registry.index(rng, repository, tag, machines)
    names = images[machines[0]]
    told = room.call("pull", registry.address, repository, tag, machines[0], "/tmp/image")
    assert told == names[0], f"pull says {told}; the manifest for linux/{machines[0]} has the digest {names[0]}"
    wrong = arrived(room, registry, names, repository)
    assert not wrong, wrong
    tokens = len(registry.asked("GET", "/token"))
    assert tokens == 1, f"one token is good for all of it, and {tokens} were fetched: {registry.story(20)}"
    outcome = refused(room, "pull", registry.address, repository, tag, "mips", "/tmp/image")
    assert outcome.raised == "LookupError", f"the index has nothing for linux/mips, and pull: {outcome}"


@pytest.mark.points(2)
def test_what_came_damaged(room, rng, registry):
    """A blob or manifest that is not what its digest says is ValueError, and nothing of it is left."""
    repository = name(rng)
    names = registry.image(rng, repository, "1", "amd64")
    victim = rng.choice(names[2:])
    right = registry.blobs[repository, victim]
    at = rng.randrange(len(right))
    registry.blobs[repository, victim] = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
    outcome = refused(room, "pull", registry.address, repository, "1", "amd64", "/tmp/image")
    assert outcome.raised == "ValueError", f"a bit of {victim[:19]}… was turned on the way, and pull: {outcome}"
    left = [each for each in room.names("/tmp/image/blobs/sha256") if victim[7:] in each]
    assert not left, f"it came damaged, and left is {brief(left)}"
    registry.blobs[repository, victim] = right
    kind, content = registry.manifests[repository, names[0]]
    registry.manifests[repository, names[0]] = kind, content.replace(b'"schemaVersion": 2', b'"schemaVersion": 3')
    outcome = refused(room, "pull", registry.address, repository, names[0], "amd64", "/tmp/image")
    assert outcome.raised == "ValueError", (
        f"the manifest was asked for by its digest, came changed, and pull: {outcome}"
    )
    registry.manifests[repository, names[0]] = kind, content
    room.call("pull", registry.address, repository, names[0], "amd64", "/tmp/image")
    wrong = arrived(room, registry, names, repository)
    assert not wrong, f"when all was mended: {wrong}"


def begun(parts):
    """In the room: what an earlier day has left, {name: how it was, in Latin-1}."""
    import os

    os.makedirs("/tmp/image/blobs/sha256")
    for name, text in parts.items():
        with open(f"/tmp/image/blobs/sha256/{name}", "wb") as file:
            file.write(text.encode("latin-1"))


@pytest.mark.points(3)
def test_it_goes_on(room, rng, registry):
    """What is here is not asked for again: whole blobs, the part from an earlier day, the part before a break."""
    repository = name(rng)
    names = registry.image(rng, repository, "1", "amd64")
    lower, upper = (registry.blobs[repository, each] for each in names[2:])
    have = rng.randrange(10_000, 30_000)
    room.prepare(begun, {names[1][7:]: registry.blobs[repository, names[1]].decode("latin-1"),
                         f"{names[2][7:]}.part": lower[:have].decode("latin-1")})  # fmt: skip
    registry.cuts[names[3]] = [rng.randrange(1000, 9000), rng.randrange(1000, 9000)]
    room.call("pull", registry.address, repository, "1", "amd64", "/tmp/image")
    wrong = arrived(room, registry, names, repository)
    assert not wrong, wrong
    assert not registry.asked("GET", names[1]), "the config was here, whole, and was asked for again"
    for each, missing, why in ((names[2], len(lower) - have, f"{have} bytes of it were here"),
                               (names[3], len(upper), "its connection broke twice")):  # fmt: skip
        sent = [entry["sent"] for entry in registry.asked("GET", each) if entry["status"] in (200, 206)]
        assert sum(sent) == missing, f"{each[:19]}…: {why}, {missing} bytes were missing; the registry sent {sent}"


@pytest.mark.points(2)
def test_it_goes_on_where_the_registry_will_not(room, rng, registry):
    """A registry without ranges sends all from the start; one that sends nothing is asked three times."""
    repository = name(rng)
    names = registry.image(rng, repository, "1", "amd64")
    lower = registry.blobs[repository, names[2]]
    room.prepare(begun, {f"{names[2][7:]}.part": lower[: rng.randrange(10_000, 30_000)].decode("latin-1")})
    registry.ranges = False
    registry.cuts[names[3]] = [0] * 9
    outcome = refused(room, "pull", registry.address, repository, "1", "amd64", "/tmp/image")
    assert outcome.raised, "the registry breaks off before the first byte, again and again, and pull returned"
    asked = len([entry for entry in registry.asked("GET", names[3]) if entry["status"] == 200])
    assert asked == 3, f"an answer without a byte, again and again: it was asked {asked} times ({outcome})"
    there = room.names("/tmp/image/blobs/sha256")
    whole = names[2][7:] in there and room.read(f"/tmp/image/blobs/sha256/{names[2][7:]}") == lower
    assert whole, f"the registry sent all of a layer in place of its rest, and in the folder are {brief(there)}"


@pytest.mark.points(1)
def test_whom_the_token_is_for(room, rng, registry):
    """Where the registry keeps its blobs at another host, the token stays here."""
    registry.elsewhere = registry.behind
    repository = name(rng)
    names = registry.image(rng, repository, "1", "amd64")
    room.call("pull", registry.address, repository, "1", "amd64", "/tmp/image")
    wrong = arrived(room, registry, names, repository)
    assert not wrong, wrong
    told = [entry for entry in registry.behind.log if entry["token"]]
    assert not told, f"the host behind was shown the registry's token: {told[0]['method']} {told[0]['path']}"


# ---------------------------------------------------------------------------------------------------------------- copy


def to_copy(rng, registry):
    """An index of two machines in one repository, tagged stable, and another to copy it to: (source, target, digest of
    the index, the images)."""
    source, target = rng.sample([f"{one}/{two}" for one in WORDS[:6] for two in WORDS[6:]], 2)
    digest, images = registry.index(rng, source, "stable", rng.sample(("amd64", "arm64", "riscv64"), 2))
    return source, target, digest, images


def same(registry, source, target, tag, digest, images):
    """Why the target does not mean what the source does; "" if it does."""
    kind, content = registry.manifests.get((target, tag), ("", b""))
    if (kind, content) != registry.manifests[source, tag]:
        return f"{target}:{tag} is {sha256(content) if content else 'not there'}; {digest} was to be copied"
    for machine, names in images.items():
        if (target, names[0]) not in registry.manifests:
            return f"the image for linux/{machine} is not in {target}; it was asked {registry.story()}"
    return ""


@pytest.mark.points(3)
def test_taken_over(room, rng, registry):
    """copy has the registry take everything over, and the tag means the index with the same bytes."""
    source, target, digest, images = to_copy(rng, registry)
    told = room.call("copy", registry.address, source, target, "stable")
    assert told == digest, f"copy says {told}; {source}:stable is {digest}"
    wrong = same(registry, source, target, "stable", digest, images)
    assert not wrong, wrong
    blobs = {each for names in images.values() for each in names[1:]}
    moved = [entry for each in blobs for entry in registry.asked("GET", each)]
    assert not moved, f"the registry would have taken it over, and copy fetched {moved[0]['path']}"
    sent = [entry for method in ("PUT", "PATCH") for entry in registry.asked(method, "/uploads/")]
    assert not sent, f"the registry would have taken it over, and copy sent {sent[0]['got']} bytes of a blob"


@pytest.mark.points(3)
def test_what_is_not_taken_over(room, rng, registry):
    """Where it says 202 to a mount, the blob is fetched and sent; no refusal because of something that is not there."""
    registry.mounts = False
    source, target, digest, images = to_copy(rng, registry)
    told = room.call("copy", registry.address, source, target, "stable")
    assert told == digest, f"copy says {told}; {source}:stable is {digest}"
    wrong = same(registry, source, target, "stable", digest, images)
    assert not wrong, wrong
    tried = [entry for entry in registry.asked("POST", "/uploads/") if entry["query"].get("from") == source]
    assert tried, "the registry was never asked to take a blob over: POST …?mount=DIGEST&from=REPOSITORY"
    told_off = [entry for entry in registry.log if entry["status"] == 400]
    assert not told_off, f"{told_off[0]['method']} {told_off[0]['path']}: it speaks of what is not there yet"


@pytest.mark.points(2)
def test_nothing_is_sent_twice(room, rng, registry):
    """What the target has is left alone; what two of the images share is sent once. A single image is copied, too."""
    registry.mounts = False
    source, target, digest, images = to_copy(rng, registry)
    one, other = images.values()
    registry.keep(target, registry.blobs[source, one[1]], registry.blobs[source, other[3]])
    room.call("copy", registry.address, source, target, "stable")
    wrong = same(registry, source, target, "stable", digest, images)
    assert not wrong, wrong
    sent = [entry["digest"] for entry in registry.asked("PUT", "/uploads/") if "digest" in entry]
    again = {each for each in (one[1], other[3]) if each in sent}
    assert not again, f"{again.pop()[:19]}… was in {target}, and was sent"
    twice = {each for each in sent if sent.count(each) > 1}
    assert not twice, f"{twice.pop()[:19]}…, which both images have, was sent {sent.count(one[2])} times"
    names = registry.image(rng, source, "single", "arm64")
    told = room.call("copy", registry.address, source, target, names[0])
    assert told == names[0] and (target, names[0]) in registry.manifests, f"copy of an image by its digest: {told}"


# ---------------------------------------------------------------------------------------------------------------- peek


@pytest.mark.points(4)
def test_one_file_out_of_a_layer(room, rng, registry):
    """peek tells a file's text, and little more than the file travels."""
    repository, words = name(rng), rng.sample(WORDS, 8)
    text = f"{rng.random()} " * rng.randrange(30, 300)
    members = [(f"etc/{word}", rng.randbytes(rng.randrange(20_000, 90_000))) for word in words[:6]]
    members.insert(rng.randrange(3), (f"etc/{words[6]}", b"what an earlier entry said"))
    members.insert(rng.randrange(4, 7), (f"etc/{words[6]}", text.encode()))
    tar = packed_in_order(members)
    (digest,) = registry.keep(repository, tar)
    layer = {"mediaType": f"{OCI}.layer.v1.tar", "digest": digest, "size": len(tar)}
    told = room.call("peek", registry.address, repository, layer, f"etc/{words[6]}")
    assert told == text, f"etc/{words[6]} of the layer says {text[:30]!r}…, and peek {str(told)[:30]!r}…"
    sent = sum(entry["sent"] for entry in registry.asked("GET", digest) if entry["status"] in (200, 206))
    bound = 1024 * len(members) + 16 * 1024 + len(text)
    assert sent <= bound, f"of {len(tar)} bytes {sent} have travelled; {bound} are enough"
    outcome = refused(room, "peek", registry.address, repository, layer, f"etc/{words[7]}")
    assert outcome.raised == "KeyError", f"the layer has no etc/{words[7]}, and peek: {outcome}"
