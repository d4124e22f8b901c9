"""Results taken to where people look at them: tables as CSV, a data set of Hugging Face, Weights & Biases, MLflow.

Every number is a view's own: ``run_summary`` says how each run ended, ``run_curve`` how it went there.  Nothing is sent.
"""

import importlib.metadata
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.marts import marts, public_marts
from storage.sql import query_many
from storage.statements import refuse_below
from storage.store import Store
from tasks.errors import InputError, did_you_mean
from tasks.reports.tables import write_table

Row = Mapping[str, Any]
Writer = Callable[[Store, Path], list[dict[str, Any]]]
_RUNS = "SELECT * FROM run_summary WHERE editor <> 'none' ORDER BY run_id"
_CONFIGURATIONS = "SELECT * EXCLUDE (unit_id, attempt) FROM runs WHERE editor <> 'none' ORDER BY run_id"
_CURVES = "SELECT run_id, curve, name, metric, edits, mean, low, high, n FROM run_curve ORDER BY ALL"
CARD = """---
{header}---
# Results of Palimpsest

{n_runs} runs of edits of {models}, read from the store `{store}` with Palimpsest {version}. One configuration per view:

```python
from datasets import load_dataset

load_dataset("{folder}", "run_summary", split="train")
```

| configuration | rows | what |
|---|---|---|
{views}
"""


