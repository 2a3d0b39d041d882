"""Lab 13: images from a registry, between repositories, and one file out of a layer that stays there.

The README tells the job. Yours to write is what raises NotImplementedError; add functions and imports as you need.
"""

import hashlib
import json
import os
import re
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request

OCI = "application/vnd.oci.image"
INDEX, MANIFEST = f"{OCI}.index.v1+json", f"{OCI}.manifest.v1+json"
ACCEPT = f"{INDEX}, {MANIFEST}"  # a registry gives what is named in the header Accept, and says 404 of all else

# A registry is an address ("http://127.0.0.1:5000"); whatever it answers is a stranger's word. A reference is a tag ("1.2")
# or a digest ("sha256:…"). No registry of this lab asks for a password, but it may ask for a token that anybody can have.


### BEGIN SOLUTION
tokens = {}  # by registry and by what they are good for


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def ask(method, address, headers=None, content=None, scope="", again=True):
    """The answer to a request; where a token is wanted, it is fetched, and the question asked once more."""
    request = urllib.request.Request(address, content, headers or {}, method=method)
    key = (urllib.parse.urlsplit(address).netloc, scope)
    if key in tokens:
        # Where a redirect leads, this header does not go.
        request.add_unredirected_header("Authorization", "Bearer " + tokens[key])
    try:
        return urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        if error.code != 401 or not again:
            raise
        offered = dict(re.findall(r'(\w+)="([^"]*)"', error.headers["WWW-Authenticate"]))
    query = urllib.parse.urlencode({"service": offered["service"], "scope": offered["scope"]})
    with urllib.request.urlopen(f"{offered['realm']}?{query}") as answer:
        tokens[key] = json.load(answer)["token"]
    return ask(method, address, headers, content, scope, again=False)


def manifest(registry, repository, reference):
    """A manifest or index: its media type, its bytes."""
    address = f"{registry}/v2/{repository}/manifests/{reference}"
    with ask("GET", address, {"Accept": ACCEPT}, scope=repository) as answer:
        kind, content = answer.headers["Content-Type"], answer.read()
    if ":" in reference and digest_of(content) != reference:
        raise ValueError(f"{reference} came damaged")
    return kind, content


def keep(folder, content):
    """Put a document among the blobs."""
    with open(f"{folder}/blobs/sha256/{digest_of(content)[7:]}", "wb") as file:
        file.write(content)


def fetch(registry, repository, pointer, folder):
    """Bring one blob."""
    whole = f"{folder}/blobs/sha256/{pointer['digest'][7:]}"
    part = whole + ".part"
    address = f"{registry}/v2/{repository}/blobs/{pointer['digest']}"
    attempts = 0
    while not os.path.exists(whole):
        have = os.path.getsize(part) if os.path.exists(part) else 0
        if have < pointer["size"]:
            if attempts == 3:
                raise OSError(f"{address} breaks off again and again")
            headers = {"Range": f"bytes={have}-"} if have else {}
            with ask("GET", address, headers, scope=repository) as answer:
                with open(part, "ab" if answer.status == 206 else "wb") as file:
                    shutil.copyfileobj(answer, file)
            attempts = attempts + 1 if os.path.getsize(part) <= have else 0
            continue
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != pointer["digest"][7:]:
            os.unlink(part)
            raise ValueError(f"{pointer['digest']} came damaged: it has the digest sha256:{found}")
        os.rename(part, whole)


def carry(registry, source, target, pointer):
    """See that the target repository has a blob of the source."""
    address = f"{registry}/v2/{target}/blobs"
    try:
        ask("HEAD", f"{address}/{pointer['digest']}", scope=target).close()
        return
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
    query = urllib.parse.urlencode({"mount": pointer["digest"], "from": source})
    with ask("POST", f"{address}/uploads/?{query}", content=b"", scope=f"{target} {source}") as answer:
        if answer.status == 201:
            return
        place = urllib.parse.urljoin(registry, answer.headers["Location"])
    with ask("GET", f"{registry}/v2/{source}/blobs/{pointer['digest']}", scope=source) as answer:
        content = answer.read()
    place += ("&" if "?" in place else "?") + "digest=" + pointer["digest"]
    headers = {"Content-Type": "application/octet-stream"}
    ask("PUT", place, headers, content, scope=f"{target} {source}").close()


