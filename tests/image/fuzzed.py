"""atheris, which looks where the code goes: `python -m tests.image.fuzzed layers|archives RUNS SECONDS FOLDER` exits
with 0 if nothing but our errors was raised, and nothing was written outside.

`layers`: an input is a tar stream, whose headers' checksums are made right before it is unpacked. `archives`: the
documents of an OCI archive, one after another, each with a length before it; digests are made right. FOLDER keeps what
was found worth looking at again. The seed is always the same.
"""

import contextlib
import importlib
import io
import sys

atheris = importlib.import_module("atheris")  # not there for mypy, but where `./dev test --all` has put it

with atheris.instrument_imports(include=["minicontainer.image", "minicontainer.oci"], enable_loader_override=False):
    from minicontainer import errors, oci
    from minicontainer.image import archive, layers, store
    from tests.image import test_archive, test_fuzz


def unpack(content: bytes) -> None:
    """A layer."""
    with test_fuzz.folder() as place, contextlib.suppress(errors.InvalidImage):
        layers.unpack(io.BytesIO(test_fuzz.summed(bytearray(content))).read, str(place))


def load(content: bytes) -> None:
    """An archive: config, manifest and index; $CONFIG and the like stand for what only their digests can say."""
    config, _, rest = content.partition(b"\0")
    manifest, _, index = rest.partition(b"\0")
    manifest = manifest.replace(b"$CONFIG", test_archive.digest(config).encode())
    index = index.replace(b"$MANIFEST", test_archive.digest(manifest).encode())
    files: dict[str, bytes | str | None] = {"oci-layout": oci.LAYOUT, "index.json": index}
    for blob in [config, manifest, *test_archive.LAYERS[:2]]:
        files[f"blobs/sha256/{test_archive.digest(blob)[7:]}"] = blob
    with test_fuzz.folder() as place:
        here = store.Store(f"{place}/store")
        with contextlib.suppress(errors.MiniContainerError):
            archive.load(here, io.BytesIO(test_archive.packed(files)))
        test_fuzz.look(here)


def seeds(what: str) -> list[bytes]:
    """What to begin with: one that is right of each kind."""
    if what == "layers":
        return [layer[:3072] for layer in test_archive.LAYERS]
    config, manifest, index = test_fuzz.documents([[], [], []], test_archive.LAYERS[:2])
    index = index.replace(test_archive.digest(manifest).encode(), b"$MANIFEST")
    manifest = manifest.replace(test_archive.digest(config).encode(), b"$CONFIG")
    return [config + b"\0" + manifest + b"\0" + index]


what, runs, seconds, folder = sys.argv[1:]
for number, seed in enumerate(seeds(what)):
    with open(f"{folder}/seed{number}", "wb") as file:
        file.write(seed)
words = [f"-runs={runs}", f"-max_total_time={seconds}", "-seed=1", "-max_len=6144", "-rss_limit_mb=0",
         "-timeout=60", f"-artifact_prefix={folder}/", folder]  # fmt: skip
atheris.Setup([sys.argv[0], *words], {"layers": unpack, "archives": load}[what])
atheris.Fuzz()
