"""Write the pages that are made from the code: ``python -m tests.docs``."""

from tests.docs.pages import DOCS, PAGES

for name, made in PAGES.items():
    (DOCS / name).write_text(made(), encoding="utf-8")
