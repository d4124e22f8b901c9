"""Experiments that a schedule runs, or a work pool's worker when it is asked: real servers, workers and clocks."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from flows.cli import app
from flows.deployments import ensure_pool
from flows.spec_values import SpecError
from storage.sql import query
from tasks.driver.heartbeat import read_progress
from tests.end_to_end.servers import PREFECT, ask, flow_runs, prefect, running
from tests.end_to_end.support import ROOT, environment, palimpsest, start, wait_until
from tests.end_to_end.test_killed import segments_done

pytestmark = pytest.mark.xdist_group("schedules")  # they mostly wait
NIGHTLY = Path(__file__).parent / "nightly.yaml"


@pytest.fixture(scope="module")
def worker(server: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker of the pool ``tests``, which it makes."""
    folder = tmp_path_factory.mktemp("worker")
    with (folder / "log").open("wb") as log:
        command = [str(PREFECT), "worker", "start", "--pool", "tests", "--type", "process"]
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment() | server, cwd=folder, start_new_session=True
        )
    ours = {"name": {"any_": ["tests"]}}
    with running(process):
        made = wait_until(lambda: bool(ask(server["PREFECT_API_URL"], "work_pools", work_pools=ours)), seconds=120)
        assert made, (folder / "log").read_text()[-3000:]
        yield


@pytest.mark.minutes
def test_a_deployment_that_the_prefect_command_line_triggers(
    server: dict[str, str], worker: None, tmp_path: Path
) -> None:
    experiment, store, address = tmp_path / "on-demand.yaml", tmp_path / "store", server["PREFECT_API_URL"]
    experiment.write_text(NIGHTLY.read_text().replace("name: nightly", "name: on-demand"))
    said = palimpsest("deploy", str(experiment), "--pool", "tests", "--set", f"store={store}", **server).stdout
    assert "deployed palimpsest/on-demand to work pool tests" in said
    # Whoever asks may ask for other values.
    changed = json.dumps({"facts.size": 16, "editors": [{"name": "ft_c", "steps": 2}]})
    given = ("deployment", "run", "palimpsest/on-demand", "-p", f"overrides={changed}", "--watch")
    prefect(*given, variables=server)
    assert query(store, "SELECT editor, edits FROM run_summary WHERE editor <> 'none'").to_pylist() == [
        {"editor": "ft_c", "edits": 16}
    ]
    (run,) = flow_runs(address, store)
    assert run["state_type"] == "COMPLETED"
    shown = ask(address, "artifacts", flow_runs={"id": {"any_": [run["id"]]}})
    by_key = {str(each["key"]): each for each in shown}
    assert by_key["edit-and-score-on-demand"]["data"] == 100.0, "the progress of a stage that is done"
    summary = json.loads(str(by_key["summary-on-demand"]["data"]))
    assert [row["run"].split("-")[0] for row in summary] == ["ft_c"]
    assert "data:image/png;base64," in str(by_key["figures-on-demand"]["data"])
    assert f"file://{store}/report-on-demand.html" in str(by_key["report-on-demand"]["data"])


def test_a_pool_that_others_make_at_the_same_moment(server: dict[str, str]) -> None:
    """A worker that was just started makes its pool, too."""
    together = threading.Barrier(6)

    def make(_: int) -> bool:
        with temporary_settings({PREFECT_API_URL: server["PREFECT_API_URL"]}):
            together.wait()
            return ensure_pool("at-once")

    with ThreadPoolExecutor(6) as several:
        assert sorted(several.map(make, range(6))) == [False] * 5 + [True]


@pytest.mark.slow
def test_one_driver_at_a_time_and_one_that_is_cancelled_on_prefects_pages_finishes_its_units(
    server: dict[str, str], worker: None, tmp_path: Path
) -> None:
    experiment, store, address = tmp_path / "long.yaml", tmp_path / "store", server["PREFECT_API_URL"]
    experiment.write_text(NIGHTLY.read_text().replace("name: nightly", "name: long"))
    settings = (
        f"store={store}",
        "facts.size=200",
        "commit_every=1",
        "editors=[{name: ft_c, batch_sizes: [1], steps: 60}]",
    )
    palimpsest("deploy", str(experiment), "--pool", "tests", *(p for s in settings for p in ("--set", s)), **server)
    prefect("deployment", "run", "palimpsest/long", variables=server)
    assert wait_until(lambda: segments_done(store) >= 2, seconds=120)
    prefect("deployment", "run", "palimpsest/long", variables=server)

    def left_out() -> list[str]:
        of_long: dict[str, Any] = {"name": {"any_": ["long"]}}
        found: list[Any] = ask(address, "flow_runs", deployments=of_long, sort="START_TIME_ASC")
        return [run["state"]["message"] for run in found if run["state_type"] == "CANCELLED"]

    assert wait_until(lambda: bool(left_out()), seconds=90, pause=1.0)
    assert left_out()[0].endswith("is at it; what is missing then is done by the next run")
    (run,) = flow_runs(address, store)
    prefect("flow-run", "cancel", str(run["id"]), variables=server)

    def state() -> Any:
        return flow_runs(address, store)[0]["state"]

    assert wait_until(lambda: state()["type"] == "CANCELLED", seconds=60, pause=0.5)
    assert 2 <= segments_done(store) < 200
    (told,) = read_progress(str(store))
    assert told["ended"] == "cancelled", "the driver itself came to its end, and was not killed"


