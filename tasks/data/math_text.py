"""Final answers in LaTeX: where they stand in a solution, and their notation made uniform."""

import re


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
