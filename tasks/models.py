"""Finding models on disk or on the hub, and naming them by the content of their files.  Needs no torch."""

import json
import platform
from pathlib import Path

from editing.factworld.bundled import bundled_folder, bundled_names
from editing.families import FAMILIES
from storage.identity import digest_of, digest_of_file
from tasks.errors import InputError
from tasks.identity import ModelRef

_PATTERNS = (
    *(
        "config.json",
        "*.safetensors",
        "*.safetensors.index.json",
        "tokenizer*",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
    ),
    *("special_tokens_map.json", "added_tokens.json", "*.model", "chat_template.*", "additional_chat_templates/*"),
)
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers")


def weight_bytes(model: ModelRef) -> int:
    """Return the size of a model's weights in memory."""
    stored = json.loads((Path(model.folder) / "config.json").read_text())
    kept = stored.get("dtype") or stored.get("torch_dtype") or "float32"
    on_disk = sum(path.stat().st_size for path in Path(model.folder).glob("*.safetensors"))
    return on_disk * _BYTES.get(model.dtype, 4) // _BYTES.get(str(kept), 4)


def local_folder(model: ModelRef) -> str:
    """Return where a model's files are on this machine; from the hub if they are not where the plan found them.

    Raises:
        InputError: They cannot be had here, or are other files than those of the plan.
    """
    if Path(model.folder).is_dir():
        return model.folder
    return verified_folder(model)


def verified_folder(model: ModelRef) -> str:
    """Return the same, having fetched what is missing and compared every file with the plan's: a copy may be another model's.

    Raises:
        InputError: They cannot be had here, or are other files than those of the plan.
    """
    own = model.revision is None and bundled_folder(model.name) is None
    place = model.folder if own else model.name
    found = resolve_model(place, revision=model.revision, dtype=model.dtype, chat=model.chat)
    if found.digest != model.digest:
        raise InputError(
            f"model {model.name!r} is not the one of the plan on {platform.node()}: digest {found.digest}, expected "
            f"{model.digest}; give the same revision or files on every node"
        )
    return found.folder


def resolve_model(name: str, *, revision: str | None = None, dtype: str = "auto", chat: bool = False) -> ModelRef:
    """Return a reference to a bundled model, a local folder, or a hub model (downloaded at its pinned revision).

    Raises:
        InputError: It is not there, has no weights, or its family has no row in the table.
    """
    folder = bundled_folder(name) or (Path(name) if Path(name).is_dir() else _download(name, revision))
    files = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)})
    present = {path.relative_to(folder).as_posix() for path in files}
    if "config.json" not in present or not any(path.suffix == ".safetensors" for path in files):
        raise InputError(
            f"model folder {folder}: found {sorted(present) or 'no model files'}; expected config.json, *.safetensors and "
            "tokenizer files, as save_pretrained writes them"
        )
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise InputError(
            f"{folder / 'config.json'} is not JSON ({error}); expected what save_pretrained writes"
        ) from error
    if not isinstance(config, dict):
        raise InputError(
            f"{folder / 'config.json'} holds {type(config).__name__}; expected what save_pretrained writes"
        )
    if chat and not _has_chat_template(folder):
        raise InputError(
            f"model {name!r} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json) and chat: "
            "true was asked for; use an instruction-tuned model, or chat: false"
        )
    if config.get("model_type") not in FAMILIES:
        raise InputError(
            f"model {name!r} is of type {config.get('model_type')!r}; expected one of {sorted(FAMILIES)}; "
            "docs/add-a-family.md tells how to add its row"
        )
    if "quantization_config" in config:
        raise InputError(
            f"model {name!r} is quantised ({config['quantization_config'].get('quant_method')!r}); expected float32, bfloat16 "
            "or float16 weights; an update cannot be added to packed ones: give the unquantised checkpoint"
        )
    n_layers = next((int(config[key]) for key in _LAYER_KEYS if key in config), 0)
    if len(FAMILIES[config["model_type"]].stacks) > 1:
        n_layers += int(config.get("num_decoder_layers") or n_layers)
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return ModelRef(
        name=name if bundled_folder(name) or not Path(name).is_dir() else Path(name).resolve().name,
        folder=str(folder.resolve()),
        revision=None if Path(name).is_dir() else revision,  # a folder has none
        dtype=stored if dtype == "auto" else dtype,
        digest=digest_of({path.relative_to(folder).as_posix(): digest_of_file(path) for path in files}),
        n_layers=n_layers,
        family=str(config["model_type"]),
        chat=chat,
    )


def _has_chat_template(folder: Path) -> bool:
    if any(
        (folder / name).exists() for name in ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    ):
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False


def edited_shape(model: ModelRef) -> tuple[int, int]:
    """Return (d_out, d_in) of the edited projection, read from the weight files' headers.

    Raises:
        InputError: No weight file holds it.
    """
    from safetensors import safe_open

    config = json.loads((Path(model.folder) / "config.json").read_text())
    family = FAMILIES[config["model_type"]]
    stack = family.stacks[0]
    ending = f"{stack.blocks.rpartition('.')[2]}.0.{stack.mlp_out}.weight"
    width = next(int(config[key]) for key in ("hidden_size", "n_embd", "d_model") if key in config)
    for path in sorted(Path(model.folder).glob("*.safetensors")):
        with safe_open(path, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a dictionary
                if name.endswith(ending):
                    shape = weights.get_slice(name).get_shape()
                    return width, shape[0] * shape[1] // width
    raise InputError(f"{model.folder} has no weight {ending!r}; expected what save_pretrained writes")


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.startswith((".", "/", "~")):
        raise InputError(f"model folder {name!r} does not exist; expected a folder with config.json, or a hub id")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_PATTERNS)))
    except GatedRepoError as error:
        raise InputError(
            f"model {name!r} is gated: accept its licence on its page at the hub, then log in on each node that fetches it: "
            "hf auth login, or HF_TOKEN"
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"model {name!r} is neither bundled ({', '.join(bundled_names())}) nor a local folder, and the hub did not "
            f"give it: {str(error).splitlines()[0]}; check the id and the network, or give a local folder"
        ) from error
