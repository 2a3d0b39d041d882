"""Registries: the distribution protocol, as a client speaks it, over urllib3 (which is imported here alone).

Offers: `Registry`, one host: `manifest`, `blob`, `tags` to read; `has_blob`, `upload`, `put_manifest` to write; `check`
for `login`. `Login`, who we are there; `Settings`, what a person has said about mirrors and insecure registries. And
`fetch`, which has nothing to do with registries: a file from an address of the web.

What holds, whatever a registry answers:
- a password or token goes to the registry's own host, or to the token server that it names, never where a redirect
  leads, and not unencrypted unless a person called that host insecure (loopback is);
- no more is read than the manifest promised; a document has at most blobs.LARGEST_DOCUMENT bytes;
- 429, 5xx and broken connections are tried again, a few times, after a pause that doubles or that the registry asks
  for; a blob goes on where it broke off, in both directions.
Whether content has the digest it should is for the caller to see, for whom the bytes pass by anyway; manifests and
configs are verified here. Raises RegistryError: one sentence, which says what to do where something can be done.

Sources: OCI distribution specification 1.1; distribution's docs/spec/auth (token, oauth); RFC 9110 (ranges,
Retry-After).
"""

import base64
import email.utils
import json
import os
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import urllib3

from .. import __version__, errors, files, oci
from . import blobs

CONNECT, READ = 15.0, 60.0  # seconds until a connection stands; between two pieces of an answer
ATTEMPTS = 5  # of one request; of a blob, without progress in between
PAUSE = 0.5  # seconds before the second attempt; it doubles
LONGEST_PAUSE = 60.0  # seconds; who asks us to wait longer is told to the user instead
MOST_REDIRECTS = 5
CHUNK = 1 << 20
SMALL = 1 << 20  # bytes: what goes up in one request
LARGEST = 0  # bytes that go up in one PATCH; 0: any number, as docker has it

HUB = "docker.io"
HUB_ENDPOINT = "registry-1.docker.io"

MANIFESTS = (*oci.INDEXES, *oci.MANIFESTS)
PULL = ("missing", "never")
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


