"""Pages that are made from the code say what the code says."""

import pytest

from storage.schema_page import about_column, about_table
from storage.schemas import COMMITS, SCHEMAS
from tests.docs.pages import DOCS, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_makes_of_it(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "write it anew: python -m tests.docs"


@pytest.mark.parametrize("table", [*SCHEMAS, "commits"])
def test_every_table_and_column_is_described(table: str) -> None:
    assert about_table(table).endswith(".")
    for column in (SCHEMAS | {"commits": COMMITS})[table].names:
        assert about_column(table, column)


def test_a_column_that_nobody_has_described_is_found() -> None:
    with pytest.raises(KeyError):
        about_column("runs", "not_described")
