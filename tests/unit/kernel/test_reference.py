"""Image names: Docker's own cases, and what must hold for all of them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.errors import Invalid
from scow.model.digest import Digest, chain_ids
from scow.model.reference import Located, Named, parse_named, parse_reference

HEX = "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.2", "docker.io/library/nginx:1.2", "nginx:1.2"),
        ("user/repo", "docker.io/user/repo:latest", "user/repo:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("docker.io/user/repo", "docker.io/user/repo:latest", "user/repo:latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("index.docker.io/user/repo:1", "docker.io/user/repo:1", "user/repo:1"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("LOCALHOST/x", "LOCALHOST/x:latest", "LOCALHOST/x:latest"),
        ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
        ("localhost:5000/x/y", "localhost:5000/x/y:latest", "localhost:5000/x/y:latest"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("a.b/c", "a.b/c:latest", "a.b/c:latest"),
        ("xn--n3h.com:5000/a", "xn--n3h.com:5000/a:latest", "xn--n3h.com:5000/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("[fd00:1:2::3]/a:t", "[fd00:1:2::3]/a:t", "[fd00:1:2::3]/a:t"),
        ("127.0.0.1:5000/a:t", "127.0.0.1:5000/a:t", "127.0.0.1:5000/a:t"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}", f"nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}", f"nginx:1@{DIGEST}"),
        ("a/b/c/d", "docker.io/a/b/c/d:latest", "a/b/c/d:latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
        ("a__b/c-d", "docker.io/a__b/c-d:latest", "a__b/c-d:latest"),
        ("a----b", "docker.io/library/a----b:latest", "a----b:latest"),
        (HEX[:63], f"docker.io/library/{HEX[:63]}:latest", f"{HEX[:63]}:latest"),
        ("x:_t.-", "docker.io/library/x:_t.-", "x:_t.-"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
        ("a.b/" + "x" * 255, "a.b/" + "x" * 255 + ":latest", "a.b/" + "x" * 255 + ":latest"),
    ],
)
def test_normalised(text: str, full: str, familiar: str) -> None:
    name = parse_named(text)
    assert (str(name), name.familiar) == (full, familiar)
    assert parse_named(str(name)) == parse_named(familiar) == name


@pytest.mark.parametrize(
    "text",
    [
        "", HEX, "Nginx", "user/Repo", "nginx:", ":tag", "@", "nginx@", f"@{DIGEST}", "nginx@sha256:abc", "nginx@abc",
        f"nginx@sha256:{HEX.upper()}", f"nginx@md5:{HEX[:32]}", "a//b", "/a", "a/", "a/../b", "-a", "a-", "a___b",
        "a._b", "a..b", "a b", "nginx\n", "nginx:1\n", "http://x/y", "https://github.com/docker/docker",
        "x:" + "t" * 129, "x:.t", "x:-t", "x" * 256, "[::1]", "[::1]:5000",
        "[::1/a", "-h.com/a", "a.b:x/c", "a.b:/c",
        "..", "docker.io/",
        "nginx:a:b", f"nginx@{DIGEST}@{DIGEST}", "é", "ａ", "a\0b", "[fe80::1%eth0]/a", "_docker/_docker", "a@b:c",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_named(text)
    assert not caught.value.message.endswith(".")


def test_upper_case_is_named_with_the_way_out() -> None:
    with pytest.raises(Invalid, match="lower case") as caught:
        parse_named("user/Repo:Tag")
    assert caught.value.hint is not None
    assert "user/repo" in caught.value.hint


def test_transports() -> None:
    assert parse_reference("host:") == Located("host", "")
    assert str(parse_reference("oci:/a b", ("oci",))) == "oci:/a b"
    assert parse_reference("oci:/a b", ("oci",)).familiar == "oci:/a b"
    assert parse_reference("host:5000/x", ("host",)) == Located("host", "5000/x")
    assert isinstance(parse_reference("host", ("host",)), Named)
    assert isinstance(parse_reference("hostile:1", ("host",)), Named)


def test_pinned() -> None:
    digest = Digest.parse(DIGEST)
    assert str(parse_named("a.b/c:t").pinned(digest)) == f"a.b/c@{DIGEST}"


_component = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+){0,2}", fullmatch=True)
_label = st.from_regex(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?", fullmatch=True)
_domain = st.one_of(
    st.just("docker.io"),
    st.just("localhost"),
    st.builds(lambda a, b, port: f"{a}.{b}{port}", _label, _label, st.sampled_from(["", ":5000"])),
)


@st.composite
def names(draw: st.DrawFn) -> Named:
    domain = draw(_domain)
    path = "/".join(draw(st.lists(_component, min_size=1, max_size=4)))
    if domain == "docker.io" and "/" not in path:
        path = f"library/{path}"
    tag = draw(st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True))
    digest = draw(st.none() | st.binary(max_size=4).map(Digest.of))
    return Named(domain, path, tag or (None if digest else "latest"), digest)


@given(names())
def test_round_trip(name: Named) -> None:
    assert parse_named(str(name)) == name
    # A first component that looks like a host would be read as one; Docker's familiar form has the same hole.
    if name.domain != "docker.io" or "." not in name.path.split("/")[0]:
        assert parse_named(name.familiar) == name


@given(st.text(alphabet=string.printable + "é\0[]", max_size=40))
def test_any_text_parses_or_is_invalid(text: str) -> None:
    try:
        name = parse_named(text)
    except Invalid:
        return
    assert parse_named(str(name)) == name


@given(st.text(max_size=30))
def test_digest_text(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except Invalid:
        return
    assert str(digest) == text


def test_digests() -> None:
    assert str(Digest.of(b"")) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert len(Digest.of(b"", "sha512").hex) == 128
    assert Digest.of(b"").short == "e3b0c44298fc"
    for bad in ("sha256", "sha256:", f"sha256:{HEX}0", f"sha256:{HEX.upper()}", f"SHA256:{HEX}", f"sha512:{HEX}"):
        with pytest.raises(Invalid):
            Digest.parse(bad)


def test_chain_ids_by_the_spec() -> None:
    a, b, c = (Digest.of(text) for text in (b"a", b"b", b"c"))
    ab = Digest.of(f"{a} {b}".encode())
    assert chain_ids((a, b, c)) == (a, ab, Digest.of(f"{ab} {c}".encode()))
    assert chain_ids(()) == ()
