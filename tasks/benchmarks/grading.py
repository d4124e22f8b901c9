"""Grades of written answers: which label a text names, whether it is the answer, how much of it; as the benchmarks define."""

import ast
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tasks.data.math_text import math_answer, math_normal


def label_in(text: str, words: Mapping[str, Sequence[str]], *, whole_words: bool) -> str | None:
    """Return the first label, in the mapping's order, one of whose words is in the text; None if none is.

    Args:
        whole_words: Find words only where they stand alone; official few-shot code of the field finds substrings, so that
            "no" is in "none" (docs/scores.md).  Without regard to case either way.
    """
    lowered = text.lower()
    for label, candidates in words.items():
        for word in candidates:
            pattern = re.escape(word.lower())
            if re.search(rf"(?<!\w){pattern}(?!\w)" if whole_words else pattern, lowered):
                return label
    return None


def squad_normal(text: str) -> str:
    """Return a text as SQuAD's official script compares it: lower case, no punctuation, no articles, single spaces."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def token_f1(text: str, gold: str) -> float:
    """Return the F1 of the words that two texts share, normalised as SQuAD does; two empty texts agree."""
    said, wanted = squad_normal(text).split(), squad_normal(gold).split()
    if not said or not wanted:
        return float(said == wanted)
    shared = sum((Counter(said) & Counter(wanted)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(wanted)
    return 2 * precision * recall / (precision + recall)


def code_block(text: str) -> str:
    """Return the program of an answer in Markdown: its first fenced block of Python, else its first one.

    A block that nothing closes goes to the end.  A text that is a program as it stands, or has no fence, is the program.
    """
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        blocks = list(_FENCED.finditer(text))
    else:
        return text
    python = [block for block in blocks if block["language"].lower() in ("py", "python", "python3")]
    return next((block["code"] for block in (*python, *blocks)), text)


_FENCED = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[ \t]*(?P<language>[^\s`]*)[^\n`]*\n(?P<code>.*?)(?:^[ \t]*(?P=fence)|\Z)",
    re.MULTILINE | re.DOTALL,
)


NORMAL: dict[str, Callable[[str], str]] = {
    "none": str.strip,
    "squad": squad_normal,
    "math": lambda text: math_normal(text.strip()),
}
"""How two texts are made comparable."""
EXTRACT: dict[str, Callable[[str], str]] = {
    "all": str.strip,
    "first_line": lambda text: text.strip().partition("\n")[0].strip(),
    "math": math_answer,
    "code_block": code_block,
}
"""Which part of a text is the answer."""
