"""Settings of Prefect and Ray for the embedded default: quiet, offline, beside the store.  Set before they are imported."""

import os
from pathlib import Path

VARIABLES = {
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # An accelerator worker is chosen by Ray; without this, Ray warns about its own future default.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Wherever a run takes place."""

_EMBEDDED = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LEVEL": "WARNING",
}


_LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
"""An embedded cluster listens on loopback only; by Ray's default, which foresees other nodes, on every interface."""


def configure(store: str, *, ray: str = "local") -> None:
    """Set what is not set already; an existing Prefect server or home is left as it is.

    Args:
        ray: ``local``, or the address of a cluster.
    """
    if ray == "local":
        os.environ.setdefault(*_LOOPBACK)
    for name, value in (VARIABLES | _EMBEDDED).items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ:
        remote = "://" in store
        beside = Path.home() / ".cache" / "palimpsest" / "_prefect" if remote else Path(store).absolute() / "_prefect"
        home = os.environ.setdefault("PREFECT_HOME", str(beside))
        Path(home).mkdir(parents=True, exist_ok=True)
