"""Stores put together."""

from collections.abc import Mapping
from typing import NamedTuple

from storage.artifacts import CARD, read_card
from storage.cleaning import own_file
from storage.commits import CommitRow, to_json
from storage.errors import MergeConflict
from storage.store import SHARED, Store, commit_name, parquet_bytes


class Merged(NamedTuple):
    """What :func:`merge` has copied."""

    runs: int
    units: int
    artifacts: int


def merge(target: Store, source: Store) -> Merged:
    """Copy into a store what another one has and it has not.

    Segments of a chain are copied in their order, so that a merge that was killed is gone on with by the next.

    Raises:
        MergeConflict: The same unit or artifact has another content in the two; nothing was copied.
    """
    for store in (target, source):
        store.refuse_summary("merge")
    cards = _missing_cards(target, source)
    todo = {run_id: _missing_units(target, source, run_id) for run_id in source.run_ids()}
    for card in cards:
        _copy_artifact(target, source, card)
    for run_id, rows in todo.items():
        for row in sorted(rows.values(), key=lambda row: (row["first_round"] or 0, row["unit_id"])):
            _copy_unit(target, source, run_id, row)
    return Merged(sum(map(bool, todo.values())), sum(map(len, todo.values())), len(cards))


def _missing_units(target: Store, source: Store, run_id: str) -> dict[str, CommitRow]:
    mine, others = target.commit_rows(run_id), source.commit_rows(run_id)
    for unit_id in sorted(mine.keys() & others.keys()):
        here, there = _content(mine[unit_id]), _content(others[unit_id])
        if here != there:
            raise MergeConflict(
                f"unit {unit_id} of {run_id} differs: {target.location} has {here}, {source.location} has {there}; they are "
                "two computations of one run: remove it from one of the stores with `palimpsest rm`, and merge again"
            )
    return {unit_id: row for unit_id, row in others.items() if unit_id not in mine}


def _content(row: CommitRow) -> dict[str, object]:
    """Return what two commits of one unit must agree in: where a segment ends, and the digest of what it made."""
    return {key: row[key] for key in ("first_round", "last_round", "digest")} if row["status"] == "done" else {}


def _missing_cards(target: Store, source: Store) -> list[str]:
    found = []
    for name in sorted(name for name in source.files.listing("artifacts") if name.endswith(f"/{CARD}")):
        if target.files.size(name) is None:
            found.append(name)
            continue
        here, there = (_digests(store, name) for store in (target, source))
        if here != there:
            raise MergeConflict(
                f"artifact {name} differs: {target.location} has {here}, {source.location} has {there}; runs made with the one "
                "must not go on with the other: keep the stores apart"
            )
    return found


def _digests(store: Store, card: str) -> Mapping[str, str]:
    found: Mapping[str, str] = read_card(store, card)["files"]
    return found


def _copy_artifact(target: Store, source: Store, card: str) -> None:
    folder = card.rpartition("/")[0]
    content = source.files.read(card)
    known = read_card(source, card)
    for name in known["files"]:
        file = f"{folder}/{known['attempt']}.{name}"
        target.files.write(file, source.files.local(file))
    target.files.create(card, content)


def _copy_unit(target: Store, source: Store, run_id: str, row: CommitRow) -> None:
    files, sizes = [], []
    for table, file in zip(row["tables"], row["files"], strict=True):
        name = own_file(run_id, row, table)
        if file.endswith(SHARED):
            content = parquet_bytes(source.read_parquet(file, filters=[("attempt", "=", row["attempt"])]))
            target.files.write(name, content)
            sizes.append(len(content))
        else:
            target.files.write(name, source.files.local(file))
            sizes.append(row["file_bytes"][len(sizes)])
        files.append(name)
    target.files.create(commit_name(run_id, row["unit_id"]), to_json(row | {"files": files, "file_bytes": sizes}))
