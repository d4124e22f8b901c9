"""A store's results without what only its own machine needs: what queries, figures and reports read, small enough to share."""

import json
from collections.abc import Callable, Collection

import pyarrow as pa

from storage.cleaning import gc, own_file
from storage.commits import to_json
from storage.compaction import compact
from storage.errors import StorageError
from storage.files import MARKER
from storage.store import Store, commit_name, parquet_bytes
from storage.thinning import thin

LEFT_OUT = frozenset({"ledger", "logits"})
"""Tables of what was written into weights; no view reads them."""


def publish(
    source: Store,
    folder: str,
    run_ids: Collection[str],
    cleaned: Callable[[str, pa.Table], pa.Table],
    cleaned_spec: Callable[[str], str],
) -> Store:
    """Write some runs of a store into a new one that is marked as a summary: it can be queried, and not gone on with.

    Units that were given up are left out: their messages and tracebacks are of one machine.

    Args:
        cleaned: Gives a table's rows as they are published.
        cleaned_spec: The same of what a commit says of its unit.

    Raises:
        StorageError: One of the runs is not there.
    """
    if lost := sorted(set(run_ids) - set(source.run_ids())):
        raise StorageError(f"the store {source.location} has no run {lost[0]!r}")
    target = Store(folder, create=True)
    marker = json.loads(target.files.read(MARKER)) | {"summary": True}
    target.files.write(MARKER, (json.dumps(marker) + "\n").encode())
    for run_id in sorted(run_ids):
        for row in (each for each in source.commit_rows(run_id).values() if each["status"] == "done"):
            files, sizes, tables, counts = [], [], [], []
            for table, file, count in zip(row["tables"], row["files"], row["file_rows"], strict=True):
                if table in LEFT_OUT:
                    continue
                rows = source.read_parquet(file, filters=[("attempt", "=", row["attempt"])])
                content = parquet_bytes(thin(cleaned(table, rows)))
                name = own_file(run_id, row, table)
                target.files.write(name, content)
                files.append(name)
                sizes.append(len(content))
                tables.append(table)
                counts.append(count)
            told = {"files": files, "file_bytes": sizes, "tables": tables, "file_rows": counts, "host": "", "log": None}
            told["spec"] = cleaned_spec(row["spec"])
            target.files.create(commit_name(run_id, row["unit_id"]), to_json(row | told))
        compact(target, run_id, dense=True)
    gc(target, grace_s=0.0)
    return Store(folder)
