"""The mutations: seeded, each of one file."""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.mutations import inputs
from tests.mutations.spoiling import JUNK, Case, Spoil, changed, paths_of, raw_bytes, structured, words_for


def model_cases(root: Path) -> Iterator[Case]:
    good = inputs.experiment()
    # A size that no tensor has is told by the tensors.
    for name, count in (("config.json", 34), ("generation_config.json", 6), ("tokenizer_config.json", 14)):
        value = json.loads((root / "model" / name).read_text())
        also = ("of another shape than config.json says",) if name == "config.json" else ()
        yield from structured(name, f"model/{name}", count, 1, good, value=value, also=also)
        yield from raw_bytes(name, f"model/{name}", good, 1)
    value = json.loads((root / "model" / "tokenizer.json").read_text())
    top = {key: inner for key, inner in value.items() if key != "model"}
    yield from structured("tokenizer.json", "model/tokenizer.json", 10, 1, good, value=top)
    yield from structured(
        "tokenizer.json", "model/tokenizer.json", 8, 2, good, value={"model": {k: 0 for k in value["model"]}}
    )
    yield from raw_bytes("tokenizer.json", "model/tokenizer.json", good, 1, 6)
    yield from tensor_cases(root)


def tensor_cases(root: Path) -> Iterator[Case]:
    from safetensors.torch import load_file, save_file

    good, file = inputs.experiment(), "model/model.safetensors"
    rng = random.Random("tensors")
    names = sorted(load_file(root / file))

    def edit(change: Callable[[dict[str, Any]], object]) -> Spoil:
        def spoil(folder: Path) -> None:
            tensors = load_file(folder / file)
            change(tensors)
            save_file(tensors, folder / file, metadata={"format": "pt"})

        return spoil

    ways: dict[str, Callable[[str], Callable[[dict[str, Any]], object]]] = {
        "removed": lambda name: lambda t: t.pop(name),
        "renamed": lambda name: lambda t: t.update({f"base.{name}": t.pop(name)}),
        "NaN": lambda name: lambda t: t[name].view(-1)[:1].fill_(float("nan")),
        "infinite": lambda name: lambda t: t[name].view(-1)[:1].fill_(float("inf")),
        "as integers": lambda name: lambda t: t.update({name: t[name].to(dtype=t[name].dtype).mul(100).int()}),
        "with one more row": lambda name: lambda t: t.update({name: _longer(t[name])}),
        "as one number": lambda name: lambda t: t.update({name: t[name].reshape(-1)[:1].clone()}),
    }
    for what, way in ways.items():
        for name in rng.sample(names, 3):
            yield Case("model.safetensors", "model.safetensors", f"{name} {what}", edit(way(name)), good, (name,))
    yield from raw_bytes("model.safetensors", file, good, 1, 8)


def _longer(tensor: Any) -> Any:
    import torch

    return torch.cat([tensor, tensor[:1]]).contiguous()


def shard_cases(root: Path) -> Iterator[Case]:
    """A checkpoint in two shards: the index is spoilt, or one of them."""
    from safetensors.torch import load_file, save_file

    index = "model/model.safetensors.index.json"
    tensors = load_file(root / "model/model.safetensors")
    names = sorted(tensors)
    where = {n: f"model-{1 + (i % 2):05d}-of-00002.safetensors" for i, n in enumerate(names)}
    value = {"metadata": {"total_size": 1}, "weight_map": where}

    def shard(folder: Path) -> None:
        parts = load_file(folder / "model/model.safetensors")
        for file in sorted(set(where.values())):
            save_file(
                {n: parts[n] for n in names if where[n] == file}, folder / "model" / file, metadata={"format": "pt"}
            )
        (folder / "model/model.safetensors").unlink()
        (folder / index).write_text(json.dumps(value))

    def after(case: Case) -> Case:
        def spoil(folder: Path) -> None:
            shard(folder)
            case.spoil(folder)

        return Case(case.kind, case.file, case.what, spoil, case.experiment, case.names)

    for case in structured("shards and index", index, 8, 1, inputs.experiment(), value=value):
        yield after(case)
    for case in raw_bytes("shards and index", index, inputs.experiment(), 1, 4):
        yield after(case)
    for case in raw_bytes("shards and index", f"model/{where[names[0]]}", inputs.experiment(), 1, 4):
        yield after(case)


