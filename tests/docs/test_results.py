"""The published summary of the real model's runs can be judged and drawn again, without the model."""

import shutil
from pathlib import Path

import pytest

from flows.papers import load_paper
from flows.reproduction import reproduce

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "smollm2"


@pytest.mark.parametrize(
    ("paper", "item", "n_judged"),
    [("llama3-batch-size", "fig-1", 3), ("forgetting", "appendix-zsre", 1), ("mirage", None, 2)],
)
def test_what_was_published_is_judged_again(paper: str, item: str | None, n_judged: int, tmp_path: Path) -> None:
    store = tmp_path / "smollm2"
    shutil.copytree(RESULTS, store)
    said: list[str] = []
    found = reproduce(
        load_paper(paper), paper, item, scale="smollm2", store=str(store), folder=tmp_path / "files", said=said.append
    )
    assert said == [f"{store} is a summary: nothing is run"]
    assert len(found.judged) == n_judged and all(each.rows for each in found.judged)
    assert any(each.verdict not in ("not run", "not judged") for each in found.judged)
    assert Path(found.page).read_text().count("<table") > 0


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 5e6
