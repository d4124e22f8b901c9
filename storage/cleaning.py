"""What is taken out of a store: units that shall be done again, runs, and files that nobody needs any more."""

from collections.abc import Mapping
from typing import NamedTuple

from storage.artifacts import CARD
from storage.commits import CommitRow
from storage.compaction import compact
from storage.errors import DamagedFileError, StorageError
from storage.files import Entry
from storage.schemas import SCHEMAS
from storage.store import SHARED, Store, commit_name, run_of

_OF_RUNS = {*SCHEMAS, "commits", "compacted"}


class Cleared(NamedTuple):
    """What :func:`gc` has deleted, or would delete."""

    files: int
    bytes: int


def withdraw(store: Store, run_id: str, unit_id: str) -> set[str]:
    """Forget a commit, so that its unit is done again; its rows stay, unseen, until :func:`gc`.

    Returns:
        The units that were forgotten: with it, those whose rows lie in the same file where that cannot be read any more.

    Raises:
        DamagedFileError: Rows of the run that do not lie beside the unit's cannot be read.
        StorageError: The store is a summary, in which nothing can be done again.
    """
    store.refuse_summary("withdraw")
    forgotten, is_done = {unit_id}, False
    while not is_done:
        # First the commit files, then a compaction without them: one under way that has read them comes to nothing.
        for name in forgotten:
            store.files.delete(commit_name(run_id, name))
        try:
            is_done = compact(store, run_id, without=forgotten)
        except DamagedFileError:
            lost = _unreadable(store, store.compacted(run_id))
            if lost <= forgotten:
                raise
            forgotten |= lost
    return forgotten


def _unreadable(store: Store, rows: Mapping[str, CommitRow]) -> set[str]:
    """Return the units of a compaction with rows in a file that cannot be read."""
    damaged = set()
    for name in sorted({file for row in rows.values() for file in row["files"] if file.endswith(SHARED)}):
        try:
            store.read_parquet(name)
        except DamagedFileError:
            damaged.add(name)
    return {unit_id for unit_id, row in rows.items() if not damaged.isdisjoint(row["files"])}


def remove_run(store: Store, run_id: str) -> int:
    """Delete all that a run has committed; return the number of its units.

    It vanishes at once: killed at any instant, it is wholly seen or not at all.  Rows of attempts without a commit are left
    to ``gc``: one of them may be on its way to its commit.

    Raises:
        StorageError: There is no such run.
    """
    rows = store.commit_rows(run_id)
    if not rows:
        raise StorageError(f"no run {run_id!r} in {store.location}; `palimpsest status` shows those that are there")
    compact(store, run_id)
    tables = sorted({table for row in rows.values() for table in row["tables"]})
    named = {file for row in rows.values() for file in row["files"]}
    named |= {own_file(run_id, row, table) for row in rows.values() for table in row["tables"]}
    there = {name for table in tables for name in store.files.listing(f"{table}/run_id={run_id}")}
    *older, newest = sorted(store.files.listing(f"compacted/run_id={run_id}"))
    for name in (*older, *store.files.listing(f"commits/run_id={run_id}"), newest):
        store.files.delete(name)
    for name in sorted(there):
        if name in named or name.endswith(SHARED):
            store.files.delete(name)
    return len(rows)


def own_file(run_id: str, row: CommitRow, table: str) -> str:
    """Return the file to which a unit itself wrote rows, before any compaction."""
    return f"{table}/run_id={run_id}/{row['unit_id']}.{row['attempt']}.parquet"


def gc(store: Store, *, grace_s: float, dry_run: bool = False) -> Cleared:
    """Delete what no commit names any more: replaced small files, rows of attempts that never committed, leftovers.

    Args:
        grace_s: Only what has stood for so long, by the clock of the store's own disk.  It must be longer than any query,
            and than a writer takes from its first file to its commit.
    """
    store.files.write("_tmp/clock", b"")
    everything = store.files.listing("")
    now = everything["_tmp/clock"].modified
    old = {name for name, entry in everything.items() if now - entry.modified >= grace_s}
    cleared: set[str] = set()

    def clear(garbage: set[str]) -> None:
        for name in sorted(garbage & old) if not dry_run else ():
            store.files.delete(name)
        cleared.update(garbage & old)

    clear(
        {name for name in old if name.startswith(("_tmp/", "control/cancel-"))} | _half_made_artifacts(set(everything))
    )
    for run_id in sorted({run_of(name) for name in everything if name.split("/")[0] in _OF_RUNS}):
        clear(_replaced(store, run_id, everything, old))
    return Cleared(len(cleared), sum(everything[name].size for name in cleared))


def _replaced(store: Store, run_id: str, everything: Mapping[str, Entry], old: set[str]) -> set[str]:
    """Return the files of a run that its commits do not name; nothing while its newest compaction is young.

    Args:
        everything: What there was a while ago, and is older than the grace.
    """
    numbers = sorted(name for name in everything if name.startswith(f"compacted/run_id={run_id}/"))
    if numbers and numbers[-1] not in old:
        return set()
    needed = {file for row in store.commit_rows(run_id).values() for file in row["files"]}
    replaced = {commit_name(run_id, unit_id) for unit_id in store.compacted(run_id)}
    data = {name for name in everything if name.split("/")[0] in SCHEMAS and run_of(name) == run_id}
    # A commit that was withdrawn and made anew meanwhile has the name of the one that was replaced.
    commits = {
        name
        for name, entry in store.files.listing(f"commits/run_id={run_id}").items()
        if name in replaced and entry == everything.get(name)
    }
    if sorted(store.files.listing(f"compacted/run_id={run_id}")) != numbers:
        return set()  # compacted since: what that has replaced is not old yet
    return (data - needed) | commits | set(numbers[:-1])


def _half_made_artifacts(everything: set[str]) -> set[str]:
    found = {name for name in everything if name.startswith("artifacts/")}
    return {name for name in found if f"{name.rpartition('/')[0]}/{CARD}" not in found}
