"""Test suites and helpers for plugins of all kinds, free of pytest."""
