"""Keys and gradients of many tokens on disk, read back in chunks, so that memory does not grow with the number of edits."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Spool:
    """Rows of (key, gradient) per module, in the order in which they came.

    Use it as a context manager: its files are removed on leaving.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="palimpsest-spool-")
        self._files: dict[str, Any] = {}
        self._like: dict[str, tuple[int, int, torch.dtype, torch.device]] = {}
        self._count: dict[str, int] = {}

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._folder.cleanup()

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(self._files)

    def __len__(self) -> int:
        """Number of tokens of each module."""
        return max(self._count.values(), default=0)

    def count(self, module: str) -> int:
        return self._count[module]

    def append(self, module: str, keys: Tensor, gradients: Tensor) -> None:
        """Add rows [token, d_in] and [token, d_out]; 16-bit ones are kept as float32."""
        dtype = torch.promote_types(keys.dtype, torch.float32)
        if module not in self._files:
            path = Path(self._folder.name) / f"{len(self._files)}.bin"
            self._files[module] = path.open("w+b", buffering=0)
            self._like[module] = (keys.shape[1], gradients.shape[1], dtype, keys.device)
            self._count[module] = 0
        file = self._files[module]
        file.seek(0, 2)
        file.write(torch.cat([keys.to(dtype), gradients.to(dtype)], dim=1).contiguous().cpu().numpy())
        self._count[module] += len(keys)

    def chunks(self, module: str, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (keys, gradients) of at most ``size`` tokens at a time."""
        d_in, d_out, dtype, device = self._like[module]
        width = (d_in + d_out) * torch.empty(0, dtype=dtype).element_size()
        file = self._files[module]
        for start in range(0, self._count[module], size):
            count = min(size, self._count[module] - start)
            file.seek(start * width)
            buffer = bytearray(count * width)
            file.readinto(buffer)
            rows = torch.frombuffer(buffer, dtype=dtype).reshape(count, d_in + d_out).to(device)
            yield rows[:, :d_in], rows[:, d_in:]
