"""commit: a container's changes as one more layer, and an image on top of its own."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from scow.content.store import disk_errors
from scow.engine.core import Core
from scow.engine.instructions import apply_instructions
from scow.engine.rootfs import changes_of
from scow.errors import Corrupt, NotFound, Unsupported
from scow.layers.writer import TarWriter, write_changes
from scow.model.container import Container, ContainerSpec
from scow.model.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Document,
)
from scow.model.digest import Digest
from scow.model.image import CONFIG_MAX, MANIFEST_MAX, Manifest, check_layers, parse_config, parse_document
from scow.state.images import ImageRow

_LEVEL: Final = 2


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that was just written into the store."""

    descriptor: Descriptor
    diff_id: Digest


def commit(core: Core, container: Container, author: str, message: str, changes: Sequence[str]) -> ImageRow:
    """Write layer, configuration and manifest; gives the image's row, which is not saved yet. Blocks.

    Raises NotFound (what the image was made of is gone), Unsupported (a container of `host:`), Invalid, Exhausted.
    """
    if "host" in container.spec.layer_drivers:
        raise Unsupported(
            "a container of host: can't be committed: its image is this machine",
            hint="`scow diff` lists what it has changed, `scow cp` copies it",
        )
    manifest, raw = _parent(core, container)
    check_layers(len(manifest.layers) + 1)
    docker = manifest.media_type == DOCKER_MANIFEST
    layer = _write_layer(core, container, DOCKER_LAYER + ".gzip" if docker else OCI_LAYER + "+gzip")
    config = _config(raw, container.spec, layer, author, message, changes, len(manifest.layers))
    parse_config(config)
    media = DOCKER_CONFIG if docker else OCI_CONFIG
    above = Document(Descriptor(media, Digest.of(config), len(config)), config)
    layers = [*manifest.layers, *([layer.descriptor] if layer else [])]
    data = msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
            "config": _plain(above.descriptor),
            "layers": [_plain(each) for each in layers],
        }
    )
    whole = Document(Descriptor(DOCKER_MANIFEST if docker else OCI_MANIFEST, Digest.of(data), len(data)), data)
    for document in (above, whole):
        core.content.put(document)
    size = sum(each.size for each in layers)
    digest = whole.descriptor.digest
    return ImageRow(digest, above.descriptor.digest, digest, whole.descriptor.media_type, size, time.time())


def _parent(core: Core, container: Container) -> tuple[Manifest, dict[str, Any]]:
    try:
        data = core.content.read(Digest.parse(container.spec.manifest), MANIFEST_MAX)
        manifest = parse_document(data, "")
        if not isinstance(manifest, Manifest):
            raise Corrupt(f"{container.spec.manifest} in the store is no image manifest")
        raw = msgspec.json.decode(core.content.read(manifest.config.digest, CONFIG_MAX), type=dict)
    except NotFound as error:
        raise NotFound(f"{error.message}, which container {container.spec.name} was made from") from None
    if not manifest.media_type:
        manifest = Manifest(OCI_MANIFEST, manifest.config, manifest.layers, manifest.annotations)
    return manifest, raw


def _write_layer(core: Core, container: Container, media_type: str) -> Layer | None:
    """The changes as a blob; None when there are none."""
    with changes_of(core, container) as written:
        if not written.changes:
            return None
        with _Blob.made(core, media_type) as blob:
            writer = TarWriter(blob.write)
            write_changes(writer, written.root, written.changes)
            writer.end()
            return blob.finish()


