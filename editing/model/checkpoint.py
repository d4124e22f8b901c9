"""What transformers reports of a checkpoint: weights that it lacks, that the model has no place for, or of another shape."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import transformers

from editing.errors import ModelError

_CAUSES = {
    ".base_layer.": "LoRA layers were saved inside the model: merge the adapter (merge_and_unload) and save again",
    "lora_": "LoRA layers were saved inside the model: merge the adapter (merge_and_unload) and save again",
    "_orig_mod.": "a compiled model's state was saved: save model._orig_mod with save_pretrained",
    "module.": "the state of a wrapped model was saved: save model.module with save_pretrained",
}
"""By what stands in the names that were found, what was done and how to mend it."""
_UNUSED = re.compile(r"(^|\.)((attn|attention)\.(bias|masked_bias)|rotary_emb\.inv_freq|position_ids)$")
"""Tables that older checkpoints kept, and models now make for themselves: masks, frequencies, numbers of positions."""
_SHOWN = 3


def refuse_incomplete(
    info: Mapping[str, Any], model: "transformers.PreTrainedModel", name: str, files: str = ""
) -> None:
    """Refuse a model of which a checkpoint does not hold exactly the weights: transformers draws missing ones at random.

    Args:
        info: What ``from_pretrained(..., output_loading_info=True)`` has returned beside the model.
        files: Where the weights stand, if it is known.

    Raises:
        ModelError: Weights are missing, have no place in the model, or are of another shape; names them.
    """
    missing = sorted(info["missing_keys"])
    unexpected = sorted(key for key in info["unexpected_keys"] if not _UNUSED.search(key))
    mismatched = sorted(f"{key} {list(found)}, not {list(own)}" for key, found, own in info["mismatched_keys"])
    errors = sorted(map(str, info["error_msgs"]))
    if not (missing or unexpected or mismatched or errors):
        return
    own = dict(model.named_parameters(remove_duplicate=False))  # tied ones are one weight
    total, kind = len({id(weight) for weight in own.values()}), type(model).__name__
    lost = len({id(own.get(name, name)) for name in missing})
    advice = next((text for mark, text in _CAUSES.items() if any(mark in key for key in unexpected)), None)
    parts = []
    if missing:
        parts.append(
            f"{lost} of {total} weights are not in the checkpoint under the names of {kind}: {listed(missing)}"
        )
    if unexpected:
        parts.append(f"{len(unexpected)} in the checkpoint have no place in {kind}: {listed(unexpected)}")
    if mismatched:
        parts.append(f"{len(mismatched)} are of another shape than config.json says: {listed(mismatched)}")
    parts += errors[:_SHOWN]
    where = f" ({files})" if files else ""
    raise ModelError(
        f"model {name!r}{where}: {'; '.join(parts)}; expected every weight of {kind} once, and nothing else (transformers "
        f"would draw what is missing at random); {advice or 'fetch the checkpoint again, or save it anew with save_pretrained'}"
    )


def listed(names: Collection[str]) -> str:
    """Return the first few names, and how many more there are."""
    shown = ", ".join(list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