@pytest.mark.minutes
def test_a_schedule_fires_by_itself_and_adds_only_what_is_new(server: dict[str, str], tmp_path: Path) -> None:
    file, store, log = tmp_path / "nightly.yaml", tmp_path / "store", tmp_path / "log"
    shutil.copy(NIGHTLY, file)
    with running(start("serve", str(file), "--cron", "* * * * *", "--set", f"store={store}", log=log, **server)):

        def completed() -> list[dict[str, Any]]:
            return [run for run in flow_runs(server["PREFECT_API_URL"], store) if run["state_type"] == "COMPLETED"]

        assert wait_until(lambda: bool(completed()), seconds=240, pause=1.0), log.read_text()[-3000:]
        first = commits(store)
        spec = yaml.safe_load(file.read_text())
        spec["editors"].append({"name": "no_op", "batch_sizes": [4]})
        file.write_text(yaml.safe_dump(spec))
        editors = "SELECT editor FROM run_summary ORDER BY editor"
        assert wait_until(lambda: query(store, editors).num_rows == 3, seconds=240, pause=2.0), log.read_text()[-3000:]
        before = len(completed())
        assert wait_until(lambda: len(completed()) > before, seconds=240, pause=1.0), log.read_text()[-3000:]
        assert [row["editor"] for row in query(store, editors).to_pylist()] == ["ft_c", "no_op", "none"]
        assert all(run["auto_scheduled"] for run in completed()), "nobody asked for them"
        now = commits(store)
        assert {name: now[name] for name in first} == first, "what was there was not done again"


def commits(store: Path) -> dict[str, str]:
    """Return the attempt that made each unit."""
    return {str(path): json.loads(path.read_text())["attempt"] for path in (store / "commits").rglob("*.json")}


@pytest.mark.slow
def test_the_deployments_of_a_checkout(server: dict[str, str]) -> None:
    prefect("work-pool", "create", "palimpsest", "--type", "process", variables=server)
    prefect("deploy", "--all", variables=server)
    found = ask(server["PREFECT_API_URL"], "deployments")
    demo = next(each for each in found if each["name"] == "demo")
    assert demo["entrypoint"] == "flows/deployments.py:scheduled"
    assert demo["parameters"] == {"file": "flows/experiments/demo.yaml", "store": "results/demo"}
    pull = json.dumps(demo["pull_steps"])
    assert str(ROOT) in pull, "relative paths are those of the checkout"


def refused(*arguments: str, server: str | None) -> str:
    """Return what a command says, in this process, that refuses to go on with such a server."""
    with (
        patch.dict(os.environ),
        temporary_settings({PREFECT_API_URL: server}),
        pytest.raises(SpecError) as caught,
    ):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    return str(caught.value)


def test_a_schedule_without_a_server_is_refused() -> None:
    given = ("serve", str(NIGHTLY), "--cron", "0 2 * * *")
    assert "PREFECT_API_URL names none; start one with `prefect server start`" in refused(*given, server=None)
    assert "does not answer" in refused(*given, server="http://127.0.0.1:9/api")


def test_a_run_is_refused_before_it_begins_where_its_server_does_not_answer(tmp_path: Path) -> None:
    given = ("run", str(NIGHTLY), "--set", f"store={tmp_path / 'store'}")
    done = palimpsest(*given, check=False, PREFECT_HOME=str(tmp_path), PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 2 and "127.0.0.1:9/api does not answer" in done.stderr
    assert "unset PREFECT_API_URL" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--cron", "61 * * * *"), "expected five fields"),
        (("--cron", "0 2 * * * *"), "it has 6 fields; expected five fields"),
        (("--cron", "0 2 31 2 *"), "failed to find next date"),
        (("--cron", "0 2 * * *", "--timezone", "Europe"), "a name as Europe/Paris"),
        (("--cron", "0 2 * * *", "--timezone", "Mars"), "a name as Europe/Paris"),
        (("--set", "facts.size=many"), "facts.size"),
    ],
)
def test_a_bad_schedule_is_refused(options: tuple[str, ...], expected: str) -> None:
    assert expected in refused("deploy", str(NIGHTLY), *options, server="http://127.0.0.1:9/api")


class Locked(BaseHTTPRequestHandler):
    """A server that wants a password: its health is told to everyone, nothing else."""

    def do_GET(self) -> None:
        self._answer(200 if self.path.endswith("/health") else 401)

    def do_POST(self) -> None:
        self._answer(401)

    def _answer(self, status: int) -> None:
        content = b"true" if status == 200 else b'{"exception_message": "Unauthorized"}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def test_a_server_that_wants_a_password_is_told_apart() -> None:
    locked = ThreadingHTTPServer(("127.0.0.1", 0), Locked)
    threading.Thread(target=locked.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{locked.server_port}/api"
    said = refused("deploy", str(NIGHTLY), server=address)
    locked.shutdown()
    assert "refuses: 401" in said and "PREFECT_API_AUTH_STRING" in said