class Refused(errors.RegistryError):
    """An answer that is no success: `status` is HTTP's, 0 where there was no answer; `pause`, the seconds that it asks
    us to wait."""

    def __init__(self, message: str, status: int, pause: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.pause = pause


class Stopped(errors.RegistryError):
    """Somebody has called `Registry.stop`: another layer has failed, or the user has had enough."""


class Login(NamedTuple):
    """Who we are at a registry: name and password, or a token to get tokens with (docker's identitytoken)."""

    username: str = ""
    password: str = ""
    identity: str = ""


# What a person has said ---------------------------------------------------------------------------------------------


class Settings:
    """Mirrors, and registries to which encryption does not matter.

    `mirrors`: by registry, addresses to ask first, in that order. `insecure`: hosts, with port or without, or networks
    (`10.0.0.0/8`) whose addresses are. Loopback always is, as with docker. `pull`: what `run` does about an image that
    is not here: "missing", it is fetched, or "never".
    """

    def __init__(
        self, mirrors: dict[str, list[str]] | None = None, insecure: Iterable[str] = (), pull: str = "missing"
    ) -> None:
        self.mirrors = mirrors or {}
        self.insecure = list(insecure)
        self.pull = pull

    def is_insecure(self, host: str) -> bool:
        """Whether `host` (with its port, if it has one) may be spoken to unencrypted."""
        import ipaddress

        name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or host in self.insecure or name in self.insecure:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        networks = [text for text in self.insecure if "/" in text]
        return address.is_loopback or any(address in ipaddress.ip_network(text, strict=False) for text in networks)


def settings_here() -> Settings:
    """What the file says that $MINICONTAINER_REGISTRIES names, else ~/.config/minicontainer/registries.json, else
    /etc/minicontainer/registries.json.

    The keys are those of docker's daemon.json: `registry-mirrors`, a list for docker.io or an object of lists by
    registry, and `insecure-registries`; and `pull`, "missing" or "never". Raises InvalidArgument, naming the file.
    """
    named = os.environ.get("MINICONTAINER_REGISTRIES")
    own = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    usual = [f"{own}/minicontainer/registries.json", "/etc/minicontainer/registries.json"]
    for path in [named] if named else usual:
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            if named:
                raise errors.InvalidArgument(f"MINICONTAINER_REGISTRIES={path}: there is no such file") from None
            continue
        except (OSError, ValueError) as error:
            raise errors.InvalidArgument(f"{path} cannot be read as JSON: {error}") from None
        mirrors = found.get("registry-mirrors", []) if isinstance(found, dict) else None
        mirrors = {HUB: mirrors} if isinstance(mirrors, list) else mirrors
        insecure = found.get("insecure-registries", []) if isinstance(found, dict) else None
        right = isinstance(mirrors, dict) and all(map(is_texts, [insecure, *mirrors.values()]))
        policy = found.get("pull", "missing") if isinstance(found, dict) else ""
        if not isinstance(mirrors, dict) or not isinstance(insecure, list) or not right or policy not in PULL:
            raise errors.InvalidArgument(
                f'{path}: write {{"registry-mirrors": ["https://mirror.example.org"], '
                '"insecure-registries": ["host:5000"], "pull": "missing"}'
            )
        return Settings(mirrors, insecure, policy)
    return Settings()


# One registry -------------------------------------------------------------------------------------------------------


class Registry:
    """The registry `host` (docker.io, localhost:5000), or at `address` a mirror of it. Nothing is sent before it must.

    `login` is asked for who we are when the registry wants to know. May be used from several threads.
    """

    def __init__(
        self, host: str, settings: Settings | None = None, login: Callable[[], Login | None] | None = None,
        address: str = "",
    ) -> None:  # fmt: skip
        self.host = host
        self.settings = settings or Settings()
        self.login = login or (lambda: None)
        self.address = address.rstrip("/")
        self.lock = threading.RLock()
        self.pools: dict[tuple[str, bool], urllib3.PoolManager] = {}
        self.tokens: dict[str, tuple[str, float]] = {}  # by scope: what to put into Authorization, and until when
        self.chunk = LARGEST  # as far as we know
        self.stopped = threading.Event()
        self.under_way: set[Blob] = set()

    def stop(self) -> None:
        """End whatever other threads wait for; they raise Stopped."""
        self.stopped.set()
        with self.lock:
            for blob in self.under_way:
                blob.shut()

    def pause(self, seconds: float) -> None:
        """Wait; in vain if somebody stops us."""
        if self.stopped.wait(seconds):
            raise Stopped("stopped")

    # Reading

    def manifest(self, repository: str, reference: str) -> tuple[str, bytes, str]:
        """The manifest or index under a tag or digest: its media type, its bytes, their digest, which is verified.

        Raises Refused (404: no such image), RegistryError for what is none, InvalidImage for the retired schema 1.
        """
        answer = self.request(
            "GET", f"{repository}/manifests/{reference}", pull(repository), {"Accept": ", ".join(MANIFESTS)}
        )
        content = self.document(answer, f"the manifest of {repository}")
        digest = oci.digest(content)
        told = answer.headers.get("Docker-Content-Digest", "")
        wanted = reference if oci.is_digest(reference) else told if oci.is_digest(told) else digest
        if digest != wanted:
            raise errors.RegistryError(
                f"{self.host} sent a manifest of {repository} that is damaged: its digest is {digest}, not {wanted}"
            )
        media = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise errors.RegistryError(
                f"{self.host} answered for {repository}:{reference} with something that is no manifest"
            )
        media = str(parsed.get("mediaType") or media)
        if media.startswith(SCHEMA_1) or parsed.get("schemaVersion") == 1:
            raise errors.InvalidImage(
                f"{self.host}/{repository} is of the long retired schema 1, as Docker pushed before 2016; "
                "whoever has it must push it again by a docker of today"
            )
        if media not in MANIFESTS:
            media = oci.INDEX if "manifests" in parsed else oci.MANIFEST
        return media, content, digest

    def content(self, repository: str, digest: str, size: int) -> bytes:
        """A small blob (a config), verified."""
        if size > blobs.LARGEST_DOCUMENT:
            raise errors.InvalidImage(f"the config has {size} bytes, too many for a document")
        blob = self.blob(repository, digest, size)
        content = b"".join(iter(lambda: blob.read(CHUNK), b""))
        if oci.digest(content) != digest:
            raise errors.RegistryError(f"{self.host} sent {digest} damaged: it has the digest {oci.digest(content)}")
        return content

    def blob(self, repository: str, digest: str, size: int, offset: int = 0) -> "Blob":
        """A blob of so many bytes, to be read from `offset` on."""
        return Blob(self, repository, digest, size, offset)

    def tags(self, repository: str) -> list[str]:
        """All tags of a repository."""
        found: list[str] = []
        where = f"{repository}/tags/list?n=1000"
        for _ in range(1000):
            answer = self.request("GET", where, pull(repository))
            listed = self.json(answer, "the tags").get("tags")
            found += [tag for tag in listed or [] if isinstance(tag, str)] if isinstance(listed, list | None) else []
            link = answer.headers.get("Link", "")
            if 'rel="next"' not in link:
                break
            where = urllib.parse.urljoin(answer.url or "", link[link.find("<") + 1 : link.find(">")])
        return found

    def check(self, always: bool = False) -> None:
        """That the registry is there, and accepts our login. Raises RegistryError.

        A registry that lets in everybody has not looked at it; with `always`, that is an error, too.
        """
        answer = self.request("GET", "", "")
        answer.drain_conn()
        if always and "" not in self.tokens:
            raise errors.RegistryError(f"{self.host} lets in everybody, and asks nobody for a name: no login is needed")

    # Writing

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has it."""
        try:
            self.request("HEAD", f"{repository}/blobs/{digest}", push(repository)).drain_conn()
            return True
        except Refused as error:
            if error.status in (404, 405):
                return False
            raise

    def mount(self, repository: str, digest: str, source: str) -> str:
        """Have the registry take a blob over from another of its repositories. Returns "" where it did, else where to
        upload it to."""
        query = urllib.parse.urlencode({"mount": digest, "from": source})
        answer = self.request(
            "POST", f"{repository}/blobs/uploads/?{query}", f"{push(repository)} {pull(source)}", body=b""
        )
        answer.drain_conn()
        return "" if answer.status == 201 else self.location(answer)

    def upload(
        self, repository: str, digest: str, size: int, read: Callable[[int, int], bytes], place: str = "",
        progress: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        """Send a blob, of which `read(offset, size)` yields any part, as often as it takes. `place`: where `mount` said
        to.

        A small one goes in one request. A large one in as few as the registry allows, each of which tells where it
        begins; after a break, the registry is asked how much has arrived.
        """
        scope = push(repository)
        place = place or self.begin(repository)
        at = failures = 0
        whole = size <= SMALL
        while at < size and not whole:
            last = min(size, at + self.chunk) if self.chunk else size
            headers = {
                "Content-Type": "application/octet-stream", "Content-Range": f"{at}-{last - 1}",
                "Content-Length": str(last - at),
            }  # fmt: skip
            try:
                answer = self.request("PATCH", place, scope, headers, pieces(read, at, last, progress), attempts=1)
                answer.drain_conn()
                place, at, failures = self.location(answer), last, 0
            except Refused as error:
                if error.status == 413 and (not self.chunk or self.chunk > CHUNK):
                    self.chunk = CHUNK if self.chunk else CHUNK * 10  # a proxy before it has a limit
                elif error.status not in (0, 401, 408, 416, 429) and error.status < 500:
                    raise
                failures += 1
                if failures >= ATTEMPTS or (error.pause or 0) > LONGEST_PAUSE:
                    raise
                self.pause(back_off(failures, error.pause))
                before = at
                place, at = self.arrived(repository, place)
                failures = 0 if at > before else failures
        join = "&" if "?" in place else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self.request(
            "PUT", f"{place}{join}digest={digest}", scope, headers, read(0, size) if whole and size else b""
        ).drain_conn()
        if progress:
            progress(size)

    def begin(self, repository: str) -> str:
        """Where to upload a blob to."""
        answer = self.request("POST", f"{repository}/blobs/uploads/", push(repository), body=b"")
        answer.drain_conn()
        return self.location(answer)

    def arrived(self, repository: str, place: str) -> tuple[str, int]:
        """Where to go on with an upload that broke off, and at which byte."""
        try:
            answer = self.request("GET", place, push(repository))
        except Refused as error:
            if error.status not in (404, 405):
                raise
            return self.begin(repository), 0  # it has forgotten all of it; distribution 2 does after a torn PATCH
        answer.drain_conn()
        first, _, last = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")
        # `0-0` is one byte, and also how distribution says that there is nothing.
        at = int(last) + 1 if first == "0" and last.isdecimal() and int(last) else 0
        return self.location(answer, place), at

    def put_manifest(self, repository: str, reference: str, media: str, content: bytes) -> None:
        """Let a tag, or its own digest, mean this manifest. Its blobs must be there."""
        answer = self.request(
            "PUT", f"{repository}/manifests/{reference}", push(repository), {"Content-Type": media}, content
        )
        answer.drain_conn()
        told = answer.headers.get("Docker-Content-Digest", "")
        if told and told != oci.digest(content):
            raise errors.RegistryError(f"{self.host} has stored another manifest than was sent: {told}")

    # Requests

    def request(
        self, method: str, where: str, scope: str, headers: dict[str, str] | None = None,
        body: "bytes | Iterator[bytes] | None" = None, attempts: int = ATTEMPTS,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        """Send a request to a path below /v2/, or to an address; returns the answer, unread, if it is a success.

        Raises Refused: what the registry said, in a sentence. Tried again is what may go better the next time.
        """
        return self.tried(
            lambda: self.authorized(method, where, scope, headers or {}, body), method, where, scope, attempts
        )

    def tried(
        self, send: Callable[[], urllib3.BaseHTTPResponse], method: str, where: str, scope: str,
        attempts: int = ATTEMPTS,
    ) -> urllib3.BaseHTTPResponse:  # fmt: skip
        """Send a request until it is a success, or cannot become one. The other arguments are for what is said."""
        for attempt in range(1, attempts + 1):
            try:
                answer = send()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if attempt == attempts or isinstance(hopeless(error), str):
                    raise Refused(self.unreachable(error), 0) from None
                self.pause(back_off(attempt))
                continue
            if 200 <= answer.status < 300:
                return answer
            pause = retry_after(answer)
            again = answer.status in (429, 408) or answer.status >= 500
            said = self.refusal(method, where, scope, answer, pause)
            if not again or attempt == attempts or (pause or 0) > LONGEST_PAUSE:
                raise Refused(said, answer.status, pause)
            self.pause(back_off(attempt, pause))
        raise AssertionError("the last attempt returns or raises")

    def authorized(
        self, method: str, where: str, scope: str, headers: dict[str, str], body: "bytes | Iterator[bytes] | None"
    ) -> urllib3.BaseHTTPResponse:
        """One request; where the registry asks who we are, once more, with the answer to that."""
        url = where if "://" in where else f"{self.base()}/v2/{where}"
        answer = self.follow(method, url, {**headers, **self.authorization(scope)}, body)
        if answer.status == 401 and isinstance(body, bytes | None):
            challenge = answer.headers.get("WWW-Authenticate", "")
            answer.drain_conn()
            with self.lock:
                self.tokens.pop(scope, None)
                granted = self.grant(challenge, scope)
            if granted:
                answer = self.follow(method, url, {**headers, **self.authorization(scope)}, body)
        return answer

    def follow(
        self, method: str, url: str, headers: dict[str, str], body: "bytes | Iterator[bytes] | None"
    ) -> urllib3.BaseHTTPResponse:
        """One request, and where redirects lead; who we are is not for those hosts."""
        for _ in range(MOST_REDIRECTS):
            if origin(url) != origin(self.base()):
                headers = {name: value for name, value in headers.items() if name != "Authorization"}
            answer = self.send(method, url, headers, body)
            answer.url = url
            if answer.status not in (301, 302, 303, 307, 308) or "Location" not in answer.headers:
                return answer
            if not isinstance(body, bytes | None):
                return answer
            answer.drain_conn()
            target = urllib.parse.urljoin(url, answer.headers["Location"])
            if url.startswith("https:") and not target.startswith("https:"):
                raise Refused(f"{self.host} leads from an encrypted to an unencrypted address, {shown(target)}", 0)
            url = target
        raise Refused(f"{self.host} redirects more than {MOST_REDIRECTS} times", 0)

    def send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: "bytes | Iterator[bytes] | None",
    ) -> urllib3.BaseHTTPResponse:
        """One request, to one address."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"{self.host} leads to {shown(url)}, which is no address of the web", 0)
        return self.pool(parts.netloc, not self.settings.is_insecure(parts.netloc)).request(
            method, url, body, headers={"User-Agent": f"minicontainer/{__version__}", **headers},
            preload_content=False, decode_content=False, redirect=False, retries=False,
        )  # fmt: skip

    def pool(self, host: str, verify: bool) -> urllib3.PoolManager:
        """Connections to a host, through the proxy that the environment names."""
        with self.lock:
            if (host, verify) in self.pools:
                return self.pools[host, verify]
            options: dict[str, Any] = {
                "timeout": urllib3.Timeout(connect=CONNECT, read=READ), "maxsize": 8,
                "ssl_context": trust(host, verify),
            }  # fmt: skip
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
            proxies = {} if urllib.request.proxy_bypass(name) else urllib.request.getproxies()
            proxy = proxies.get("https") or proxies.get("http") or proxies.get("all")
            loopback = name in ("localhost", "::1") or name.startswith("127.")
            made = urllib3.ProxyManager(proxy, **options) if proxy and not loopback else urllib3.PoolManager(**options)
            self.pools[host, verify] = made
            return made

    def base(self) -> str:
        """`https://host`; for a registry that may be spoken to unencrypted, `http://host` where it knows no better."""
        with self.lock:
            if not self.address:
                host = HUB_ENDPOINT if self.host == HUB else self.host
                address = f"https://{host}"
                if self.settings.is_insecure(host):
                    try:
                        self.send("GET", f"{address}/v2/", {}, None).drain_conn()
                    except (urllib3.exceptions.HTTPError, OSError):
                        address = f"http://{host}"
                self.address = address
            return self.address

    # Who we are

    def authorization(self, scope: str) -> dict[str, str]:
        """The header that has been good for this, while it lasts."""
        with self.lock:
            value, until = self.tokens.get(scope, ("", 0.0))
            return {"Authorization": value} if value and time.monotonic() < until else {}

    def grant(self, header: str, scope: str) -> bool:
        """Do what a WWW-Authenticate header asks for. Returns whether there is now anything to try. Raises Refused."""
        offers = {name.lower(): parameters for name, parameters in challenges(header)}
        login = self.login()
        if "bearer" in offers:
            self.tokens[scope] = self.token(offers["bearer"], scope, login)
            return True
        if "basic" in offers and login and login.username:
            self.tokens[scope] = (basic(login), float("inf"))
            return True
        return False

    def token(self, offer: dict[str, str], scope: str, login: Login | None) -> tuple[str, float]:
        """A token for these scopes (separated by blanks), from the server that the registry names."""
        realm = urllib.parse.urlsplit(offer.get("realm", ""))
        if realm.scheme != "https" and not (realm.scheme == "http" and self.settings.is_insecure(realm.netloc)):
            raise Refused(
                f"{self.host} sends us for a token to {shown(offer.get('realm', ''))}, which is not encrypted; if you "
                f"trust the way there, add {realm.netloc!r} to insecure-registries", 0,
            )  # fmt: skip
        scopes = scope.split() or offer.get("scope", "").split()
        asked = [("service", offer["service"])] if "service" in offer else []
        asked += [("client_id", "minicontainer")] if login and login.identity else []
        asked += [("scope", text) for text in scopes]
        headers: dict[str, str] = {}
        body = None
        method = "GET"
        query = urllib.parse.parse_qsl(realm.query)
        if login and login.identity:
            method = "POST"
            refresh = [("grant_type", "refresh_token"), ("refresh_token", login.identity)]
            asked = [pair for pair in asked if pair[0] != "scope"] + [("scope", " ".join(scopes))] + refresh
            body = urllib.parse.urlencode(asked).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        else:
            query += asked
            if login and login.username:
                query.append(("account", login.username))
                headers["Authorization"] = basic(login)
        url = urllib.parse.urlunsplit(realm._replace(query=urllib.parse.urlencode(query)))
        try:
            answer = self.tried(lambda: self.send(method, url, headers, body), method, url, scope)
        except Refused as error:
            if error.status:
                raise
            raise Refused(f"{error} (its token server, {realm.netloc})", 0) from None
        found = self.json(answer, "a token")
        text = found.get("token") or found.get("access_token")
        if not isinstance(text, str) or not text.isprintable():
            raise Refused(f"{self.host}: its token server, {realm.netloc}, answered without a token", 0)
        lasts = found.get("expires_in")
        seconds = max(float(lasts), 60.0) if isinstance(lasts, int | float) else 60.0  # 60: the specification's floor
        return f"Bearer {text}", time.monotonic() + seconds * 0.9

    # Answers

    def document(self, answer: urllib3.BaseHTTPResponse, what: str) -> bytes:
        """A small answer, whole."""
        content = b""
        try:
            while len(content) <= blobs.LARGEST_DOCUMENT:
                piece = answer.read(CHUNK)
                if not piece:
                    return content
                content += piece
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Refused(f"{self.host}: {what} broke off: {reason(error)}", 0) from None
        finally:
            answer.release_conn() if len(content) <= blobs.LARGEST_DOCUMENT else answer.close()
        raise Refused(f"{self.host}: {what} has more than {blobs.LARGEST_DOCUMENT} bytes", 0)

    def json(self, answer: urllib3.BaseHTTPResponse, what: str) -> dict[str, Any]:
        """A small answer as an object."""
        try:
            found = json.loads(self.document(answer, what))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Refused(f"{self.host} answered with something else than {what}", 0)
        return found

    def location(self, answer: urllib3.BaseHTTPResponse, before: str = "") -> str:
        """Where an upload goes on: relative or not, its query is kept."""
        told = answer.headers.get("Location", before)
        if not told:
            raise Refused(f"{self.host} takes an upload and does not say where to", 0)
        place: str = urllib.parse.urljoin(answer.url or self.base(), told)
        base = urllib.parse.urlsplit(self.base())
        parts = urllib.parse.urlsplit(place)
        if base.scheme == "https" and parts.scheme == "http" and parts.hostname == base.hostname:
            place = urllib.parse.urlunsplit(parts._replace(scheme="https", netloc=base.netloc))  # it stands behind
        elif base.scheme == "https" and parts.scheme != "https":
            raise Refused(f"{self.host} wants the upload at an unencrypted address, {shown(place)}", 0)
        return place

    def refusal(
        self, method: str, where: str, scope: str, answer: urllib3.BaseHTTPResponse, pause: float | None
    ) -> str:
        """What an answer that is no success means, in a sentence."""
        try:
            said = complaint(self.document(answer, "the answer"))
        except Refused:
            said = ""
        repository = scope.split(":")[1] if ":" in scope else ""
        name = f"{self.host}/{repository}" if repository else self.host
        tail = f": {said}" if said else ""
        status = answer.status
        if status == 429:
            wait = "" if pause is None else f"; it asks to wait {pause:.0f} s"
            advice = "" if self.login() else f", or `minicontainer login {self.host}`, which usually raises the limit"
            return (
                f"{self.host} has had too many requests from here (429){tail}{wait}: try again later{advice}, or name "
                "a mirror in registries.json"
            )
        if status in (401, 403):
            to = "" if self.host == HUB else f" {self.host}"
            if not repository:
                if self.login():
                    return f"{self.host} does not accept the user name and password{tail}"
                return f"{self.host} wants to know who we are: `minicontainer login{to}`{tail}"
            verb = "push" if ":pull,push" in scope else "pull"
            return (
                f"{verb} access denied for {repository}: the repository does not exist, or requires "
                f"`minicontainer login{to}`{tail}"
            )
        if status == 404:
            if "/manifests/" in where:
                return f"manifest for {name}:{where.rpartition('/')[2]} not found{tail}".replace(":sha256:", "@sha256:")
            if "/blobs/sha256:" in where:
                return (
                    f"{name} has no blob {where.rpartition('/')[2]}, of which its manifest speaks: it has been "
                    "deleted; the image must be pushed again"
                )
            return f"{name}: not found (404); is {self.host} a registry?{tail}"
        if 300 <= status < 400:
            return f"{self.host} redirects an upload ({status}), which cannot be followed"
        return f"{self.host} answered {method} with {status} {answer.reason or ''}".rstrip() + tail

    def unreachable(self, error: Exception) -> str:
        """Why there was no answer, and what to do."""
        return f"cannot reach the registry {self.host}: {hopeless(error) or reason(error)}"


def moment(text: str) -> int:
    """A date of a header (RFC 9110, 5.6.7) in seconds since 1970; 0 for what is none."""
    told = email.utils.parsedate_tz(text)
    try:
        seconds = email.utils.mktime_tz(told) if told else 0
    except (ValueError, OverflowError):
        return 0
    return seconds if 0 <= seconds < 1 << 33 else 0


def fetch(url: str, descriptor: int, settings: Settings | None = None) -> int:
    """Write what is at an http or https address into an open, empty file. Returns when it was last modified, in seconds
    since 1970, or 0 where the server does not say. After a break, it begins anew.

    A user and password in the address go to that host alone. Raises Refused; OSError where it is the disk that fails.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    plain = urllib.parse.urlunsplit(parts._replace(netloc=host, fragment=""))
    headers = {}
    if parts.username is not None:
        named = Login(urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""))
        headers["Authorization"] = basic(named)
    server = Registry(host, settings, address=f"{parts.scheme}://{host}")
    for attempt in range(1, ATTEMPTS + 1):
        pause = None
        try:
            answer = server.follow("GET", plain, headers, None)
            if 200 <= answer.status < 300:
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                for piece in iter(lambda: answer.read(CHUNK), b""):  # noqa: B023 - used up at once
                    files.write_all(descriptor, piece)
                return moment(answer.headers.get("Last-Modified", ""))
            answer.close()
            said, pause = f"{shown(plain)}: {answer.status} {answer.reason or ''}".rstrip(), retry_after(answer)
            if (answer.status not in (408, 429) and answer.status < 500) or (pause or 0) > LONGEST_PAUSE:
                raise Refused(said, answer.status, pause)
        except urllib3.exceptions.HTTPError as error:
            said = f"{shown(plain)}: {hopeless(error) or reason(error)}"
            if hopeless(error):
                break
        if attempt < ATTEMPTS:
            server.pause(back_off(attempt, pause))
    raise Refused(said, 0)


class Blob:
    """A blob on its way: `read(size)` yields at most so many bytes, and nothing at the end.

    Where the connection breaks, the next one goes on from there (Range). `Registry.stop` ends it.
    """

    def __init__(self, registry: Registry, repository: str, digest: str, size: int, offset: int) -> None:
        self.registry = registry
        self.repository = repository
        self.digest = digest
        self.size = size
        self.at = offset
        self.resumed = offset  # where the present connection began
        self.failures = 0
        self.answer: urllib3.BaseHTTPResponse | None = None

    def read(self, wanted: int) -> bytes:
        """The next bytes. Raises RegistryError where it breaks off again and again, or is longer than promised."""
        while not self.registry.stopped.is_set():
            if self.answer is None and self.at == self.size:
                return b""
            try:
                if self.answer is None:
                    self.answer = self.open()
                piece = self.answer.read1(wanted, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self.broken(reason(error))
                continue
            if piece:
                self.at += len(piece)
                if self.at > self.size:
                    self.end()
                    raise errors.RegistryError(
                        f"{self.registry.host} sends more for {self.digest} than the {self.size} bytes that the "
                        "manifest says"
                    )
                return piece
            if self.at < self.size:
                self.broken("the connection was closed")
            else:
                self.answer.release_conn()
                self.end()
        self.end()
        raise Stopped("stopped")

    def open(self) -> urllib3.BaseHTTPResponse:
        """A connection that goes on at `at`."""
        host = self.registry.host
        headers = {"Range": f"bytes={self.at}-"} if self.at else {}
        answer = self.registry.request("GET", f"{self.repository}/blobs/{self.digest}", pull(self.repository), headers)
        with self.registry.lock:
            self.registry.under_way.add(self)
        self.resumed = self.at
        told = answer.headers.get("Content-Range", "")
        if answer.status == 206 and not told.startswith(f"bytes {self.at}-"):
            answer.close()
            raise errors.RegistryError(f"{host} was asked for bytes from {self.at} on, and sends {told!r}")
        if self.at and answer.status != 206:  # it knows no ranges: what we have comes again
            left = self.at
            while left and (piece := answer.read1(min(left, CHUNK), decode_content=False)):
                left -= len(piece)
        return answer

    def broken(self, why: str) -> None:
        """Note that the connection broke. Raises RegistryError where there is no progress any more."""
        self.end()
        self.failures = 1 if self.at - self.resumed >= CHUNK else self.failures + 1
        if self.failures >= ATTEMPTS:
            raise errors.RegistryError(
                f"{self.registry.host} breaks off again and again in {self.digest}, after {self.at} of {self.size} "
                f"bytes: {why}; what has arrived is kept, and the next pull goes on from there"
            )
        self.registry.pause(back_off(self.failures))

    def end(self) -> None:
        """Let go of the connection."""
        with self.registry.lock:
            self.registry.under_way.discard(self)
        if self.answer is not None:
            self.answer.close()
            self.answer = None

    def shut(self) -> None:
        """From another thread: whoever waits in `read` waits no longer."""
        answer = self.answer
        if answer is not None:
            try:
                answer.shutdown()
            except (RuntimeError, ValueError, OSError):  # it has ended by itself
                pass


# Small things -------------------------------------------------------------------------------------------------------


def is_texts(value: object) -> bool:
    """Whether it is a list of strings."""
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def pull(repository: str) -> str:
    """The scope for reading."""
    return f"repository:{repository}:pull"


def push(repository: str) -> str:
    """The scope for writing."""
    return f"repository:{repository}:pull,push"


def pieces(
    read: Callable[[int, int], bytes], at: int, last: int, progress: Callable[[int], None] | None
) -> Iterator[bytes]:
    """A part of a blob, piece by piece, as a request's body."""
    while at < last:
        piece = read(at, min(CHUNK, last - at))
        at += len(piece)
        yield piece
        if progress:
            progress(at)


def basic(login: Login) -> str:
    """RFC 7617."""
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def origin(url: str) -> tuple[str, str]:
    """Scheme, and host with port: what a secret was meant for."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def shown(url: str) -> str:
    """An address without its query, in which a signature may stand."""
    return repr(url.partition("?")[0][:200])


def challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """What a WWW-Authenticate header offers: schemes, each with its parameters (RFC 9110, 11.6.1)."""
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(header):
        end = at
        while end < len(header) and header[end] not in " =,":
            end += 1
        word = header[at:end]
        if end < len(header) and header[end] == "=" and found:
            at = end + 1
            if header[at : at + 1] == '"':
                value, at = "", at + 1
                while at < len(header) and header[at] != '"':
                    at += header[at] == "\\"
                    value += header[at : at + 1]
                    at += 1
                at += 1
            else:
                end = at
                while end < len(header) and header[end] not in " ,":
                    end += 1
                value, at = header[at:end], end
            found[-1][1][word.lower()] = value
        else:
            if word:
                found.append((word, {}))
            at = end + 1
    return found


def retry_after(answer: urllib3.BaseHTTPResponse) -> float | None:
    """The seconds that an answer asks us to wait, or None (RFC 9110, 10.2.3: a number or a date)."""
    text = answer.headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def back_off(failures: int, asked: float | None = None) -> float:
    """The seconds to wait after so many failures in a row: as we are asked to, else twice as long each time."""
    return PAUSE * 2 ** (failures - 1) if asked is None else asked


def complaint(content: bytes) -> str:
    """What the body of a refusal says (distribution specification, error codes), one line at most."""
    try:
        found = json.loads(content)
        said = [str(item.get("message") or item.get("code")) for item in found["errors"]]
        text = "; ".join(said)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:300]


def reason(error: Exception) -> str:
    """The bottom of what urllib3 wraps, in a few words."""
    cause: Any = error
    while getattr(cause, "reason", None) is not None and isinstance(cause.reason, Exception):
        cause = cause.reason
    cause = cause.args[-1] if cause.args and isinstance(cause.args[-1], Exception) else cause
    if isinstance(cause, urllib3.exceptions.TimeoutError):
        return "it does not answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    text = " ".join(str(cause).split())
    return text.rpartition(">: ")[2] or text


def hopeless(error: Exception) -> str | None:
    """What it is, and what to do, where trying again will not help; else None."""
    text = f"{error!r}"
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text or "doesn't match" in text:
        return (
            f"its certificate cannot be verified ({reason(error).partition(' (_ssl')[0]}); put the authority's "
            "certificate into /etc/docker/certs.d/HOST:PORT/ca.crt, or, if you trust the way there, name the registry "
            "in insecure-registries"
        )
    if "WRONG_VERSION_NUMBER" in text or "wrong version number" in text:
        return "it speaks no TLS; if you trust the way there, name it in insecure-registries (registries.json)"
    if isinstance(error, urllib3.exceptions.NameResolutionError) or "NameResolutionError" in text:
        return "its name is not known here (no network, or a typing error)"
    if "Connection refused" in text:
        return "nobody listens there (connection refused)"
    return None


def trust(host: str, verify: bool) -> ssl.SSLContext:
    """Whose certificates count for a host: the system's authorities ($SSL_CERT_FILE), and what an administrator has put
    under certs.d, in dockerd's layout: *.crt are authorities, *.cert with *.key are ours. Without `verify`, anybody's.
    """
    context = ssl.create_default_context()
    for folder in (f"/etc/docker/certs.d/{host}", f"/etc/containers/certs.d/{host}"):
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            continue
        for name in names:
            if name.endswith(".crt"):
                context.load_verify_locations(f"{folder}/{name}")
            elif name.endswith(".cert"):
                context.load_cert_chain(f"{folder}/{name}", f"{folder}/{name[:-5]}.key")
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
