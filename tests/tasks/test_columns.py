"""Tables that fit a terminal, and short names of runs."""

from typing import Any

import pytest

from tasks.reports.run_names import with_short_names
from tasks.reports.tables import UNLIMITED, table_text

ROWS: list[dict[str, Any]] = [
    {
        "model": "m", "editor": editor, "batch_size": size, "setting": "0123456789", "preset": None,
        "run_id": f"{editor}-b{size}-a{size}0",
        "efficacy": 0.5 + size / 100, "efficacy_low": 0.1, "efficacy_high": 0.9, "text": "word " * 12,
    }
    for editor in ("memit", "rome")
    for size in (1, 10)
]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    lines = table_text(ROWS, width).splitlines()
    assert max(map(len, lines)) <= width and "editor" in lines[0]


def test_digests_go_first_and_what_goes_is_named() -> None:
    text = table_text(ROWS, 60)
    header, note = text.splitlines()[0].split(), text[text.index("(") :]
    assert {"editor", "batch_size", "efficacy"} <= set(header) and not {"setting", "preset", "efficacy_low"} & set(
        header
    )
    assert (
        "all: " in note
        and "setting" in note
        and "efficacy_low" in note
        and note.endswith("--wide shows every column)\n")
    )


def test_without_a_limit_nothing_is_cut() -> None:
    text = table_text(ROWS, UNLIMITED)
    assert text.splitlines()[0].split() == list(ROWS[0]) and len(text.splitlines()) == 5 and "not shown" not in text


def test_a_table_without_rows_and_one_column_that_is_too_wide() -> None:
    assert table_text([], 80) == "(no rows)\n"
    assert table_text([{"text": "y" * 100}], 40).count("y") == 100, "folded, not lost"


def test_a_run_has_the_shortest_name_that_is_its_own() -> None:
    ids = [
        "memit-b5-12ab34cd56",
        "memit-b5-12ab99cd56",
        "memit-b50-12ab34cd56",
        "facts-0011223344556677",
        "prepare",
        "b5-0",
    ]
    names = [row["run"] for row in with_short_names([{"run": run_id} for run_id in ids])]
    assert names == ["memit-b5-12ab3", "memit-b5-12ab9", "memit-b50-12ab", "facts-0011", "prepare", "b5-0"]
    for name, own in zip(names, ids, strict=True):
        assert [run_id for run_id in ids if run_id.startswith(name)] == [own]
    assert with_short_names([{"run": None}, {"run": 0.5}]) == [{"run": None}, {"run": 0.5}]
    assert with_short_names([{"run": "memit-b5-12ab34cd56 lr 0.1", "n": 1}]) == [
        {"run": "memit-b5-12ab lr 0.1", "n": 1}
    ]
