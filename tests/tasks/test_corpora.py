"""Texts for second moments, as ``datasets`` loads them."""

from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.store import Store
from tasks.data.corpora import corpus_texts, hub_texts
from tasks.errors import InputError


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """A data set of texts in a folder, which ``load_dataset`` takes as it takes a hub id."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    pq.write_table(
        pa.table({"id": range(30), "text": [f"Text number {i}." for i in range(30)]}), folder / "train.parquet"
    )
    return str(folder)


def test_texts_of_a_data_set_are_drawn_by_the_seed(corpus: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    source = {"name": "hub", "hub": corpus, "revision": "main", "config": None, "split": "train", "column": "text"}
    found = corpus_texts(store, {**source, "n_texts": 20, "seed": 0}, {})
    assert len(set(found)) == 20 and set(found) < {f"Text number {i}." for i in range(30)}
    assert list(found) == list(corpus_texts(store, {**source, "n_texts": 20, "seed": 0}, {}))
    assert list(found)[:10] == list(corpus_texts(store, {**source, "n_texts": 10, "seed": 0}, {}))
    assert list(found) != list(corpus_texts(store, {**source, "n_texts": 20, "seed": 1}, {}))


def test_a_column_that_is_not_there(corpus: str) -> None:
    with pytest.raises(InputError, match=r"no column 'body'; expected one of \['id', 'text'\]"):
        hub_texts(corpus, "main", None, "train", "body", n_texts=3)


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"the hub did not give 'no/such'.*second_moment.path instead"):
        hub_texts("no/such", "main", None, "train", "text", n_texts=3)