class Remote:
    """A blob that stays where it is, as a file: what is read travels, and nothing else."""

    def __init__(self, address, size, repository):
        self.address, self.size, self.repository, self.at = address, size, repository, 0

    def tell(self):
        return self.at

    def seek(self, offset):
        self.at = offset

    def read(self, wanted):
        last = min(self.at + wanted, self.size) - 1
        if last < self.at:
            return b""
        headers = {"Range": f"bytes={self.at}-{last}"}
        with ask("GET", self.address, headers, scope=self.repository) as answer:
            piece = answer.read(last + 1 - self.at)
        self.at += len(piece)
        return piece


### END SOLUTION
def pull(registry, repository, reference, architecture, folder):
    """Fetch an image into `folder`: its manifest, config and layers, each as blobs/sha256/HEX. Returns the manifest's digest.

    If the reference means an index, the image is the one for linux and this architecture ("arm64"); LookupError if there is
    none. What is here already is not asked for. While a blob comes it is called blobs/sha256/HEX.part; what is there from
    an earlier day, or from before a connection broke, is not asked for again. The third answer in a row that brings nothing
    new is an OSError. What is not what its digest says is ValueError, and nothing of it is left. One token serves for
    all of a pull; it goes to the registry itself only, and not where that sends us for a blob.
    """
    ### BEGIN SOLUTION
    os.makedirs(f"{folder}/blobs/sha256", exist_ok=True)
    kind, content = manifest(registry, repository, reference)
    if kind == INDEX:
        for entry in json.loads(content)["manifests"]:
            platform = entry.get("platform", {})
            if platform.get("os") == "linux" and platform.get("architecture") == architecture:
                _, content = manifest(registry, repository, entry["digest"])
                break
        else:
            raise LookupError(f"{repository}:{reference} has nothing for linux/{architecture}")
    image = json.loads(content)
    for pointer in [image["config"], *image["layers"]]:
        fetch(registry, repository, pointer, folder)
    keep(folder, content)
    return digest_of(content)
    ### END SOLUTION


def copy(registry, source, target, reference):
    """Let `reference` mean in the repository `target` what it means in `source`, of the same registry. Returns its digest.

    An index goes whole: all its images, for every machine, with the same bytes and so the same digests. The registry is asked
    to take each blob over from `source` (mount). Only where it does not, the blob is fetched and sent. What `target` has
    already is left alone, and nothing is sent twice. At no moment does a tag or a manifest speak of what is not there.
    """
    ### BEGIN SOLUTION
    kind, content = manifest(registry, source, reference)
    document = json.loads(content)
    for entry in document.get("manifests", []):
        copy(registry, source, target, entry["digest"])
    for pointer in [document["config"], *document["layers"]] if "config" in document else []:
        carry(registry, source, target, pointer)
    address = f"{registry}/v2/{target}/manifests/{reference}"
    ask("PUT", address, {"Content-Type": kind}, content, scope=target).close()
    return digest_of(content)
    ### END SOLUTION


def peek(registry, repository, layer, path):
    """The text of one regular file, `path`, in a layer that stays where it is; KeyError if the layer has no such file.

    `layer` is its descriptor in the manifest; it is a tar that is not compressed. Of what travels, there is at most a
    kibibyte for each of its entries, 16 KiB, and the file itself. Of two entries with one name, the later one counts.
    """
    ### BEGIN SOLUTION
    address = f"{registry}/v2/{repository}/blobs/{layer['digest']}"
    with tarfile.open(fileobj=Remote(address, layer["size"], repository), mode="r:") as tar:
        return tar.extractfile(path).read().decode()
    ### END SOLUTION
