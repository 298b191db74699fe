"""Archives and directories of images as strangers write them: listed, resolved, fetched from, written into."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Final

import msgspec
import trio
from tests.fuzz.documents import MANIFESTS
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Finding, Target

from scow.api import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Digest, Located, Manifest, Platform, parse_document
from scow.testing.layers import archive, file
from scow_plugins.builder._archive import unpack
from scow_plugins.layout._contents import contents
from scow_plugins.layout._fetch import fetch_blob
from scow_plugins.layout._publish import _write_index
from scow_plugins.layout._resolve import resolve_image

_HERE: Final = Platform("linux", "amd64")
_MOST: Final = 4 << 20


class _Sink:
    def __init__(self) -> None:
        self.offset = 0

    async def write(self, data: bytes) -> None:
        self.offset += len(data)
        if self.offset > _MOST:
            raise Finding("more bytes than an input has")

    async def restart(self) -> None:
        self.offset = 0


def _blobs() -> tuple[dict[str, bytes], dict[str, Any]]:
    layer = archive(file("etc/motd", b"hello"))
    image = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]}}
    ).encode()
    manifest = json.dumps(
        {"schemaVersion": 2, "config": _entry(OCI_CONFIG, image), "layers": [_entry(OCI_LAYER, layer)]}
    ).encode()
    child = {**_entry(OCI_MANIFEST, manifest), "platform": {"os": "linux", "architecture": "amd64"}}
    index = json.dumps({"schemaVersion": 2, "manifests": [child]}).encode()
    files = {f"blobs/sha256/{Digest.of(each).hex}": each for each in (layer, image, manifest, index)}
    named = {"org.opencontainers.image.ref.name": "one", "io.containerd.image.name": "docker.io/a/b:1"}
    root = {
        "schemaVersion": 2,
        "manifests": [{**child, "annotations": named}, {**_entry(OCI_INDEX, index), "annotations": {"a": "b"}}],
    }
    return files, root


def _entry(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data)}


_FILES, _ROOT = _blobs()
_INDEX: Final = json.dumps(_ROOT).encode()


def _packed(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def _docker(layer: str) -> bytes:
    image = next(name for name, data in _FILES.items() if b"rootfs" in data)
    return json.dumps([{"Config": image, "RepoTags": ["a/b:1"], "Layers": [layer]}]).encode()


_LAYER: Final = next(name for name, data in _FILES.items() if b"hello" in data)
_ARCHIVES: Final = (
    _packed({**_FILES, "oci-layout": b"{}", "index.json": _INDEX}),
    _packed({**_FILES, "index.json": _INDEX, "manifest.json": _docker(_LAYER)}),
    _packed({**_FILES, "manifest.json": _docker("two/layer.tar")}, {"two/layer.tar": f"../{_LAYER}"}),
)


def archives(data: bytes, place: Path) -> str:
    """`load`, `oci-archive:` and `docker-archive:`."""
    path = place / "x.tar"
    path.write_bytes(data)
    said = []
    for transport in ("oci-archive", "docker-archive"):
        found = contents(transport, path)
        for each in (found or ())[:2]:
            said.append(trio.run(_through, each.reference))
    return str(said)


async def _through(reference: Located) -> int:
    resolved = await resolve_image(reference, _HERE)
    manifest = parse_document(resolved.manifest.data, resolved.manifest.descriptor.media_type)
    if not isinstance(manifest, Manifest):
        raise Finding("what is resolved is no manifest")
    for blob in (manifest.config, *manifest.layers[:3]):
        await fetch_blob(resolved.source, blob, _Sink())  # type: ignore[arg-type]
    return len(manifest.layers)


def directory(data: bytes, place: Path) -> str:
    """`oci:DIR`: a stranger's index.json, read and then added to; and the blobs, wherever it says that they are."""
    for name, blob in _FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(blob)
    (place / "index.json").write_bytes(data)
    entry = {**_entry(OCI_MANIFEST, b"new"), "annotations": {"org.opencontainers.image.ref.name": "one"}}
    try:
        return str(trio.run(_through, Located("oci", str(place))))
    finally:
        _write_index(place, [entry])
        parsed = msgspec.json.decode((place / "index.json").read_bytes())
        if entry not in parsed["manifests"]:
            raise Finding("what was added is not in the index")


def added(data: bytes, place: Path) -> str:
    """ADD of an archive: what comes out of it for a layout that writes nothing."""
    layout = _Names()
    unpack(iter([data[at : at + 1000] for at in range(0, len(data), 1000)]), layout, "/target")  # type: ignore[arg-type]
    return f"{min(len(layout.names), 9)}"


class _Names:
    """Takes what a layer would be made of; the layer itself is its own target."""

    def __init__(self) -> None:
        self.names: list[bytes] = []

    def settle(self, target: str) -> str:
        return target

    def directory(self, target: str) -> None:
        pass

    def entry(self, member: Any, data: Any, target: str, owner: Any) -> None:
        if member.name.startswith((b"/", b"../")) or member.name == b"..":
            raise Finding(f"an entry leads out: {member.name!r}")
        self.names.append(member.name)
        total = 0
        for piece in data or ():
            total += len(piece)
            if total > 64 << 20:
                break


_MEMBERS: Final = archive(file("a", b"x" * 3000), file("d/b", b"y"))

TARGETS: Final = (
    Target("archives", _ARCHIVES, Mutator.tar, archives, (b"index.json", b"manifest.json", _LAYER.encode(), b"blobs/")),
    Target(
        "directory", (_INDEX, *MANIFESTS), Mutator.json, directory, (b"manifests", b"annotations", b"sha256:", b"one")
    ),
    Target("added", (_MEMBERS, gzip.compress(_MEMBERS, mtime=0)), Mutator.tar, added, (b"BZh91AY&SY", b"\xfd7zXZ\0")),
)
