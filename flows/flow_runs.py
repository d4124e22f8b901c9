"""Prefect's records of runs: who drives which, and which of them died without a word."""

import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run
from prefect.states import Crashed

from flows.spec_values import SpecError
from storage.digests import digest_of
from storage.errors import StorageError
from tasks.errors import TaskError

_SILENT_S = 120.0
_UNDER_WAY = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)


class _Brief(logging.Filter):
    """Takes the traceback from the record of an error that says itself what is wrong; an orderly end is no error."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("Finished in state Cancelled("):
            return False  # the command says so itself
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, (SpecError, StorageError, TaskError)):
            record.exc_info = None
        return True


def log_briefly() -> None:
    """Let Prefect log the errors of this project as their messages; what nobody foresaw keeps its traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_Brief())


def check_server(address: str, advice: str) -> None:
    """See to it that a Prefect server answers, before anything is spent.

    Raises:
        SpecError: It does not, or wants a password; with the advice.
    """
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
        if problem:
            raise SpecError(f"the Prefect server at {address} does not answer ({problem}); {advice}")
        try:
            client.read_work_pools(limit=1)
        except httpx.HTTPStatusError as error:  # its health is told to everyone
            raise SpecError(
                f"the Prefect server at {address} refuses: {error.response.status_code} {error.response.reason_phrase}; "
                "expected the server's password in PREFECT_API_AUTH_STRING=user:password (docs/cluster.md)"
            ) from error


def claim(store: str) -> None:
    """Tag the flow run that is under way here with its store, and with who drives it.

    Afterwards and by itself: the tags of a context would go to every task, which asks the server for limits by tag.
    """
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(flow_run.get_id())), tags=[_store_tag(store), _driver_tag(psutil.Process())])


def crash_stale_runs(store: str) -> int:
    """Set runs to Crashed that are recorded as under way on a store and whose driver on this host is gone; return how many.

    Prefect learns nothing of a driver that was killed.  For those on other hosts see :func:`crashing_silent_runs`.
    """
    return _crash(store, _is_gone, "its driver was killed; what it had committed is in the store")


@contextmanager
def crashing_silent_runs(store: str) -> Iterator[None]:
    """On leaving, set those runs on a store to Crashed too whose drivers, wherever they are, have said nothing meanwhile.

    Drivers tell where they are every two seconds; less than two minutes of silence proves nothing.
    """
    before, since = _told(store), time.monotonic()
    try:
        yield
    finally:
        if before and time.monotonic() - since >= _SILENT_S:
            silent = {driver for driver, beat in _told(store).items() if before.get(driver) == beat}
            with suppress(httpx.HTTPError, PrefectException, StorageError, OSError):  # the run itself is done
                _crash(store, lambda tags: any(_driver_of(tag) in silent for tag in tags), "its driver fell silent")


def _told(store: str) -> dict[str, int]:
    """Return how often each driver that has not ended has told where it is."""
    from tasks.driver.heartbeat import read_progress  # a server of schedules has no use for it

    with suppress(StorageError, OSError):
        return {row["driver"]: row["beat"] for row in read_progress(store) if not row["ended"]}
    return {}


def _crash(store: str, gone: Callable[[Sequence[str]], bool], why: str) -> int:
    """Set runs to Crashed that are recorded as under way on a store and of which one is gone, by its tags."""
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[_store_tag(store)]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_UNDER_WAY))),
        )
        stale = [run for run in client.read_flow_runs(flow_run_filter=wanted) if gone(run.tags)]
        for run in stale:
            state: State[None] = Crashed(message=why)
            _crash_tasks(client, run.id)
            client.set_flow_run_state(run.id, state, force=True)
        return len(stale)


def _crash_tasks(client: SyncPrefectClient, flow_run_id: UUID) -> None:
    ours = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run_id]))
    for task in client.read_task_runs(task_run_filter=ours):
        if task.state_type in _UNDER_WAY:
            client.set_task_run_state(task.id, Crashed(message="its driver was killed"), force=True)


def _store_tag(store: str) -> str:
    return f"store-{digest_of(store, length=10)}"


def _driver_tag(process: psutil.Process) -> str:
    return f"driver:{platform.node()}:{process.pid}:{process.create_time():.2f}"


def _driver_of(tag: str) -> str:
    """Return the ``host:pid`` of a driver's tag, nothing of another."""
    kind, _, rest = tag.partition(":")
    return rest.rpartition(":")[0] if kind == "driver" else ""


def _is_gone(tags: Iterable[str]) -> bool:
    for tag in tags:
        if tag.startswith(f"driver:{platform.node()}:"):
            try:
                process = psutil.Process(int(tag.split(":")[2]))
                return _driver_tag(process) != tag or process.status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return True
    return False
