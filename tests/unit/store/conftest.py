"""An engine without plugins, and images in it that are nothing but blobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from scow.config import Config
from scow.content.store import ContentStore
from scow.engine.core import Core
from scow.events import EventLog
from scow.model.descriptor import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Document
from scow.model.digest import Digest
from scow.paths import Paths
from scow.plugins import Registry
from scow.stages import Stages
from scow.state import images
from scow.state.database import Database


def make_core(paths: Paths) -> Core:
    paths.make()
    content = ContentStore(paths.content)
    content.prepare()
    registry = Registry(paths, Config(), [])
    events = EventLog(paths.events, "test")
    return Core(paths, Config(), None, registry, events, Stages(registry, events), content, Database(paths.database))


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    made = make_core(Paths(tmp_path / "root", tmp_path / "run"))
    yield made
    made.database.close()


def put(core: Core, media_type: str, data: bytes) -> Descriptor:
    descriptor = Descriptor(media_type, Digest.of(data), len(data))
    core.content.put(Document(descriptor, data))
    return descriptor


def add_image(core: Core, name: str | None, *layers: bytes) -> images.ImageRow:
    """An image of some layers, whose bytes are whatever they are."""
    blobs = [put(core, OCI_LAYER, layer) for layer in layers]
    config = put(
        core,
        OCI_CONFIG,
        msgspec.json.encode(
            {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [str(each.digest) for each in blobs]}}
        ),
    )

    def plain(each: Descriptor) -> dict[str, object]:
        return {"mediaType": each.media_type, "digest": str(each.digest), "size": each.size}

    manifest = put(
        core,
        OCI_MANIFEST,
        msgspec.json.encode(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": plain(config),
                "layers": [plain(each) for each in blobs],
            }
        ),
    )
    row = images.ImageRow(manifest.digest, config.digest, manifest.digest, OCI_MANIFEST, manifest.size, 1.0)
    images.save_image(core.database, row, name, None)
    return row
