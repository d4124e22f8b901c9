"""The fact world's tokenizer: one token per word of the world, bytes for everything else, so nothing is unknown."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from editing.factworld.vocabulary import (
    BAD,
    COLOURS,
    FILLER,
    GOOD,
    NOUNS,
    PARTICLES,
    PLACES,
    RELATIONS,
    TASK_WORDS,
    TOPICS,
    VERBS,
)
from editing.factworld.world import World

END = "<|endoftext|>"
CONTEXT_STARTS = ("The", "In", "At", "She", "He")


def _words(world: World) -> list[str]:
    texts = [text for relation in RELATIONS for text in (*relation.templates, *relation.objects)]
    texts += [*FILLER, *TASK_WORDS, *NOUNS, *PLACES, *VERBS, *GOOD, *BAD, *COLOURS, *TOPICS, *CONTEXT_STARTS]
    names = [word for group in world.name_words for word in group] + list(PARTICLES)
    words = " ".join(texts).replace("{}", " ").replace(".", " ").replace(":", " ").split()
    return list(dict.fromkeys([*words, *names]))


def build_tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE without merges whose vocabulary holds every word of the world as one token.

    A trained BPE would spend as many entries again on intermediate merges.  ``bos`` prepends the end-of-text token,
    as Llama's tokenizers do with theirs.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [END, *alphabet, *(f"Ġ{word}" for word in _words(World()))]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, vocab[END])]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, model_max_length=64
    )