class _Blob:
    """A gzip blob on its way into the store, named when its digest is known."""

    def __init__(self, core: Core, fd: int, path: str, media_type: str) -> None:
        from isal import isal_zlib

        self._core = core
        self._fd = fd
        self._path = path
        self._media_type = media_type
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._size = 0
        # 31: a gzip header, without time and name.
        self._gzip = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, 31)

    @staticmethod
    @contextmanager
    def made(core: Core, media_type: str) -> Iterator[_Blob]:
        """Left early, nothing stays. Raises Exhausted."""
        place = core.content.path / "ingest"
        path = place / f"layer-{os.getpid()}-{secrets.token_hex(8)}"
        with disk_errors(core.content.path):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield _Blob(core, fd, os.fspath(path), media_type)
        finally:
            os.close(fd)
            path.unlink(missing_ok=True)

    def write(self, data: bytes) -> None:
        self._plain.update(data)
        self._store(self._gzip.compress(data))

    def finish(self) -> Layer:
        self._store(self._gzip.flush())
        digest = Digest("sha256", self._packed.hexdigest())
        target = self._core.content.blob(digest)
        with disk_errors(self._core.content.path):
            os.fdatasync(self._fd)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(self._path, target)
        return Layer(Descriptor(self._media_type, digest, self._size), Digest("sha256", self._plain.hexdigest()))

    def _store(self, data: bytes) -> None:
        self._packed.update(data)
        self._size += len(data)
        view = memoryview(data)
        with disk_errors(self._core.content.path):
            while view:
                view = view[os.write(self._fd, view) :]


def _config(
    raw: dict[str, Any],
    spec: ContainerSpec,
    layer: Layer | None,
    author: str,
    message: str,
    changes: Sequence[str],
    below: int,
) -> bytes:
    """The configuration of the new image: the container's own settings, changed by `changes`."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    image = dict(raw)
    image["created"] = now
    image.pop("author", None)
    if author:
        image["author"] = author
    image["config"] = apply_instructions(_settings(raw.get("config") or {}, spec), changes)
    diff_ids = list((raw.get("rootfs") or {}).get("diff_ids") or [])
    history = list(raw.get("history") or [])
    # Images made by hand often have no history; each layer gets its line, lest ours be taken for one of theirs.
    said = sum(1 for line in history if not line.get("empty_layer"))
    history += [{"created_by": ""} for _ in range(below - said)]
    line: dict[str, Any] = {"created": now, "created_by": " ".join(spec.process.args)}
    if author:
        line["author"] = author
    if message:
        line["comment"] = message
    if layer is None:
        line["empty_layer"] = True
    else:
        diff_ids.append(str(layer.diff_id))
    image["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    image["history"] = [*history, line]
    # What docker keeps about the container that made the parent.
    for key in ("container", "container_config"):
        image.pop(key, None)
    return msgspec.json.encode(image)


def _settings(parent: dict[str, Any], spec: ContainerSpec) -> dict[str, Any]:
    """The parent's settings with those of the container, as docker commit takes them over."""
    settings = dict(parent)
    settings["Entrypoint"], settings["Cmd"] = _command(parent, spec)
    settings["Env"] = list(spec.env)
    settings["Labels"] = dict(spec.labels)
    settings["User"] = spec.process.user
    settings["WorkingDir"] = spec.process.cwd if spec.process.cwd != "/" or parent.get("WorkingDir") else ""
    settings["ExposedPorts"] = {port: {} for port in spec.exposed_ports}
    if spec.stop_signal != "SIGTERM" or parent.get("StopSignal"):
        settings["StopSignal"] = spec.stop_signal
    return {key: value for key, value in settings.items() if value not in ("", [], {}, None)}


def _command(parent: dict[str, Any], spec: ContainerSpec) -> tuple[list[str], list[str]]:
    """ENTRYPOINT and CMD. Of a container of before they were kept, what begins as the image's entrypoint does."""
    if spec.entry_words is not None:
        return list(spec.entrypoint), list(spec.cmd)
    args, entrypoint = list(spec.process.args), parent.get("Entrypoint") or []
    entrypoint = [entrypoint] if isinstance(entrypoint, str) else list(entrypoint)
    known = len(entrypoint) if args[: len(entrypoint)] == entrypoint else 0
    return args[:known], args[known:]


def _plain(descriptor: Descriptor) -> dict[str, object]:
    plain: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    if descriptor.urls:
        plain["urls"] = list(descriptor.urls)
    if descriptor.annotations:
        plain["annotations"] = dict(descriptor.annotations)
    return plain
