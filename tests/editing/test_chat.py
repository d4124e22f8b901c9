"""Chat templates as functions of the message alone: the day they are told, their variables, and where the message stands."""

from datetime import datetime
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from editing.errors import TokenizationError
from editing.factworld.tokenizer import build_tokenizer
from editing.model.chat import ChatFrame
from editing.model.tokens import PromptFormat

DATED = (
    "{% if not day is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}<|endoftext|>Today is {{ day }}. "
    "{% if enable_thinking is defined and not enable_thinking %}Do not think. {% endif %}"
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }}\n{% endfor %}assistant:"
)
PLAIN = "{% for m in messages %}You are the user. {{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def tokenizer(template: str) -> PreTrainedTokenizerBase:
    found = build_tokenizer(bos=False)
    found.chat_template = template
    return found


class Tomorrow(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> "Tomorrow":
        return cls(2031, 5, 6)


def test_a_template_is_told_one_day_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    today = ChatFrame(tokenizer(DATED), {})
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    message = [{"role": "user", "content": "Hi"}]
    assert "06 May 2031" in tokenizer(DATED).apply_chat_template(message, tokenize=False), "the clock has moved"
    tomorrow = ChatFrame(tokenizer(DATED), {})
    assert today.write("Hi") == tomorrow.write("Hi")
    assert today.particulars == tomorrow.particulars == {"frame": today.frame}
    assert "Today is 26 Jul 2024." in today.frame


def test_the_day_and_variables_can_be_given() -> None:
    frame = ChatFrame(tokenizer(DATED), {"date": "2025-01-02", "enable_thinking": False})
    assert "Today is 02 Jan 2025. Do not think." in frame.write("Hi").text
    assert frame.particulars["variables"] == {"enable_thinking": False}
    with pytest.raises(TokenizationError, match=r"does not read 'enable_thinkin'.*'day', 'enable_thinking'"):
        ChatFrame(tokenizer(DATED), {"enable_thinkin": False})
    with pytest.raises(TokenizationError, match=r"chat\.date is 'soon'; expected a day"):
        ChatFrame(tokenizer(DATED), {"date": "soon"})
    with pytest.raises(TokenizationError, match="does not ask for the day"):
        ChatFrame(tokenizer(PLAIN), {"date": "2025-01-02"})


def test_a_pure_template_has_nothing_particular() -> None:
    assert ChatFrame(tokenizer(PLAIN), {}).particulars == {}


@pytest.mark.parametrize("template", [DATED, PLAIN])
@pytest.mark.parametrize("message", ["user", "You are", "Today", "assistant:", "the user.", " Hi there ", "a\nb", "26"])
def test_a_message_is_found_where_it_was_written(template: str, message: str) -> None:
    written = ChatFrame(tokenizer(template), {}).write(message)
    at = written.start + len(message) - len(message.lstrip())
    bare = message.strip()
    assert written.text[at : at + len(bare)] == bare
    assert written.text[:at].endswith("user: " + message[: len(message) - len(message.lstrip())] * (template is PLAIN))


def test_templates_that_are_no_function_of_the_message() -> None:
    drawn = "{{ range(90000) | list | random }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(TokenizationError, match="something else each time"):
        ChatFrame(tokenizer(drawn), {})
    computed = "{% set how = '%Y' %}{{ strftime_now(how) }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(TokenizationError, match="computed format"):
        ChatFrame(tokenizer(computed), {})
    with pytest.raises(TokenizationError, match=r"cannot be filled.*no system"):
        ChatFrame(tokenizer("{{ raise_exception('no system') }}"), {})
    twice = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(TokenizationError, match="letter by letter, once"):
        ChatFrame(tokenizer(twice), {}).write("Hi")


@pytest.mark.parametrize("start", ["bos", "eos", "<|endoftext|>"])
def test_one_start_stands_in_front_of_every_text(start: str) -> None:
    for bos in (False, True):
        form = PromptFormat(build_tokenizer(bos=bos), text_start=start)
        assert form.prompts(["The sky", "<|endoftext|>The sky"])[0].count(0) == 1
        assert form.plain("The sky")[0] == 0
        assert form.plain("") == (0,)
        (found,) = form.lookups(["The sky is"], [7])
        assert form.decode(found.ids[: found.lookup + 1]).endswith("sky")
        assert form.particulars == {"text_start": "<|endoftext|>"}


def test_a_start_that_is_not_there() -> None:
    with pytest.raises(TokenizationError, match=r"text_start is '<s>'.*no such token.*<\|endoftext\|>"):
        PromptFormat(build_tokenizer(bos=False), text_start="<s>")
    with pytest.raises(TokenizationError, match="only texts of decoders have a start"):
        PromptFormat(build_tokenizer(bos=False), text_start="bos", head="seq2seq")


def test_tokens_without_an_embedding() -> None:
    small = PromptFormat(build_tokenizer(bos=False), n_rows=700)
    assert small.oversized
    assert not PromptFormat(build_tokenizer(bos=False), n_rows=100_000).oversized
    last = sorted(small._tokenizer.get_vocab().items(), key=lambda item: item[1])[-1][0].replace("Ġ", "")
    with pytest.raises(TokenizationError, match=rf"gives id \d+ .*{last}.*has 700 rows") as caught:
        small.answers(["The"], [last])
    assert caught.value.reason == "token without an embedding"
