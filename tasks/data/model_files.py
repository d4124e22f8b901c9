"""Finding models on disk or on the hub, and naming them by the content of their files.  Needs no torch."""

import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from editing.errors import ModelError, did_you_mean
from editing.model.bundled import bundled_folder, bundled_names
from editing.model.catalogue import catalogue
from editing.model.families import FAMILIES
from editing.model.gguf import is_gguf, source_of
from editing.model.named import known_as, known_names, named_folder
from storage.digests import digest_of
from tasks.cache import digest_of_settled_file
from tasks.errors import InputError
from tasks.specs.run import ModelRef

TOKENIZER_FILES = (
    *("tokenizer*", "vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model"),
    *("chat_template.*", "additional_chat_templates/*"),
)
_PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES)
"""Files that are part of a model's digest."""
_GENERATION, _ADAPTER = "generation_config.json", ("adapter_config.json", "adapter_model.safetensors")
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers")


def weight_bytes(model: ModelRef) -> int:
    """Return the size of a model's weights in memory."""
    stored = json.loads((Path(model.folder) / "config.json").read_text())
    kept = stored.get("dtype") or stored.get("torch_dtype") or "float32"
    on_disk = sum(path.stat().st_size for path in Path(model.folder).glob("*.safetensors"))
    return on_disk * _BYTES.get(model.dtype, 4) // _BYTES.get(str(kept), 4)


def known_layers(name: str) -> int | None:
    """Return how many layers a model has that is known by its name, or is on this machine; None where a hub has it."""
    if name in catalogue():
        return catalogue()[name].n_layers
    try:
        folder = named_folder(name) or Path(name)
    except ModelError:
        return None  # which is told where the model is looked at
    if not (folder / "config.json").is_file():
        return None
    try:
        config = _table_of(folder / "config.json")
        return _n_layers(folder, config) if str(config.get("model_type")) in FAMILIES else None
    except InputError:
        return None  # which is told where the model is looked at


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
    own = model.revision is None and model.name not in known_names()
    place = model.file or (model.folder if own else model.name)
    found = resolve_model(place, revision=model.revision, dtype=model.dtype, chat=model.chat, adapter=model.adapter)
    for what, there, wanted in (
        ("model", found.digest, model.digest),
        ("adapter", found.adapter_digest, model.adapter_digest),
    ):
        if there != wanted:
            raise InputError(
                f"{what} {model.name if what == 'model' else model.adapter!r} is not the one of the plan on {platform.node()}: "
                f"digest {there}, expected {wanted}; give the same revision or files on every node"
            )
    return found.folder


