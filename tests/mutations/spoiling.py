"""How a file is spoilt: as a whole, or in one place of what it holds; and what a good message names of it."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.mutations import inputs

Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One file, spoilt in one way."""

    kind: str
    """What sort of file it is: a line of the table."""
    file: str
    """Its name, which the message has to give."""
    what: str
    """What was done to it."""
    spoil: Spoil
    """Does it, below a folder of good inputs."""
    experiment: dict[str, Any] = field(default_factory=inputs.experiment)
    names: tuple[str, ...] = ()
    """Words for the field, record, tensor or token, one of which the message has to give; any if there are none."""
    in_store: bool = False
    """Whether the file is one of a store that a run has left."""


JUNK: tuple[Any, ...] = (None, -1, 3.5, "", "nonsense", [], {}, [[]], True, 10**12)


def paths_of(value: Any, front: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*front, key)
        yield from paths_of(inner, (*front, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy with one place replaced, or removed where ``new`` is ``...``."""
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if new is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return copy


def words_for(path: tuple[Any, ...]) -> tuple[str, ...]:
    """Return what a message may call a place: its keys, or the number of the record or item."""
    return tuple(str(part) for part in path)


def structured(
    kind: str,
    file: str,
    count: int,
    seed: int,
    experiment: dict[str, Any],
    **more: Any,
) -> Iterator[Case]:
    """Yield cases that change one place of a JSON or YAML file each."""
    rng = random.Random(f"{file}-{seed}")

    def make(path: tuple[Any, ...], new: Any) -> Spoil:
        def spoil(root: Path) -> None:
            target = root / file
            if file.endswith(".yaml"):
                target.write_text(
                    yaml.safe_dump(changed(yaml.safe_load(target.read_text()), path, new), sort_keys=False)
                )
            else:
                target.write_text(json.dumps(changed(json.loads(target.read_text()), path, new)))

        return spoil

    base, also = more.pop("value"), more.pop("also", ())
    places = list(paths_of(base))
    for _ in range(count):
        path, new = rng.choice(places), rng.choice((..., *JUNK))
        shown = "removed" if new is ... else f"= {json.dumps(new)}"
        yield Case(
            kind,
            Path(file).name,
            f"{'.'.join(map(str, path))} {shown}",
            make(path, new),
            experiment,
            (*words_for(path), *also),
            **more,
        )


def raw_bytes(
    kind: str, file: str, experiment: dict[str, Any], seed: int, count: int = 4, **more: Any
) -> Iterator[Case]:
    """Yield cases that spoil a file as a whole: empty, cut off, no text, gone, one byte changed."""
    rng = random.Random(f"{file}-bytes-{seed}")

    def cut(share: float) -> Spoil:
        def spoil(root: Path) -> None:
            content = (root / file).read_bytes()
            (root / file).write_bytes(content[: int(len(content) * share)])

        return spoil

    def flip(share: float) -> Spoil:
        def spoil(root: Path) -> None:
            content = bytearray((root / file).read_bytes())
            content[int(len(content) * share)] ^= 0xFF
            (root / file).write_bytes(bytes(content))

        return spoil

    ways: list[tuple[str, Spoil]] = [
        ("empty", lambda root: (root / file).write_bytes(b"")),
        ("bytes that are no text", lambda root: (root / file).write_bytes(b"\xff\xfe\x00\x80" * 9)),
        ("is a folder", lambda root: ((root / file).unlink(), (root / file).mkdir())[0]),
        ("gone", lambda root: (root / file).unlink()),
    ]
    for _ in range(count):
        share = rng.random()
        ways.append((f"cut at {share:.2f}", cut(share)))
        ways.append((f"byte at {share:.2f} changed", flip(share)))
    for what, spoil in rng.sample(ways, min(count, len(ways))):
        yield Case(kind, Path(file).name, what, spoil, experiment, **more)
