"""Settings of the property tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a machine that is busy with something else, making examples may be slow, and nothing is wrong.
settings.register_profile("scow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("scow")
