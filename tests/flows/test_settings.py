"""Where Prefect's records are kept, and which server is asked, before Prefect is imported."""

import os
import platform
from pathlib import Path

import pytest

from flows.settings import configure
from flows.spec_values import SpecError


def settings(monkeypatch: pytest.MonkeyPatch, store: str, **variables: str) -> dict[str, str]:
    """Return the environment that is set for a store."""
    environment = dict(variables)
    monkeypatch.setattr(os, "environ", environment)
    configure(store)
    return environment


def test_records_of_two_hosts_on_one_store_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"HOME": str(tmp_path / "home")}
    found = settings(monkeypatch, str(tmp_path / "store"), **home)
    assert found["PREFECT_HOME"] == str(tmp_path / "store" / "_prefect" / platform.node())
    found = settings(monkeypatch, "s3://bucket/prefix", **home)
    assert found["PREFECT_HOME"] == str(tmp_path / "home/.local/state/palimpsest/_prefect" / platform.node())
    found = settings(monkeypatch, "s3://bucket/prefix", **home, PREFECT_HOME=str(tmp_path))
    assert found["PREFECT_HOME"] == str(tmp_path)


def test_a_server_of_the_users_profile_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"HOME": str(tmp_path)}
    (tmp_path / ".prefect").mkdir()
    profiles = tmp_path / ".prefect" / "profiles.toml"
    profiles.write_text(
        'active = "lab"\n[profiles.lab]\nPREFECT_API_URL = "http://lab:4200/api"\n[profiles.ephemeral]\nX = "1"\n'
    )
    found = settings(monkeypatch, str(tmp_path / "store"), **home)
    assert found["PREFECT_API_URL"] == "http://lab:4200/api" and "PREFECT_HOME" not in found
    found = settings(monkeypatch, str(tmp_path / "store"), **home, PREFECT_API_URL="http://mine:4200/api")
    assert found["PREFECT_API_URL"] == "http://mine:4200/api"
    for variables in ({"PREFECT_PROFILE": "ephemeral"}, {"PREFECT_HOME": str(tmp_path / "elsewhere")}):
        found = settings(monkeypatch, str(tmp_path / "store"), **home, **variables)
        assert "PREFECT_API_URL" not in found and "PREFECT_HOME" in found
    profiles.write_text("not toml")
    assert "PREFECT_API_URL" not in settings(monkeypatch, str(tmp_path / "store"), **home)


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_directory_too_long_for_sockets_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    long = "/tmp/" + "x" * 70
    with pytest.raises(SpecError, match=rf"^{variable}={long} is too long for Ray's sockets.*107; set RAY_TMPDIR"):
        settings(monkeypatch, str(tmp_path / "store"), HOME=str(tmp_path), **{variable: long})
    short = {"TMPDIR": long, "RAY_TMPDIR": "/tmp"}
    settings(monkeypatch, str(tmp_path / "store"), HOME=str(tmp_path), **short)
    monkeypatch.setattr(os, "environ", {"TMPDIR": long, "HOME": str(tmp_path)})
    configure(str(tmp_path / "store"), ray="auto")  # another machine's matter
