"""Settings of Prefect and Ray for the embedded default: quiet, offline, beside the store.  Set before they are imported."""

import os
import platform
import tomllib
from pathlib import Path

from flows.spec_values import SpecError
from storage.files import LocalFiles, check_room

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


PREFECT_BYTES = 8 << 20
"""What Prefect's server writes before it answers; 4 to 5 MiB were measured (3.x: its database and the log of that)."""
_SOCKET_BYTES = 107
"""Of the name of a Unix socket on Linux."""
_LOOPBACK = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
"""An embedded cluster listens on loopback only; by Ray's default, which foresees other nodes, on every interface."""


def configure(store: str, *, ray: str = "local") -> None:
    """Set what is not set already; a Prefect server or home that is named, or a profile's server, is left as it is.

    Prefect's own records are kept for each host apart: SQLite's write-ahead log does not work between hosts.

    Args:
        ray: ``local``, or the address of a cluster.

    Raises:
        StorageError: There is no room for these records.
        SpecError: The directory for temporary files has too long a name for Ray's sockets.
    """
    if ray == "local":
        os.environ.setdefault(*_LOOPBACK)
        _check_sockets()
    for name, value in (VARIABLES | _EMBEDDED).items():
        os.environ.setdefault(name, value)
    if "PREFECT_API_URL" not in os.environ and (server := _servers_of_profile()) is not None:
        os.environ["PREFECT_API_URL"] = server
    if "PREFECT_API_URL" not in os.environ:
        place = Path.home() / ".local" / "state" / "palimpsest" if "://" in store else Path(store).absolute()
        home = os.environ.setdefault("PREFECT_HOME", str(place / "_prefect" / platform.node()))
        # Prefect says of a full disk, after two minutes, that its server did not come up.
        LocalFiles(place).make()
        check_room(Path(home), PREFECT_BYTES, "Prefect's own records")


def _check_sockets() -> None:
    """Refuse a directory of temporary files below which Ray cannot make its sockets: the system cuts their names short."""
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    folder = os.environ[variable] if variable else "/tmp"
    longest = max(len(str(os.getpid())), 7)
    needed = len(os.fsencode(f"{folder}/ray/session_2026-01-01_00-00-00_000000_/sockets/plasma_store")) + longest
    if needed > _SOCKET_BYTES:
        raise SpecError(
            f"{variable}={folder} is too long for Ray's sockets: their names would have {needed} bytes, and the system takes "
            f"{_SOCKET_BYTES}; set RAY_TMPDIR to a directory with a short name, as /tmp"
        )


def _servers_of_profile() -> str | None:
    """Return the server that ``prefect config set PREFECT_API_URL=...`` has named for all of this user's commands."""
    if "PREFECT_HOME" in os.environ:
        return None  # another place, with profiles of its own
    try:
        found = tomllib.loads((Path.home() / ".prefect" / "profiles.toml").read_text())
        name = os.environ.get("PREFECT_PROFILE", found["active"])
        return str(found["profiles"][name]["PREFECT_API_URL"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