def resolve_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    chat: bool | Mapping[str, Any] = False,
    text_start: str = "none",
    adapter: str | None = None,
) -> ModelRef:
    """Return a reference to a bundled model, one of the catalogue (fetched from a package index), a GGUF file (de-quantised),
    a local folder, or a hub model (downloaded at its pinned revision).

    Raises:
        InputError: It is not there, has no weights, or its family has no row in the table.
    """
    if revision is not None and name.lower().endswith(".gguf"):
        raise InputError(
            f"model.revision is a commit of the hub, and {name} is a file; remove it: a file is its content"
        )
    try:
        there = named_folder(name, dtype=dtype)
    except ModelError as error:
        raise InputError(str(error)) from error
    # With an adapter's settings, so that a repository that has some is refused; the card says whose licence it is.
    folder = there or hub_files(name, revision, [*_PATTERNS, _GENERATION, _ADAPTER[0], "README.md"])
    files = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)})
    _check_files(folder, {path.relative_to(folder).as_posix() for path in files})
    config = _table_of(folder / "config.json")
    if chat is not False and not _has_chat_template(folder):
        raise InputError(
            f"model {name!r} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json) and chat: "
            "true was asked for; use an instruction-tuned model, or chat: false"
        )
    if str(config.get("model_type")) not in FAMILIES:
        raise InputError(
            f"model {name!r}: {folder / 'config.json'} says model_type {config.get('model_type')!r}; expected one of "
            f"{sorted(FAMILIES)}; docs/add-a-family.md tells how to add its row"
        )
    if (packed := config.get("quantization_config")) is not None:
        method = packed.get("quant_method") if isinstance(packed, dict) else packed
        raise InputError(
            f"model {name!r} is quantised ({method!r}); expected float32, bfloat16 "
            "or float16 weights; an update cannot be added to packed ones: give the unquantised checkpoint"
        )
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    if str(stored) not in _BYTES:
        raise InputError(
            f"{folder / 'config.json'} says dtype {stored!r}; expected one of {list(_BYTES)}: give the unquantised checkpoint"
        )
    digests = _digests(folder, files)
    _check_made(folder, digests)
    ends = _further_ends(folder, config)
    return ModelRef(
        name=_short_name(name),
        folder=str(folder.resolve()),
        revision=None if there is not None else revision,  # a folder has none
        file=str(Path(name).expanduser().resolve()) if is_gguf(name) else None,
        source=_source(folder),
        dtype=stored if dtype == "auto" else dtype,
        digest=digest_of({**digests, **({_GENERATION: {"eos_token_id": ends}} if ends else {})}),
        n_layers=_n_layers(folder, config),
        family=str(config["model_type"]),
        chat=chat,
        text_start=text_start,
        adapter=adapter,
        adapter_digest=None if adapter is None else _adapter_digest(Path(adapter)),
    )


def _short_name(name: str) -> str:
    if (known := known_as(name)) is not None:
        return known
    if is_gguf(name):
        return Path(name).stem
    return Path(name).resolve().name if Path(name).is_dir() else name


def _source(folder: Path) -> str | None:
    """Return what a de-quantised folder was made of, in words; None for any other."""
    found = source_of(folder)
    return None if found is None else f"{found['file']} (sha256 {found['sha256']}), de-quantised by {found['by']}"


def _check_made(folder: Path, digests: Mapping[str, Any]) -> None:
    """Refuse a de-quantised folder that is no longer what was written."""
    made = (source_of(folder) or {}).get("made", {})
    if wrong := [name for name, digest in made.items() if digests.get(name, digest) != digest]:
        raise InputError(
            f"{folder / wrong[0]} has the SHA-256 {digests[wrong[0]]}; expected {made[wrong[0]]}, as it was made: it was "
            f"damaged or changed; remove the folder {folder}, and it is made again"
        )


def _check_files(folder: Path, present: set[str]) -> None:
    """Refuse a folder without a whole model in safetensors files, or with an adapter beside it."""
    adapter = (folder / _ADAPTER[0]).is_file()
    if adapter and "config.json" in present:
        raise InputError(
            f"model folder {folder} has an adapter beside its weights ({_ADAPTER[0]}), which would be used or not by what is "
            "installed; expected one model; merge the adapter and save the result, or move its files to a folder of their own "
            "and give that as the adapter: model: {name: ..., adapter: FOLDER}"
        )
    if adapter:
        raise InputError(
            f"model folder {folder} holds an adapter ({_ADAPTER[0]}) and no model; expected config.json and weights; give the "
            f"model it was trained on (base_model_name_or_path) as name: and this folder as adapter: model: {{name: ..., "
            f"adapter: {folder}}}"
        )
    if "config.json" in present and any(name.endswith(".safetensors") for name in present):
        return
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled:
        raise InputError(
            f"model folder {folder}: found {pickled[0]} and no *.safetensors; expected safetensors files, which can be read "
            "without running code: load the folder once with AutoModelForCausalLM.from_pretrained(FOLDER) and save it with "
            "save_pretrained(FOLDER)"
        )
    raise InputError(
        f"model folder {folder}: found {sorted(present) or 'no model files'}; expected config.json, model.safetensors (or "
        "shards with an index) and tokenizer files, as save_pretrained writes them"
    )