def export(
    store: Store, target: str, folder: Path, further: Mapping[str, Writer] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Write a store's results in another tool's form into a folder of their own; return what was written, a row per thing.

    Args:
        target: One of ``TARGETS``, or of ``further``.

    Raises:
        InputError: Another target, a package that is missing, a folder that is not empty, or no run.
    """
    known = {**TARGETS, **further}
    if target not in known:
        raise InputError(f"--to {target!r}{did_you_mean(target, known)}: expected one of {list(known)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            f"{folder} is not an empty folder; give a new one, so that nothing old is taken for these results"
        )
    if not any(run_id for run_id in store.run_ids()):
        raise InputError(f"the store {store.location} holds no run; expected one that an experiment has written")
    refuse_below(folder, str(folder), [store.files.folder.resolve()])
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return known[target](store, folder)
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _views(store: Store) -> dict[str, pa.Table]:
    names = public_marts()
    return dict(zip(names, query_many(store, [f"FROM {name}" for name in names]), strict=True))


def _csv(store: Store, folder: Path) -> list[dict[str, Any]]:
    """One file per view; lists as JSON, which CSV has not."""
    written = []
    for name, table in _views(store).items():
        write_table(table, "csv", folder / f"{name}.csv")
        written.append({"file": f"{name}.csv", "rows": table.num_rows, "what": _first_sentence(marts()[name].about)})
    return written


def _hf_dataset(store: Store, folder: Path) -> list[dict[str, Any]]:
    """A folder that ``datasets.load_dataset`` reads, with a card; one configuration per view that has rows."""
    tables = {name: table for name, table in _views(store).items() if table.num_rows}
    for name, table in tables.items():
        (folder / name).mkdir()
        pq.write_table(table, folder / name / "train.parquet")
    runs = tables["run_summary"].to_pylist() if "run_summary" in tables else []
    models = sorted({row["model"] for row in runs})
    header = "".join(f"- config_name: {name}\n  data_files: {name}/train.parquet\n{_default(name)}" for name in tables)
    card = CARD.format(
        header=f"tags:\n- knowledge-editing\n- palimpsest\nconfigs:\n{header}",
        n_runs=sum(row["editor"] != "none" for row in runs),
        models=", ".join(models),
        store=Path(store.location).name,
        version=_version(),
        folder=folder.name,
        views="\n".join(
            f"| `{name}` | {table.num_rows} | {_first_sentence(marts()[name].about)} |"
            for name, table in tables.items()
        ),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return [{"configuration": name, "rows": table.num_rows} for name, table in tables.items()]


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].partition(": ")[0].rstrip(".")


def _default(name: str) -> str:
    return "  default: true\n" if name == "run_summary" else ""


def _wandb(store: Store, folder: Path) -> list[dict[str, Any]]:
    """Offline runs, one per run, each with its configuration, its curves by number of edits, and its end as summary."""
    wandb = _package("wandb", "wandb")
    # By the environment, as its service reads it: no network, no account, no word on the terminal, nothing outside the folder.
    quiet = {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "WANDB_DATA_DIR": str(folder),
        "WANDB_CACHE_DIR": str(folder),
    }
    quiet |= {"WANDB_CONFIG_DIR": str(folder), "WANDB_ERROR_REPORTING": "false"}
    with _environment(quiet):
        return _logged(wandb, store, folder)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Inside, these variables are set."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _logged(wandb: Any, store: Store, folder: Path) -> list[dict[str, Any]]:
    written = []
    for run in _runs(store):
        logged = wandb.init(
            dir=str(folder),
            project=run.experiment,
            name=run.run_id,
            id=f"{folder.name}-{run.run_id}"[-64:].replace("/", "-"),
            group=run.group,
            config=run.configuration,
            tags=["palimpsest"],
            save_code=False,
            settings=wandb.Settings(x_disable_stats=True, x_disable_meta=True, console="off", disable_git=True),
        )
        steps: dict[int, dict[str, float]] = {}
        for key, edits, value in run.points:
            steps.setdefault(edits, {})[key] = value
        for edits in sorted(steps):
            logged.log({**steps[edits], "edits": edits}, step=edits)
        logged.summary.update(run.summary)
        logged.finish()
        written.append({"run": run.run_id, "project": run.experiment, "points": len(run.points)})
    return written


def _mlflow(store: Store, folder: Path) -> list[dict[str, Any]]:
    """A database of MLflow, ``mlflow.db``: one experiment per experiment, one run per run, curves as metrics by edits."""
    mlflow = _package("mlflow", "mlflow-skinny sqlalchemy alembic")
    from mlflow.entities import Metric, Param, RunTag

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder.absolute()}/mlflow.db")
    artifacts = (folder / "artifacts").absolute().as_uri()
    experiments: dict[str, str] = {}
    written = []
    for run in _runs(store):
        if run.experiment not in experiments:
            experiments[run.experiment] = client.create_experiment(run.experiment, artifact_location=artifacts)
        made = client.create_run(experiments[run.experiment], run_name=run.run_id, start_time=0)
        ident = made.info.run_id
        metrics = [Metric(key, value, 0, edits) for key, edits, value in run.points]
        last = max((edits for _, edits, _ in run.points), default=0)
        metrics += [
            Metric(f"summary/{key}", float(value), 0, last) for key, value in run.summary.items() if _is_number(value)
        ]
        params = [
            Param(key, _text(value)) for key, value in run.configuration.items() if value is not None and key != "spec"
        ]
        for start in range(0, max(len(metrics), len(params)), 100):  # what the database takes at once
            client.log_batch(ident, metrics=metrics[start : start + 100], params=params[start : start + 100])
        client.log_batch(
            ident, tags=[RunTag("palimpsest.run_id", run.run_id), RunTag("palimpsest.store", store.location)]
        )
        # Longer than a parameter may be.
        client.log_dict(ident, run.configuration["spec"] or {}, "spec.json")
        client.set_terminated(ident, end_time=0)
        written.append({"run": run.run_id, "experiment": run.experiment, "points": len(run.points)})
    return written


TARGETS: dict[str, Writer] = {
    "csv": _csv,
    "hf-dataset": _hf_dataset,
    "wandb": _wandb,
    "mlflow": _mlflow,
}
"""What results can be taken to, by name."""


class _Run:
    """One run as trackers have it: what it is, how it went, how it ended."""

    def __init__(self, configuration: Row, summary: Row, curves: Sequence[Row]) -> None:
        self.run_id: str = configuration["run_id"]
        self.experiment: str = configuration["experiment"] or "palimpsest"
        self.group: str = f"{configuration['editor']} b{configuration['batch_size']}"
        self.configuration = {key: _read(key, value) for key, value in configuration.items()}
        self.summary = {key: value for key, value in summary.items() if key not in configuration and value is not None}
        self.points: list[tuple[str, int, float]] = [
            (_key(row), row["edits"], row["mean"]) for row in curves if row["mean"] is not None
        ]


def _runs(store: Store) -> Iterator[_Run]:
    configurations, summaries, curves = (
        table.to_pylist() for table in query_many(store, [_CONFIGURATIONS, _RUNS, _CURVES])
    )
    ends = {row["run_id"]: row for row in summaries}
    for row in configurations:
        yield _Run(row, ends.get(row["run_id"], {}), [each for each in curves if each["run_id"] == row["run_id"]])


def _key(row: Row) -> str:
    """Return what a curve is called: ``editing/window 50/efficacy``."""
    return "/".join(part for part in (row["curve"], row["name"], row["metric"]) if part).replace(",", "")


def _read(key: str, value: Any) -> Any:
    """Return a column's value; those that hold JSON as what they say."""
    return json.loads(value) if key in ("hparams", "spec", "versions") and isinstance(value, str) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _package(name: str, wanted: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(f"--to {name} needs the package {name}; run: pip install {wanted}") from error


def _version() -> str:
    return importlib.metadata.version("palimpsest-editing")
