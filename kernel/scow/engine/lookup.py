"""Whether a registry has something newer under a tag whose image is here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from scow.errors import Denied, Invalid, NotFound, Unavailable
from scow.model.reference import Named, parse_reference
from scow.state import images as rows

if TYPE_CHECKING:
    from scow.engine.core import Core
    from scow.model.platform import Platform

#: What a look-up may take while there is an image to go on with, in seconds: offline builds shall not wait for retries.
_PATIENCE: Final = 10


async def newer(core: Core, name: str, platform: Platform, row: rows.ImageRow, warn: Callable[[str], None]) -> bool:
    """Whether a name means another image now than the local one. A failed look-up is told, and means no.

    Only of what came out of a registry under this name: what was built or tagged here is the user's own, and a
    stranger who takes the name there must not become its base.
    """
    try:
        reference = parse_reference(name, core.registry.transports())
    except Invalid:
        return False  # an image's ID
    if not isinstance(reference, Named) or reference.digest is not None:
        return False
    known = rows.image_by_name(core.database, f"{reference.repository}@{row.root}")
    if known is None or known.manifest != row.manifest:
        return False
    why = f"no answer within {_PATIENCE} s"
    try:
        with trio.move_on_after(_PATIENCE):
            resolved = await core.stages.resolve(reference, platform)
            return resolved.manifest.descriptor.digest != row.manifest
    except (Denied, NotFound, Unavailable) as error:
        why = error.message
    warn(f"{name} couldn't be looked up, the local image is used: {why}")
    return False
