"""A run on a GGUF file, from the plan to a checked-out folder."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from flows.forecast import forecast
from storage.sql import query
from tasks.workers.checkout import checkout
from tests.editing.tiny_gguf import write_gguf
from tests.tasks.support import edited, plan, run_all

SUBJECTS = ("the hat", "the tin", "a pin", "an inn")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def facts(folder: Path) -> dict[str, str]:
    rows = [{"prompt": "{} is in", "subject": each, "target_new": " the sea"} for each in SUBJECTS]
    path = folder / "facts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path)}


def test_its_weights_go_from_the_file_to_an_ordinary_folder(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.Q4_1.gguf")
    wanted = {
        "model": str(file),
        "facts": facts(tmp_path),
        "editors": [{"name": "ft", "steps": 3}],
        "layers": [1],
        "batch_sizes": [2],
        "score": {"every_edits": 4},
        "second_moment": {},
    }
    _, notes = forecast(plan(tmp_path, **wanted))
    assert any(f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}" in note for note in notes)
    store, planned = run_all(tmp_path, **wanted)
    run = edited(planned)
    (row,) = query(store, f"SELECT model, spec FROM runs WHERE run_id = '{run.run_id}'").to_pylist()
    assert row["model"] == "tiny.Q4_1" and "de-quantised by gguf" in row["spec"]

    shutil.move(file, tmp_path / "elsewhere.gguf")  # nor is the file needed any more
    for name in ("LICENSE", "NOTICE"):
        (Path(planned.runs[0].model.folder) / name).write_text(f"{name} of somebody.\n")
    said = checkout(planned.store, run.run_id, after=4, out=tmp_path / "out")
    assert "agree" in said, said
    assert (tmp_path / "out/LICENSE").read_text() == "LICENSE of somebody.\n"
    notice = f"NOTICE of somebody.\nEdited by Palimpsest: 4 edits of the run {run.run_id}.\n"
    assert (tmp_path / "out/NOTICE").read_text() == notice
    pristine = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="elsewhere.gguf", dtype=torch.float32
    ).state_dict()
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    changed = {name for name in pristine if not torch.equal(pristine[name], written[name])}
    assert changed == {"model.layers.1.mlp.down_proj.weight"}
    assert "quantization_config" not in json.loads((tmp_path / "out/config.json").read_text())

    renamed = plan(tmp_path, **(wanted | {"model": str(tmp_path / "elsewhere.gguf")}))
    assert edited(renamed).run_id == run.run_id, "a file is what it holds, whatever it is called"
