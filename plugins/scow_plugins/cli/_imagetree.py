"""`images --tree`: each image with the platforms that its name stands for."""

from __future__ import annotations

from collections.abc import Iterable

from scow.engine import Engine, ImageSummary
from scow_plugins.cli._format import table
from scow_plugins.cli._names import split_name
from scow_plugins.cli._units import human_size


async def tree(engine: Engine, images: Iterable[ImageSummary], wanted: str) -> list[str]:
    """The lines; `wanted` limits them to a repository or a name."""
    sizes = {each.manifest_digest: each.size for each in images}
    rows: list[list[str]] = []
    for image in images:
        for name in image.names or (image.id.short,):
            if wanted and wanted not in (name, split_name(name)[0]):
                continue
            digest, entries = await engine.platforms(str(image.manifest_digest))
            rows.append([name, digest.short, "", ""])
            for entry in entries:
                mark = "└─ " if entry is entries[-1] else "├─ "
                size = sizes.get(entry.manifest)
                rows.append(
                    [
                        mark + (str(entry.platform) if entry.platform else "unknown"),
                        (entry.id or entry.manifest).short,
                        human_size(size, 3) if size is not None else "",
                        "yes" if entry.id is not None else "no",
                    ]
                )
    return table(["IMAGE", "ID", "SIZE", "HERE"], rows)
