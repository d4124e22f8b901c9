"""A chat template around one user's message: what it writes, and where the message stands in it."""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

import transformers

from editing.errors import TokenizationError

DEFAULT_DATE = "2024-07-26"
"""What templates that ask for the time are told: any constant would do; Llama 3's own template falls back to this day."""
_OTHER_DAY = datetime(2019, 11, 30, 1, 2, 3)
_CLOCK = re.compile(r"""strftime_now\s*\(\s*(['"])(.*?)\1\s*\)""")
_MARK = "\ue000\ue001\ue000"
"""Characters of private use, in the place of a message; no template writes them itself."""
DATE = "date"
"""The key of the day among a template's variables."""


class Written(NamedTuple):
    """A message as the model reads it."""

    text: str
    start: int
    """Where the message's first character stands; leading spaces that the template drops stand, in thought, before it."""


class ChatFrame:
    """A tokenizer's chat template with its variables.

    The template is asked for each message, and is no function of anything else: what it is told of the time never changes.

    Args:
        variables: Of the template, as ``enable_thinking``; ``date`` (``YYYY-MM-DD``) is the day that it is told.

    Raises:
        TokenizationError: There is no template, it does not know a variable, cannot be filled, or is not constant.
    """

    def __init__(self, tokenizer: "transformers.PreTrainedTokenizerBase", variables: Mapping[str, Any]) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise TokenizationError(
                "the tokenizer has no chat template; expected one, because chat: true was asked for; use an instruction-"
                "tuned model, or chat: false"
            )
        self._tokenizer = tokenizer
        self._variables = {name: value for name, value in variables.items() if name != DATE}
        source = self._source()
        unknown = [name for name in self._variables if not re.search(rf"\b{re.escape(str(name))}\b", source)]
        if unknown:
            raise TokenizationError(
                f"chat: the template does not read {', '.join(map(repr, unknown))}; expected variables of it, as "
                f"{_guessed(source)}, or date"
            )
        self._template = _dated(source, _day(variables.get(DATE, DEFAULT_DATE)))
        self.frame = self._render("")
        """What stands around an empty message."""
        if self._render("") != self.frame:
            raise TokenizationError(
                "the chat template writes something else each time that it is asked; expected one without random parts"
            )
        self._asks = self._render("", _dated(source, _OTHER_DAY)) != self.frame
        if DATE in variables and not self._asks:
            raise TokenizationError(
                f"chat.date is {variables[DATE]!r}, and the template does not ask for the day; leave it out"
            )
        before, mark, after = self._render(_MARK).partition(_MARK)
        self._border = (before, after) if mark else None

    @property
    def particulars(self) -> dict[str, Any]:
        """What the template alone does not determine, if anything: its variables, and what it wrote with them."""
        if not self._variables and not self._asks:
            return {}
        return {"frame": self.frame, **({"variables": self._variables} if self._variables else {})}

    def write(self, message: str) -> Written:
        """Return a message within the template.

        Raises:
            TokenizationError: The template does not repeat it letter by letter, once.
        """
        text, bare = self._render(message), message.strip()
        if self._border is not None:
            before, after = self._border
            inner = text[len(before) : len(text) - len(after)]
            if text == before + inner + after and inner in (message, bare, message.lstrip(), message.rstrip()):
                return Written(text, len(before) + (len(inner.rstrip()) - len(message.rstrip())))
        if not bare or text.count(bare) != 1:
            raise TokenizationError(
                f"the chat template does not repeat the message {message!r} letter by letter, once; found {text!r}; use "
                "another template, or chat: false"
            )
        return Written(text, text.index(bare) - (len(message) - len(message.lstrip())))

    def _source(self) -> str:
        try:
            return str(self._tokenizer.get_chat_template())
        except ValueError as error:
            raise TokenizationError(
                f"the tokenizer's chat templates cannot be used: {error}; expected one of them to be default"
            ) from error

    def _render(self, message: str, template: str | None = None) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": message}],
                    chat_template=template or self._template,
                    tokenize=False,
                    add_generation_prompt=True,
                    **self._variables,
                )
            )
        except Exception as error:  # whatever a template does; Jinja's own errors are plain exceptions, too
            raise TokenizationError(
                f"the chat template cannot be filled with a user's message ({type(error).__name__}: {error}); expected one "
                "that takes a single message of the role user; mend it, or use chat: false"
            ) from error


def _dated(source: str, day: datetime) -> str:
    """Return a template that is told one day, whatever the clock says.

    Raises:
        TokenizationError: It asks for the time in another form than by a written-out format.
    """
    found = _CLOCK.sub(lambda call: repr(day.strftime(call[2])), source)
    if re.search(r"strftime_now\s*\(", found):
        raise TokenizationError(
            "the chat template asks for the time with a computed format (strftime_now), so that its day cannot be fixed; "
            "expected strftime_now('...'); mend the template, or use chat: false"
        )
    return found


def _day(value: Any) -> datetime:
    if isinstance(value, date):  # YAML reads days as such
        value = value.isoformat()
    try:
        return datetime.fromisoformat(str(value))
    except ValueError as error:
        raise TokenizationError(f"chat.date is {value!r}; expected a day, as 2024-07-26") from error


def _guessed(source: str) -> str:
    """Return the names that a template asks for, as far as a look at it tells."""
    found = dict.fromkeys(re.findall(r"\b(\w+) is (?:not )?defined", source))
    usual = {"messages", "add_generation_prompt", "bos_token", "eos_token", "strftime_now", "tools", "documents"}
    return str([name for name in found if name not in usual] or "those that it names")
