"""Results in other tools' forms, read back by these tools."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from storage.sql import query
from storage.store import Store
from tasks.errors import InputError
from tasks.reports.exports import TARGETS, export
from tests.docs.planted import plant


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("planted") / "store", create=True)
    plant(made)
    return made


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but this machine can be reached."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"):
            return connect(self, address)
        raise OSError(f"no network: {address}")

    monkeypatch.setattr(socket.socket, "connect", local)
    for name in ("WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def rows(store: Store, view: str) -> list[dict[str, Any]]:
    return query(store, f"SELECT * FROM {view} WHERE editor <> 'none' ORDER BY run_id").to_pylist()


def rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without the last digits of their numbers: DuckDB adds up in the order in which its threads are done."""
    return [{k: float(f"{v:.12g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]


def test_a_data_set_of_hugging_face(store: Store, tmp_path: Path) -> None:
    import datasets

    export(store, "hf-dataset", tmp_path / "out")
    for view in ("run_summary", "run_curve", "edit_texts"):
        cache = str(tmp_path / "cache")
        found = datasets.load_dataset(str(tmp_path / "out"), view, split="train", cache_dir=cache).to_list()
        assert found and rounded(found) == rounded(query(store, f"FROM {view}").to_pylist())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "config_name: run_summary" in card and "default: true" in card and "9 runs of edits of m" in card


def test_tables_of_csv(store: Store, tmp_path: Path) -> None:
    import pandas as pd

    written = export(store, "csv", tmp_path / "out")
    found = pd.read_csv(tmp_path / "out" / "run_curve.csv")
    assert found["mean"].tolist() == [row["mean"] for row in query(store, "FROM run_curve").to_pylist()]
    assert {each["file"] for each in written} == {path.name for path in (tmp_path / "out").iterdir()}


def test_runs_of_mlflow(store: Store, tmp_path: Path) -> None:
    import mlflow

    export(store, "mlflow", tmp_path / "out")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/out/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "grid"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {row["run_id"] for row in rows(store, "run_summary")}
    for row in rows(store, "run_summary"):
        assert runs[row["run_id"]].data.metrics["summary/efficacy"] == row["efficacy"]
        assert runs[row["run_id"]].data.params["batch_size"] == str(row["batch_size"])
    curves = [row for row in rows(store, "run_curve") if row["curve"] == "forgetting" and row["metric"] == "forgotten"]
    assert curves
    for name in runs:
        history = client.get_metric_history(runs[name].info.run_id, "forgetting/forgotten")
        wanted = [(row["edits"], row["mean"]) for row in curves if row["run_id"] == name]
        assert sorted((point.step, point.value) for point in history) == sorted(wanted)


def test_offline_runs_of_weights_and_biases(store: Store, tmp_path: Path) -> None:
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    export(store, "wandb", tmp_path / "out")
    summaries = {row["run_id"]: row for row in rows(store, "run_summary")}
    files = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == len(summaries)
    for file in files:
        reader = DataStore()
        reader.open_for_scan(str(file))
        config, history, summary = {}, [], {}
        while (data := reader.scan_data()) is not None:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
            summary |= {
                each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in record.summary.update
            }
            if record.HasField("history"):
                items = record.history.item
                history.append({each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in items})
        wanted = summaries.pop(config["run_id"])
        assert (config["editor"], config["layers"], config["hparams"]) == (
            wanted["editor"],
            wanted["layers"],
            {"lr": 0.5},
        )
        assert summary["efficacy"] == wanted["efficacy"]
        curve = query(
            store,
            f"SELECT name, edits, mean FROM run_curve WHERE run_id = '{config['run_id']}' AND metric = 'drift' ORDER BY edits",
        ).to_pylist()
        key = "/".join(filter(None, ("drift", curve[0]["name"], "drift")))
        logged = [(row["_step"], row[key]) for row in history if key in row]
        assert logged == [(row["edits"], row["mean"]) for row in curve]
    assert summaries == {}


def test_what_cannot_be_exported(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--to 'mlfow' \(did you mean 'mlflow'\?\): expected one of"):
        export(store, "mlfow", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old.csv").write_text("")
    with pytest.raises(InputError, match="is not an empty folder"):
        export(store, "csv", tmp_path / "full")
    with pytest.raises(InputError, match="holds no run"):
        export(Store(tmp_path / "none", create=True), "csv", tmp_path / "out")
    assert set(TARGETS) == {"csv", "hf-dataset", "wandb", "mlflow"}
