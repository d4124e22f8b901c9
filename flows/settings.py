"""Settings of Prefect and Ray for the embedded default: quiet, offline, beside the store.  Set before they are imported."""

import os
from pathlib import Path


def configure(store: str) -> None:
    """Set what is not set already; an existing Prefect server or home is left as it is."""
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    # An accelerator worker is chosen by Ray; without this, Ray warns about its own future default.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if "PREFECT_API_URL" not in os.environ:
        remote = "://" in store
        beside = Path.home() / ".cache" / "palimpsest" / "_prefect" if remote else Path(store).absolute() / "_prefect"
        home = os.environ.setdefault("PREFECT_HOME", str(beside))
        Path(home).mkdir(parents=True, exist_ok=True)
