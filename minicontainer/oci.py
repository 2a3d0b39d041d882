"""The vocabulary of the Open Container Initiative: media types, digests, diffIDs and chainIDs.

Offers: names and pure functions. A digest is always a string `sha256:` and 64 lower-case hex digits; content is bytes.
Import cost is a constraint, for `run` passes here: no hashlib (its OpenSSL costs 3 ms), no re, no typing.

Sources: OCI image specification 1.1 (descriptor.md, manifest.md, config.md, layer.md).
"""

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = LAYER + "+gzip"
LAYER_ZSTD = LAYER + "+zstd"

DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

INDEXES = (INDEX, DOCKER_INDEX)
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
CONFIGS = (CONFIG, DOCKER_CONFIG)
LAYERS = (
    LAYER, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER + ".gzip", DOCKER_LAYER + ".zstd",
)  # fmt: skip

REF_NAME = "org.opencontainers.image.ref.name"  # the annotation that skopeo and umoci look a name up by
FULL_NAME = "io.containerd.image.name"  # the one that Docker and containerd write: with registry and tag
REPO_DIGEST = "minicontainer.repo-digest"  # ours: what a registry calls it, docker.io/library/debian@sha256:…

LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'

_HEX = frozenset("0123456789abcdef")


def digest(content: bytes) -> str:
    """The digest of `content`. For a few kilobytes: a layer's worth is for hashlib, which is five times faster."""
    return f"sha256:{_sha256(content)}"


def is_digest(text: object) -> bool:
    """Whether `text` is a digest that this engine can check: sha256 and nothing else."""
    return isinstance(text, str) and len(text) == 71 and text[:7] == "sha256:" and _HEX.issuperset(text[7:])


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The chainIDs of a stack of layers, lowest first: each names a layer *and* all below it (config.md, Layer
    ChainID).

    Two images share an unpacked layer exactly where they share a chainID.
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain


def _sha256(content: bytes) -> str:
    # The interpreter's own implementation: _sha2 from Python 3.12 on, _sha256 before; hashlib where a build lacks both.
    for module in ("_sha2", "_sha256", "hashlib"):
        try:
            return str(__import__(module).sha256(content).hexdigest())
        except ImportError:
            continue
    raise ImportError("this Python has no sha256")
