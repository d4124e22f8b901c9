"""What can go wrong in editing.

    EditingError
    ├── RequestError        a request that cannot be edited (subject not in its prompt, empty target ...)
    ├── ModelError          a model that cannot be used (unknown family, no such layer, NaN weights, tied weight)
    ├── TokenizationError   a prompt or target that the tokenizer cannot carry
    ├── HparamsError        a hyper-parameter that does not exist or has an impossible value
    ├── MomentError         second moments that are missing, mixed up, or singular
    └── SolveError          a batch whose constraints contradict each other

Every message says what was found, what was expected, and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, known: Iterable[object], *, cutoff: float = 0.6) -> str:
    """Return `` (did you mean 'x'?)`` for a name that is like a known one, else nothing.

    Args:
        cutoff: How like, from 0 to 1.
    """
    names = {str(each).casefold(): str(each) for each in known}
    near = get_close_matches(str(name).casefold(), names, n=1, cutoff=cutoff)
    return f" (did you mean {names[near[0]]!r}?)" if near else ""


class EditingError(Exception):
    """Base of all errors of this package."""


class RequestError(EditingError, ValueError):
    """A request that cannot be edited.

    Args:
        reason: In a few words, to count by.
    """

    def __init__(self, message: str, *, reason: str = "malformed record") -> None:
        super().__init__(message)
        self.reason = reason


class ModelError(EditingError, ValueError):
    """A model that cannot be used."""


class TokenizationError(EditingError, ValueError):
    """A prompt or target that the tokenizer cannot carry.

    Args:
        reason: In a few words, to count by.
    """

    def __init__(self, message: str, *, reason: str = "the tokenizer cannot carry it") -> None:
        super().__init__(message)
        self.reason = reason


class HparamsError(EditingError, ValueError):
    """A hyper-parameter that does not exist or has an impossible value."""


class MomentError(EditingError, ValueError):
    """Second moments that are missing, mixed up, or singular."""


class SolveError(EditingError, ArithmeticError):
    """A batch whose constraints contradict each other."""


class OutOfMemory(EditingError, MemoryError):
    """A single item that does not fit into memory."""
