"""Waiting for a store that does not answer for a while."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ParamSpec, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from storage.errors import StoreUnavailableError
from storage.files import Content, Entry, Files

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class PatientFiles:
    """Files that are asked again, for so many seconds, while their place does not answer."""

    def __init__(self, files: Files, seconds: float) -> None:
        self._files = files
        self._retrying = Retrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=stop_after_delay(seconds),
            wait=wait_exponential_jitter(initial=0.2, max=10.0),
            before_sleep=_say_once,
            reraise=True,
        )

    @property
    def location(self) -> str:
        return self._files.location

    @property
    def folder(self) -> Path:
        return self._files.folder

    def make(self) -> None:
        self._ask(self._files.make)

    def read(self, name: str) -> bytes:
        return self._ask(self._files.read, name)

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        return self._ask(self._files.read_all, list(names))

    def write(self, name: str, content: Content) -> None:
        self._ask(self._files.write, name, content)

    def create(self, name: str, content: Content) -> bool:
        return self._ask(self._files.create, name, content)

    def size(self, name: str) -> int | None:
        return self._ask(self._files.size, name)

    def listing(self, folder: str) -> dict[str, Entry]:
        return self._ask(self._files.listing, folder)

    def delete(self, name: str) -> None:
        self._ask(self._files.delete, name)

    def local(self, name: str) -> Path:
        return self._ask(self._files.local, name)

    def fetch(self, names: Iterable[str]) -> list[Path]:
        return self._ask(self._files.fetch, list(names))

    def _ask(self, operation: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        found: _T = self._retrying.copy()(operation, *args, **kwargs)
        return found


def _say_once(state: RetryCallState) -> None:
    if state.attempt_number == 1 and state.outcome is not None:
        _log.warning("%s; waiting for it", state.outcome.exception())
