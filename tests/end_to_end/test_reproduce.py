"""A paper's file from its experiments to verdicts and a page, by the command."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.papers import paper_names
from tests.end_to_end.support import palimpsest

OWN: dict[str, Any] = {
    "title": "Two editors",
    "source": "none",
    "scales": {
        "small": [
            {
                "name": "two-editors",
                "model": "factworld-tiny",
                "facts": {"name": "factworld", "size": 32},
                "editors": [{"name": "emmet", "steps": 8, "contexts": 2}, "no_op"],
                "layers": [0],
                "batch_sizes": [8],
                "second_moment": {"n_texts": 150},
                "score": {"every_edits": 16, "text_tokens": 2},
            }
        ]
    },
    "items": {
        "fig-1": {"title": "Edits", "pictures": [{"panel": "editing"}, {"panel": "final-model"}]},
        "table-1": {"title": "Scores", "table": "SELECT editor, mean FROM setting_summary WHERE metric = 'efficacy'"},
        "fig-2": {"title": "Memory", "excused": "not measured"},
    },
    "claims": {
        "edits-work": {
            "item": "fig-1",
            "says": "EMMET's edits work, and nothing's do not",
            "compare": {"a": {"editor": "emmet"}, "b": {"editor": "no_op"}, "metric": "efficacy"},
            "above": 0,
            "least_n": 30,
        },
        "false": {
            "item": "table-1",
            "says": "Nothing's edits work as well",
            "compare": {"a": {"editor": "no_op"}, "b": {"editor": "emmet"}, "metric": "efficacy"},
            "within": [-0.05, 0.05],
            "least_n": 30,
        },
    },
}


def test_a_paper_of_ones_own(server: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(OWN))
    said = palimpsest("reproduce", "two.yaml", cwd=tmp_path, **server).stdout
    assert "running two-editors (3 runs)" in said
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith(("fig-1", "table-1"))}
    assert "agrees" in lines["fig-1"] and "differs" in lines["table-1"]
    page = (tmp_path / "results/two-small/paper-two.html").read_text()
    assert page.count("<svg") >= 2 and "not here, not measured" in page and "<td>emmet</td>" in page
    again = palimpsest("reproduce", "two.yaml", cwd=tmp_path, PREFECT_API_URL="").stdout
    assert "running" not in again and "agrees" in again


def test_a_summary_answers_as_its_store_does(tmp_path: Path) -> None:
    paper = tmp_path / "two.yaml"
    paper.write_text(yaml.safe_dump(OWN))
    said = palimpsest("reproduce", "two.yaml", cwd=tmp_path).stdout
    other = OWN["scales"]["small"][0] | {"name": "another", "store": "results/two-small"}
    other["editors"] = [{"name": "emmet", "steps": 8, "contexts": 2, "ridge": 1e6}]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    palimpsest("run", "other.yaml", cwd=tmp_path)
    palimpsest("export", "published", "--to", "summary", "--store", "results/two-small", cwd=tmp_path)
    before = sorted(path for path in (tmp_path / "published").rglob("*.parquet"))
    own = OWN["scales"]["small"][0] | {"model": "not-on-this-machine"}
    scales = {"small": [own], "full": [own | {"name": "at-length"}]}
    paper.write_text(yaml.safe_dump(OWN | {"scales": scales}))
    again = palimpsest("reproduce", "two.yaml", "--store", "published", cwd=tmp_path).stdout

    def verdicts(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith(("fig-1", "table-1"))]

    assert "nothing is run" in again and verdicts(again) == verdicts(said) != []
    page = (tmp_path / "published/paper-two.html").read_text()
    assert page.count("<svg") >= 2 and "<td>emmet</td>" in page
    assert sorted(path for path in (tmp_path / "published").rglob("*.parquet")) == before
    none = palimpsest("reproduce", "two.yaml", "--scale", "full", "--store", "published", cwd=tmp_path, check=False)
    assert "holds runs of ['another', 'two-editors']; expected some of ['at-length']" in none.stderr


@pytest.mark.minutes
@pytest.mark.parametrize("name", paper_names())
def test_the_small_twin_of_every_paper(tmp_path: Path, name: str) -> None:
    said = palimpsest("reproduce", name, cwd=tmp_path, timeout=1800).stdout
    assert "agrees" in said and (tmp_path / f"results/{name}-small/paper-{name}.html").read_text().count("<svg") >= 2