def _table_of(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not JSON ({error}); expected what save_pretrained writes") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds {type(found).__name__}; expected what save_pretrained writes")
    return found


def _n_layers(folder: Path, config: Mapping[str, Any]) -> int:
    keys = [key for key in _LAYER_KEYS if key in config]
    count = config[keys[0]] if keys else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError(
            f"{folder / 'config.json'} says {keys[0] if keys else ' or '.join(_LAYER_KEYS)} {count!r}; expected the number of "
            "layers"
        )
    if len(FAMILIES[config["model_type"]].stacks) < 2:
        return count
    more = config.get("num_decoder_layers") or count
    if not isinstance(more, int):
        raise InputError(f"{folder / 'config.json'} says num_decoder_layers {more!r}; expected the number of layers")
    return count + more


def _digests(folder: Path, files: Iterable[Path]) -> dict[str, Any]:
    files = list(files)
    if folders := [path.name for path in files if not path.is_file()]:
        raise InputError(
            f"model folder {folder}: {folders[0]} is no file; expected a file, as save_pretrained writes it"
        )
    return {path.relative_to(folder).as_posix(): digest_of_settled_file(path) for path in files}


def _further_ends(folder: Path, config: Mapping[str, Any]) -> list[int]:
    """Return the tokens that end a text by the folder's generation settings alone, where these name others than config.json.

    Only these of the settings change a result here: free texts end at them.
    """
    if not (folder / _GENERATION).is_file():
        return []
    settings = _table_of(folder / _GENERATION)
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        if wrong := [token for token in _as_list(settings.get(key)) if not isinstance(token, int)]:
            raise InputError(
                f"{folder / _GENERATION} says {key} {wrong[0]!r}; expected a token's number, or a list of them"
            )
    named, usual = (_as_list(table.get("eos_token_id")) for table in (settings, config))
    return sorted(named) if set(named) != set(usual) else []


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _adapter_digest(folder: Path) -> str:
    if not folder.is_dir():
        raise InputError(
            f"model.adapter: no folder {folder}; expected one with {' and '.join(_ADAPTER)}, as peft saves them"
        )
    lacking = [name for name in _ADAPTER if not (folder / name).is_file()]
    if lacking:
        raise InputError(f"model.adapter: {folder} lacks {' and '.join(lacking)}; expected what peft saves")
    return digest_of(_digests(folder, [folder / name for name in _ADAPTER]))


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


def hub_files(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Return a folder with those files of a hub's model that match.

    Raises:
        InputError: The hub does not give it, or the name is no hub id.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.startswith((".", "/", "~")):
        raise InputError(f"model folder {name!r} does not exist; expected a folder with config.json, or a hub id")
    if near := did_you_mean(name, known_names(), cutoff=0.85):
        raise InputError(f"no model {name!r}{near}")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise InputError(
            f"model {name!r} is gated: accept its licence on its page at the hub, then log in on each node that fetches it: "
            "hf auth login, or HF_TOKEN"
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"model {name!r} is neither known by its name ({', '.join(known_names())}) nor a local folder, and the hub did not "
            f"give it: {str(error).splitlines()[0]}; check the id and the network, or give a local folder"
        ) from error


def model_rows() -> list[dict[str, Any]]:
    """Return a row per bundled model, and per family of models that can be given."""
    rows = [{"model": name, "where": str(bundled_folder(name))} for name in bundled_names()]
    rows += [
        {"model": name, "where": f"package {e.package} {e.version} ({e.bytes / 1e6:.0f} MB), fetched on first use"}
        for name, e in catalogue().items()
    ]
    rows.append({"model": "any .gguf file", "where": "de-quantised once, into the user's cache (extra gguf)"})
    return [*rows, *({"model": f"any {name} model", "where": "local folder or hub id"} for name in FAMILIES)]
