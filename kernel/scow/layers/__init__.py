"""Tar layers: streams, compression, safe extraction. Shared by the storage plugins through `scow.api.layers`."""
