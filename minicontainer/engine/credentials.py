"""Who we are at registries: docker's config.json, and the credential helpers it names.

Offers: `login`, `find`, `keep`, `forget`. The file is $REGISTRY_AUTH_FILE (podman's, skopeo's), else config.json in
$DOCKER_CONFIG, else in ~/.docker: what `docker login` has written counts here, and the other way round. It is written
with mode 0600. A helper is a program docker-credential-NAME, which reads from its standard input and answers in JSON;
it is the user's own program, named in that file.

Sources: docker-login(1); the helpers' protocol, docker/docker-credential-helpers README; containers-auth.json(5).
"""

import base64
import binascii
import os
import subprocess
from typing import Any

from .. import errors, files
from .. import quickjson as json
from ..image import registry

HUB_KEY = "https://index.docker.io/v1/"  # what docker.io is called in there, since the beginning
NOT_FOUND = "credentials not found"  # a helper's words for "nobody has logged in"


def path() -> str:
    """Where the file is, or would be."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.environ.get("REGISTRY_AUTH_FILE") or f"{folder}/config.json"


def key(host: str) -> str:
    """What a registry is called in there."""
    return HUB_KEY if host == registry.HUB else host


def host_of(server: str) -> str:
    """The registry that a person means: `https://example.org/v2/` is example.org, nothing is docker.io."""
    host = server.rpartition("://")[2].partition("/")[0]
    return registry.HUB if host in ("", "index.docker.io", registry.HUB_ENDPOINT) else host


def login(host: str, username: str, password: str) -> str:
    """Ask the registry whether it accepts this (without a name, what we know), and remember it. Returns where."""
    known = registry.Login(username, password) if username else find(host)
    client = registry.Registry(host, registry.settings_here(), lambda: known)
    client.check(known is not None)
    return keep(host, known) if known and username else path()


def find(host: str) -> registry.Login | None:
    """Who we are at a registry, or None. Raises InvalidArgument, naming the file or the helper."""
    config = read()
    helper = helper_for(config, host)
    if helper:
        return ask(helper, key(host))
    for name in (key(host), host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"):
        entry = config.get("auths", {}).get(name)
        if isinstance(entry, dict):
            found = login_of(entry)
            if found is not None:
                return found
    return None


def keep(host: str, login: registry.Login) -> str:
    """Remember who we are. Returns where: a file's path, or a helper's name. Raises InvalidArgument."""
    config = read()
    helper = helper_for(config, host)
    if helper:
        told = {"ServerURL": key(host), "Username": login.username, "Secret": login.password}
        call(helper, "store", json.dumps(told))
        return f"docker-credential-{helper}"
    entry = {"auth": base64.b64encode(f"{login.username}:{login.password}".encode()).decode()}
    config.setdefault("auths", {})[key(host)] = entry
    write(config)
    return path()


def forget(host: str) -> bool:
    """Forget who we are. Returns whether we knew."""
    config = read()
    helper = helper_for(config, host)
    if helper:
        known = ask(helper, key(host)) is not None
        if known:
            call(helper, "erase", key(host))
        return known
    if config.get("auths", {}).pop(key(host), None) is None:
        return False
    write(config)
    return True


def login_of(entry: dict[str, Any]) -> registry.Login | None:
    """What an entry of `auths` says."""
    try:
        username, _, password = base64.b64decode(entry.get("auth") or "", validate=True).decode().partition(":")
    except (binascii.Error, ValueError, TypeError):
        raise errors.InvalidArgument(f"{path()} is damaged: an `auth` in it is no base64; log in again") from None
    username = username or str(entry.get("username") or "")
    password = password.strip("\0") or str(entry.get("password") or "")
    identity = str(entry.get("identitytoken") or "")
    return registry.Login(username, password, identity) if username or identity else None


def read() -> dict[str, Any]:
    """The file's content; empty if there is none."""
    try:
        content = files.read(path())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise errors.InvalidArgument(f"{path()} cannot be read: {error.strerror}") from None
    try:
        found = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("auths", {}), dict):
        raise errors.InvalidArgument(f"{path()} is damaged: it is no JSON as `docker login` writes it")
    return found


def write(config: dict[str, Any]) -> None:
    """Replace the file; nobody else may read it. What else stands in it stays."""
    place = os.path.realpath(path())  # it may be a link into somebody's dotfiles
    files.make_directory(os.path.dirname(place), 0o700)
    files.write(place, json.dumps(config, indent="\t").encode() + b"\n", mode=0o600, sync=True)


def helper_for(config: dict[str, Any], host: str) -> str:
    """The helper that keeps this registry's password, or ""."""
    helpers = config.get("credHelpers")
    named = helpers.get(key(host)) or helpers.get(host) if isinstance(helpers, dict) else None
    name = named or config.get("credsStore") or ""
    if not isinstance(name, str) or "/" in name:
        raise errors.InvalidArgument(f"{path()}: {name!r} is no name of a credential helper")
    return name


def ask(helper: str, server: str) -> registry.Login | None:
    """`get`: who we are at a server, or None."""
    try:
        answer = json.loads(call(helper, "get", server) or "null")
    except ValueError:
        raise errors.InvalidArgument(
            f"docker-credential-{helper} get answered with something that is no JSON"
        ) from None
    if answer is None:
        return None
    username, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    return registry.Login(identity=secret) if username == "<token>" else registry.Login(username, secret)


def call(helper: str, verb: str, told: str) -> str:
    """Run a helper. Returns what it printed; "" where it knows of no such login."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=told, capture_output=True, text=True, check=False)
    except OSError as error:
        raise errors.InvalidArgument(
            f"{path()} says that {program} keeps the passwords, and it cannot be run: {error.strerror}; install it, or "
            "take credsStore out of the file"
        ) from None
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        if verb == "get" and NOT_FOUND in said:
            return ""
        raise errors.InvalidArgument(f"{program} {verb}: {said or f'exit code {done.returncode}'}")
    return done.stdout
