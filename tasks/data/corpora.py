"""Texts for second moments: of the fact world, of a data set's facts, of a local file, or of the hub at a pinned revision."""

import platform
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from editing.requests import EditRequest
from storage.digests import digest_of_file
from storage.store import Store
from tasks.data.facts import read_facts, world_for
from tasks.data.text_files import open_text
from tasks.errors import InputError
from tasks.specs.recipes import Texts


def corpus_texts(store: Store, source: Texts, files: Mapping[str, str]) -> Sequence[str]:
    """Return all texts of a source, in the order in which second moments take them.

    Raises:
        InputError: A file has changed since the experiment was planned, or the hub does not answer.
    """
    n_texts, seed = source["n_texts"], source["seed"]
    assert source["name"] != "own", "the model samples them where it is loaded"
    if source["name"] == "facts":
        return facts_texts(read_facts(store, source["facts_run_id"]), n_texts=n_texts, seed=seed)
    if source["name"] == "file":
        return file_texts(unchanged(source["digest"], files), n_texts=n_texts, seed=seed)
    if source["name"] == "hub":
        place = (source["hub"], source["revision"], source["config"], source["split"], source["column"])
        return hub_texts(*place, n_texts=n_texts, seed=seed)
    return world_texts(source["model"], n_texts=n_texts, seed=seed)


def unchanged(digest: str, files: Mapping[str, str]) -> Path:
    """Return the path of a file, if it still has the content that was planned with."""
    path = Path(files[digest])
    if not path.is_file():
        raise InputError(
            f"{path} is not there on {platform.node()}; expected the file that the experiment was planned with, at the same "
            "path on every node"
        )
    if digest_of_file(path) != digest:
        raise InputError(f"{path} has changed since the experiment was planned; plan it again")
    return path


@lru_cache(maxsize=1)
def hub_texts(
    hub: str, revision: str, config: str | None, split: str, column: str, *, n_texts: int, seed: int = 0
) -> Sequence[str]:
    """Return ``n_texts`` texts of a hub data set at a commit, drawn by the seed.

    Raises:
        InputError: The hub does not give it, or it has no such column of texts.
    """
    import datasets

    try:
        found = datasets.load_dataset(hub, config, revision=revision, split=split)
    except Exception as error:
        raise InputError(
            f"the hub did not give {hub!r} at {revision!r} ({error}); give a local file with second_moment.path instead"
        ) from error
    if column not in found.column_names:
        raise InputError(f"{hub} has no column {column!r}; expected one of {sorted(found.column_names)}")
    if len(found) < n_texts:
        raise InputError(f"{hub} has {len(found)} texts, expected {n_texts}; set second_moment.n_texts to {len(found)}")
    order = list(range(len(found)))
    random.Random(f"texts-{seed}").shuffle(order)
    return [str(text) for text in found.select(order[:n_texts])[column]]


def file_texts(path: Path, *, n_texts: int, seed: int = 0, setting: str = "second_moment.n_texts") -> list[str]:
    """Return ``n_texts`` texts for second moments: lines of a text file, or of one packed with gzip.

    Raises:
        InputError: The file is missing or holds fewer texts.
    """
    lines = [line.strip() for line in open_text(path).splitlines() if len(line.strip()) > 20]
    if not lines:
        raise InputError(f"{path} holds no line of more than 20 characters; expected one text per line")
    if len(lines) < n_texts:
        raise InputError(
            f"{path} holds {len(lines)} lines of more than 20 characters, expected {n_texts}; give more, or set "
            f"{setting} to {len(lines)}"
        )
    random.Random(f"texts-{seed}").shuffle(lines)
    return lines[:n_texts]


def world_texts(model: str, *, n_texts: int, seed: int = 0) -> list[str]:
    """Return ``n_texts`` texts of the fact world that a bundled model knows."""
    return world_for(model).corpus(n_texts, seed=seed)


def facts_texts(requests: Sequence[EditRequest], *, n_texts: int, seed: int = 0) -> list[str]:
    """Return texts that state facts of a data set: each a few neighborhood prompts with their answers."""
    rng = random.Random(f"facts-texts-{seed}")
    sentences = [f"{prompt} {answer}." for r in requests for prompt, answer in r.neighbors]
    if not sentences:
        raise InputError("the data set has no neighborhood prompts to take texts from; give second_moment.path instead")
    return [" ".join(rng.choices(sentences, k=4)) for _ in range(n_texts)]
