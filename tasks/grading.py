"""Grades of written answers: which label a text names, whether it is the answer, how much of it; as the benchmarks define."""

import ast
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence


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


def boxed(text: str) -> str | None:
    r"""Return what is in the last ``\boxed{...}`` or ``\fbox{...}``, braces balanced; None if there is none."""
    start = max(text.rfind(r"\boxed"), text.rfind(r"\fbox"))
    if start < 0:
        return None
    opening = text.find("{", start)
    spaced = re.match(r"\\boxed +([^${]+)", text[start:])
    if spaced:
        return spaced[1].strip()
    if opening < 0:
        return None
    depth = 0
    for at in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[opening + 1 : at]
    return None


def math_answer(text: str) -> str:
    """Return a written solution's final answer: the last boxed one, else what stands between the first and last ``$``."""
    found = boxed(text)
    if found is not None:
        return found
    signs = [found.start() for found in re.finditer(r"(?<!\\)\$", text)]
    return text[signs[0] + 1 : signs[-1]] if len(signs) > 1 else text.strip()


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


_MATH_NOISE = (
    r"\!", r"\left", r"\right", r"^{\circ}", r"^\circ", r"\$", "$", r"\%", "%", r"\text{ }", r"\,", r"\;", r"\ ",
)  # fmt: skip


def math_normal(text: str) -> str:
    r"""Return a final answer of MATH with its notation made uniform (arXiv 2103.03874): fractions, roots, units, spaces.

    As the data set's authors compare: ``\tfrac`` and ``\dfrac`` are ``\frac``, arguments get braces, a unit in ``\text{ }``
    at the end is dropped, ``x = 5`` is ``5`` for a short left side, ``.5`` is ``0.5`` and ``0.5`` is a half, ``a/b`` of two
    integers is a fraction.
    """
    text = text.replace("\n", "").replace("\\\\", "\\row").replace("tfrac", "frac").replace("dfrac", "frac")
    for noise in _MATH_NOISE:
        text = text.replace(noise, "")
    text = re.sub(r"\\text\{ .*?\}$", "", text)
    text = re.sub(r"(^|\{| )\.(?=\d)", r"\g<1>0.", text)
    left, equals, right = text.partition("=")
    if equals and len(left.strip()) <= 2 and "=" not in right:
        text = right
    text = re.sub(r"\\sqrt(?!\{)\s*(\w)", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac(\d)\{", r"\\frac{\1}{", text)
    text = re.sub(r"(\\frac\{[^{}]*\})(\d)", r"\1{\2}", text)
    text = r"\frac{1}{2}" if text == "0.5" else text
    return re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", text)


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
