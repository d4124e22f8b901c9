"""Models that a hub refuses; the hub is a server on loopback that answers as the real one does."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.data.model_files import resolve_model, verified_folder

RESOLVE = """
from tasks.errors import InputError
from tasks.data.model_files import resolve_model
try:
    resolve_model("org/secret", revision="0" * 40)
except InputError as error:
    print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """Knows one gated model."""

    def do_GET(self) -> None:
        self.send_response(401 if "org/secret" in self.path else 404)
        self.send_header("X-Error-Code", "GatedRepo" if "org/secret" in self.path else "RepoNotFound")
        self.send_header("X-Error-Message", "Access to model org/secret is restricted.")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    """With one, another node would ask the hub for the folder's name."""
    shutil.copytree(resolve_model("factworld-tiny").folder, tmp_path / "model")
    found = resolve_model(str(tmp_path / "model"), revision="main")
    assert found.revision is None and verified_folder(found) == str((tmp_path / "model").resolve())


def test_a_gated_model_is_refused_with_what_to_do(hub: str, tmp_path: Path) -> None:
    variables = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", RESOLVE], capture_output=True, text=True, env=os.environ | variables)
    assert "is gated: accept its licence" in done.stdout and "hf auth login" in done.stdout, done.stderr[-2000:]
