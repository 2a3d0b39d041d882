"""Names and platforms, by Docker's rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer import errors, oci
from minicontainer.image import reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("typed", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("docker.io/a/b:x", "docker.io/a/b:x", "a/b:x"),
        ("a/b/c", "docker.io/a/b/c:latest", "a/b/c:latest"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest", "localhost:5000/a:latest"),
        ("LOCAL/a", "LOCAL/a:latest", "LOCAL/a:latest"),
        ("127.0.0.1:5055/a/b:t", "127.0.0.1:5055/a/b:t", "127.0.0.1:5055/a/b:t"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("quay.io/a_b/c__d/e-f--g.h", "quay.io/a_b/c__d/e-f--g.h:latest", "quay.io/a_b/c__d/e-f--g.h:latest"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        ("a:" + "t" * 128, "docker.io/library/a:" + "t" * 128, "a:" + "t" * 128),
        ("a:_x.y-Z", "docker.io/library/a:_x.y-Z", "a:_x.y-Z"),
        ("0" * 63, "docker.io/library/" + "0" * 63 + ":latest", "0" * 63 + ":latest"),
    ],
)
def test_a_name_has_one_full_and_one_familiar_form(typed: str, full: str, familiar: str) -> None:
    parsed = reference.parse(typed)
    assert (parsed.full(), parsed.familiar()) == (full, familiar)
    assert reference.parse(full).full() == full
    assert reference.parse(familiar).full() == full


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "/",
        "a/",
        "/a",
        "a//b",
        "Debian",
        "a/B",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a._b",
        "a b",
        "a:",
        "a:.x",
        "a:-x",
        "a:" + "t" * 129,
        "a:b:c",
        "a@",
        "a@sha256:12",
        f"a@{DIGEST.upper()}",
        "a@md5:" + "0" * 32,
        "0" * 64,
        "a" * 256,
        "-x.io/a",
        "x.io:port/a",
        "x..io/a",
        "ä",
        "a\n",
        "a:x\n",
        "é.io/a",
        "[::1/a",
        "a/../b",
        "../a",
        "a:x/y",
    ],
)
def test_what_is_no_name_is_refused(typed: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        reference.parse(typed)


def test_the_tag_is_kept_beside_a_digest() -> None:
    parsed = reference.parse(f"debian:12@{DIGEST}")
    assert (parsed.tag, parsed.digest) == ("12", DIGEST)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused_and_nothing_else(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except errors.InvalidArgument:
        return
    assert reference.parse(parsed.familiar()).full() == parsed.full()


def platform(architecture: str, variant: str = "", os: str = "linux") -> dict[str, object]:
    return {"architecture": architecture, "os": os, **({"variant": variant} if variant else {})}


@pytest.mark.parametrize(
    ("host", "offered", "chosen"),
    [
        (("amd64", "v3"), [platform("arm64"), platform("amd64")], 1),
        (("amd64", "v3"), [platform("amd64"), platform("amd64", "v2"), platform("amd64", "v3")], 2),
        (("amd64", "v2"), [platform("amd64", "v3"), platform("amd64", "v1")], 1),
        (("amd64", "v1"), [platform("amd64", "v3")], None),
        (("arm64", "v8"), [platform("arm64", "v8"), platform("arm", "v7")], 0),
        (("arm64", "v9"), [platform("arm64")], 0),
        (("arm64", "v8"), [platform("arm64", "v9")], None),
        (("arm", "v7"), [platform("arm", "v5"), platform("arm", "v6")], 1),
        (("arm", "v6"), [platform("arm", "v7"), platform("arm", "v5")], 1),
        (("amd64", "v3"), [platform("unknown", os="unknown"), platform("amd64", os="windows")], None),
        (("amd64", "v3"), [], None),
        (("riscv64", ""), [platform("amd64"), platform("riscv64")], 1),
    ],
)
def test_the_platform_that_suits_best_is_chosen(
    host: tuple[str, str], offered: list[dict[str, object]], chosen: int | None
) -> None:
    assert reference.choose(offered, host) == chosen


def test_this_machine_runs_its_own_architecture() -> None:
    architecture, _ = reference.host_platform()
    assert reference.runs_here(architecture)
    assert not reference.runs_here("s390x" if architecture != "s390x" else "amd64")


def test_a_chain_id_names_a_layer_and_all_below_it() -> None:
    one, two = oci.digest(b"1"), oci.digest(b"2")
    assert oci.chain_ids([]) == []
    assert oci.chain_ids([one]) == [one]
    assert oci.chain_ids([one, two]) == [one, oci.digest(f"{one} {two}".encode())]
    assert oci.chain_ids([two, two])[1] != oci.chain_ids([one, two])[1]


def test_a_digest_is_sha256_and_nothing_else() -> None:
    assert oci.digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert oci.is_digest(oci.digest(b""))
    for wrong in ("", "sha256:", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "sha512:" + "0" * 64, 7, None):
        assert not oci.is_digest(wrong)
