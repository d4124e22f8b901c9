"""A report is written again when what it shows has changed, and not before."""

from pathlib import Path

import pytest

from storage.cleaning import withdraw
from storage.commits import CommitInfo
from storage.store import Store
from tasks.reports import made_of
from tasks.reports.made_of import current_report
from tasks.reports.report import write_report
from tests.storage.test_views import RUN, fill


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store", create=True)
    fill(made, 7, own={1: False}, kept={}, every=4)
    return made


def test_a_report_is_current_until_something_is_committed_or_withdrawn(store: Store) -> None:
    assert current_report(store, [RUN], "t") is None, "there is none"
    written = write_report(store, [RUN], title="t")
    assert current_report(store, [RUN], "t") == written.location
    assert current_report(store, [], "t") is None, "of other runs"
    store.commit(RUN, "another", {}, CommitInfo(kind="own"))
    assert current_report(store, [RUN], "t") is None
    write_report(store, [RUN], title="t")
    assert current_report(store, [RUN], "t") == written.location
    withdraw(store, RUN, "another")
    assert current_report(store, [RUN], "t") is None


def test_other_code_writes_it_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(store, [RUN], title="t")
    assert current_report(store, [RUN], "t") is not None
    monkeypatch.setattr(made_of, "digest_of_file", lambda path: "changed")
    assert current_report(store, [RUN], "t") is None


def test_a_page_that_says_nothing_of_it_is_not_current(store: Store) -> None:
    store.files.write("report-t.html", b"<html>")
    assert current_report(store, [RUN], "t") is None