def fact_cases(root: Path) -> Iterator[Case]:
    for name in inputs.LAYOUTS:
        value = json.loads((root / f"{name}.json").read_text())
        yield from structured(f"facts, {name}", f"{name}.json", 10, 1, inputs.reading(name), value=value)
        yield from raw_bytes(f"facts, {name}", f"{name}.json", inputs.reading(name), 1, 3)
    order = inputs.experiment(facts={"name": "counterfact", "path": "facts.json", "order": "order.json", "size": 2})
    yield from structured("order", "order.json", 6, 1, order, value=json.loads((root / "order.json").read_text()))
    yield from raw_bytes("order", "order.json", order, 1, 3)
    completed = inputs.reading("zsre", completions="completions.json")
    value = json.loads((root / "completions.json").read_text())
    yield from structured("completions", "completions.json", 6, 1, completed, value=value)
    yield from raw_bytes("completions", "completions.json", completed, 1, 3)
    own = inputs.reading("layout.yaml", path="own.json")
    yield from structured("layout of one's own", "layout.yaml", 12, 1, own, value=inputs.OWN_LAYOUT)
    yield from raw_bytes("layout of one's own", "layout.yaml", own, 1, 3)


def benchmark_cases(root: Path) -> Iterator[Case]:
    for name in inputs.BENCHMARKS:
        folder = root / "benchmarks" / name
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        asked = [path for path in files if "train" not in path.name and "/train/" not in str(path)]
        # What is asked is called "test" where a benchmark has one; else its "dev" is.
        file = next((path for path in asked if "test" in str(path.relative_to(folder))), asked[0])
        relative = str(file.relative_to(root))
        if file.suffix in (".json", ".jsonl"):
            yield from json_lines(f"benchmark, {name}", relative, file, inputs.asking(name))
        elif file.suffix != ".gz":
            yield from table_cases(f"benchmark, {name}", relative, inputs.asking(name))
        yield from raw_bytes(f"benchmark, {name}", relative, inputs.asking(name), 1, 3)
    definition = inputs.asking("sst2") | {}
    definition["score"] = {
        "every_edits": 0, "text_tokens": 2,
        "benchmarks": [{"name": "definition.yaml", "path": "benchmarks/sst2", "examples": 2, "shots": 0}],
    }  # fmt: skip
    value = yaml.safe_load((root / "definition.yaml").read_text())
    yield from structured("benchmark definition", "definition.yaml", 16, 1, definition, value=value)
    yield from raw_bytes("benchmark definition", "definition.yaml", definition, 1, 3)
    shots = inputs.asking("sst2", shots_from="file", shots_file="shots.txt")
    del shots["score"]["benchmarks"][0]["shots"]
    yield from raw_bytes("shots", "shots.txt", shots, 1, 3)


def json_lines(kind: str, relative: str, file: Path, experiment: dict[str, Any]) -> Iterator[Case]:
    """Yield cases that change one place of the records of a JSON file, or of one with a record per line."""
    lines = file.suffix == ".jsonl"
    text = file.read_text(encoding="utf-8")
    value = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    rng = random.Random(f"{relative}-records")
    places = list(paths_of(value))
    for _ in range(4):
        path, new = rng.choice(places), rng.choice((..., *JUNK))
        result = changed(value, path, new)
        written = "".join(json.dumps(row) + "\n" for row in result) if lines else json.dumps(result)
        shown = "removed" if new is ... else f"= {json.dumps(new)}"
        yield Case(
            kind, Path(relative).name, f"{'.'.join(map(str, path))} {shown}",
            lambda root, written=written: (root / relative).write_text(written) and None, experiment, words_for(path),
        )  # fmt: skip


def table_cases(kind: str, relative: str, experiment: dict[str, Any]) -> Iterator[Case]:
    def change(how: Callable[[list[str]], list[str]]) -> Spoil:
        def spoil(root: Path) -> None:
            lines = (root / relative).read_text(encoding="utf-8").splitlines()
            (root / relative).write_text("\n".join(how(lines)) + "\n", encoding="utf-8")

        return spoil

    ways: dict[str, Callable[[list[str]], list[str]]] = {
        "a line without its last column": lambda lines: [
            *lines[:2],
            lines[2].rpartition("\t" if "\t" in lines[2] else ",")[0],
            *lines[3:],
        ],
        "another label": lambda lines: [*lines[:2], lines[2][:-1] + "x", *lines[3:]],
        "first line only": lambda lines: lines[:1],
        "a line that says nothing": lambda lines: [*lines[:2], "nothing", *lines[3:]],
    }
    for what, how in ways.items():
        yield Case(kind, Path(relative).name, what, change(how), experiment)


def text_cases(root: Path) -> Iterator[Case]:
    yield from raw_bytes("texts for second moments", "texts.txt", inputs.experiment(), 1, 5)
    held = inputs.experiment(
        score={"every_edits": 2, "text_tokens": 2, "perplexity": {"path": "held.txt", "n_texts": 4}}
    )
    yield from raw_bytes("held-out texts", "held.txt", held, 1, 5)
    given = inputs.experiment(editors=[{"name": "rome", "steps": 1, "contexts_file": "contexts.json"}])
    value = json.loads((root / "contexts.json").read_text())
    yield from structured("context prefixes", "contexts.json", 5, 1, given, value=value)
    yield from raw_bytes("context prefixes", "contexts.json", given, 1, 4)
    yield from moment_cases()


