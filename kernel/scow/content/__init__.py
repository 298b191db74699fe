"""Blobs on disk: an OCI image layout that other tools can read as it is."""