def moment_cases() -> Iterator[Case]:
    import numpy as np

    given = inputs.experiment(second_moment={"files": {0: "moment.npz"}, "provenance": "made for this test"})

    def change(how: Callable[[dict[str, Any]], object]) -> Spoil:
        def spoil(root: Path) -> None:
            with np.load(root / "moment.npz") as found:
                arrays = {name: found[name] for name in found.files}
            how(arrays)
            np.savez(root / "moment.npz", **arrays)

        return spoil

    key, count = "mom2.mom2", "mom2.count"
    ways: dict[str, Callable[[dict[str, Any]], object]] = {
        f"{key} removed": lambda a: a.pop(key),
        f"{count} removed": lambda a: a.pop(count),
        f"{key} with NaN": lambda a: a[key].__setitem__((0, 0), np.nan),
        f"{key} not symmetric": lambda a: a[key].__setitem__((0, 1), 1e6),
        f"{key} negative": lambda a: a.update({key: -a[key]}),
        f"{key} of zeros": lambda a: a.update({key: 0 * a[key]}),
        f"{key} of rank one": lambda a: a.update({key: np.outer(a[key][0], a[key][0])}),
        f"{key} smaller": lambda a: a.update({key: a[key][:4, :4]}),
        f"{key} flat": lambda a: a.update({key: a[key].reshape(-1)}),
        f"{key} as text": lambda a: a.update({key: a[key].astype(str)}),
        f"{key} of objects": lambda a: a.update({key: a[key].astype(object)}),
        f"{count} zero": lambda a: a.update({count: np.array(0)}),
        f"{count} as text": lambda a: a.update({count: np.array("many")}),
    }
    for what, how in ways.items():
        yield Case(
            "second moments (.npz)", "moment.npz", what, change(how), given, (what.split()[0], "moment of layer 0")
        )
    yield from raw_bytes("second moments (.npz)", "moment.npz", given, 1, 5)


def experiment_cases(root: Path) -> Iterator[Case]:
    full = inputs.experiment(
        score={
            "every_edits": 2, "text_tokens": 2, "retention": "all", "perplexity": {"path": "held.txt", "n_texts": 4},
            "benchmarks": [{"name": "sentiment", "examples": 2}], "generation": {"prompts": 1, "tokens": 2},
        },
        locate={"trace": {"facts": 1, "samples": 1, "window": 2}},
        compute={"threads": 1, "tokens_per_forward": 512},
        mode="sequential", protocol="corrected", seeds=[0], commit_every=2,
    )  # fmt: skip
    yield from structured("experiment", "experiment.yaml", 34, 1, full, value=full)
    yield from raw_bytes("experiment", "experiment.yaml", full, 1, 4)


def store_cases(store: Path) -> Iterator[Case]:
    """Yield cases of a store that a run has left, below ``store`` in the folder of inputs."""
    found_files = (str(path.relative_to(store.parent)) for path in store.rglob("*") if path.is_file())
    files = sorted(found_files, key=lambda name: re.sub("[0-9a-f]{12}", "", name))  # but for the names of attempts
    some = [file for file in files if not any(part in file for part in ("_tmp", "_prefect", "report", "control"))]
    rng = random.Random("store")
    by_sort: dict[str, list[str]] = {}
    for file in some:
        parts = Path(file).parts
        sort = (
            "store.json"
            if parts[1] == "store.json"
            else f"store: {parts[1] if parts[1] in ('commits', 'artifacts') else 'rows'}"
        )
        by_sort.setdefault(sort, []).append(file)
    for sort, found in sorted(by_sort.items()):
        for file in rng.sample(found, min(len(found), {"store.json": 1, "store: commits": 5}.get(sort, 6))):
            count = 4 if sort == "store.json" else 2
            yield from raw_bytes(sort, file, inputs.experiment(), 1, count, in_store=True)
    for file in rng.sample(by_sort["store: commits"], 3):
        value = json.loads((store.parent / file).read_text())
        yield from structured("store: commits", file, 2, 1, inputs.experiment(), value=value, in_store=True)


def all_cases(root: Path, store: Path) -> list[Case]:
    """Return every case; ``root`` holds good inputs, ``store`` what a run of them has left."""
    made = (model_cases(root), shard_cases(root), fact_cases(root), benchmark_cases(root), text_cases(root))
    return [case for cases in (*made, experiment_cases(root), store_cases(store)) for case in cases]


def spoilt(case: Case, good: Path, folder: Path) -> Path:
    """Copy good inputs into a new folder and spoil the one file; return the experiment's file."""
    shutil.copytree(good, folder, ignore=None if case.in_store else shutil.ignore_patterns("store"))
    inputs.write_experiment(folder, case.experiment)
    case.spoil(folder)
    return folder / "experiment.yaml"
