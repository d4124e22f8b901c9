"""A Hugging Face model's weights as editing sees them: by layer and part, with a float32 master beside 16-bit ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn

from editing.errors import ModelError
from editing.model.families import Stack, family_of, submodule
from editing.model.patches import Patches
from editing.shapes import absent_layers

Part = Literal["mlp_out", "mlp_in", "block"]
PARTS: tuple[Part, ...] = ("mlp_out", "mlp_in", "block")


class EditableWeights:
    """The weights of a model, frozen and in evaluation mode, and the patches beside them.

    Raises:
        ModelError: The family is unknown, the weights are quantised, or one of them is NaN.
    """

    def __init__(self, model: "transformers.PreTrainedModel", *, name: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.name = name
        self.family = family_of(model.config)
        self.patches = Patches()
        self._masters: dict[str, Tensor] = {}
        self._refuse_quantised()
        self._refuse_nan()
        self._fuse_activations()
        owners: dict[int, list[str]] = {}
        for full, parameter in model.named_parameters(remove_duplicate=False):
            owners.setdefault(id(parameter), []).append(full)
        self._shared = {full: names for names in owners.values() if len(names) > 1 for full in names}

    # --- layers

    @property
    def n_layers(self) -> int:
        return sum(len(submodule(self.model, stack.blocks)) for stack in self.family.stacks)

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise ModelError for a layer that does not exist."""
        if (problem := absent_layers(layers, self.n_layers, self.name or "the model")) is not None:
            raise ModelError(problem)

    def stack_of(self, layer: int) -> tuple[int, Stack, int]:
        """Return (number of the stack, the stack, the layer's place in it)."""
        for number, stack in enumerate(self.family.stacks):
            length = len(submodule(self.model, stack.blocks))
            if layer < length:
                return number, stack, layer
            layer -= length
        raise ModelError(f"layer {layer} is beyond the last one")

    def module_name(self, layer: int, part: Part) -> str:
        """Return the full name of a block, or of its MLP's first or second projection."""
        _, stack, index = self.stack_of(layer)
        block = f"{stack.blocks}.{index}"
        if part == "block":
            return block
        if part == "mlp_out":
            return f"{block}.{stack.mlp_out}"
        found = [name for name in stack.mlp_in if _has(submodule(self.model, block), name)]
        return f"{block}.{found[0]}"

    def block(self, layer: int) -> Any:
        return submodule(self.model, self.module_name(layer, "block"))

    def mlp_out(self, layer: int) -> Any:
        return submodule(self.model, self.module_name(layer, "mlp_out"))

    # --- parameters

    @property
    def dtype(self) -> torch.dtype:
        return self.weight(0).dtype

    def parameter_names(self, layer: int, part: Part = "mlp_out") -> dict[str, str]:
        """Return the full names of a part's parameters, by their name inside it (weight, bias).

        Raises:
            ModelError: One of them is shared with another module, so that an edit would change both.
        """
        prefix = self.module_name(layer, part)
        names = {short: f"{prefix}.{short}" for short, _ in submodule(self.model, prefix).named_parameters()}
        for full in names.values():
            if full in self._shared:
                raise ModelError(
                    f"{full} is one tensor with {[n for n in self._shared[full] if n != full]}; expected a weight of its "
                    "own; an edit would change all of them: untie them in the checkpoint, or edit another part"
                )
        return names

    def parameter(self, name: str) -> Tensor:
        found: Tensor = self.model.get_parameter(name)
        return found

    def precise(self, name: str) -> Tensor:
        """Return a parameter in the precision in which its edits add up: a 16-bit one has a float32 master once edited."""
        return self._masters.get(name, self.parameter(name))

    def stored_dtype(self, name: str) -> torch.dtype:
        """Return the dtype of :meth:`precise` after an edit."""
        return torch.promote_types(self.parameter(name).dtype, torch.float32)

    @torch.no_grad()
    def write(self, name: str, value: Tensor) -> None:
        """Set a parameter (in its own layout); a value wider than the parameter is kept as its master."""
        parameter = self.parameter(name)
        if value.dtype == parameter.dtype:
            self._masters.pop(name, None)
        else:
            self._masters[name] = value.detach().to(parameter.device, copy=True)
        parameter.copy_(value)

    def is_transposed(self, name: str) -> bool:
        """Whether a parameter is stored ``[d_in, d_out]`` (GPT-2's Conv1D)."""
        from transformers.pytorch_utils import Conv1D

        return isinstance(submodule(self.model, name.rpartition(".")[0]), Conv1D) and self.parameter(name).ndim == 2

    def weight_view(self, name: str) -> Tensor:
        """Return a parameter as ``[d_out, d_in]``, sharing memory with the model."""
        parameter = self.parameter(name)
        view: Tensor = parameter.T if self.is_transposed(name) else parameter
        return view

    def weight(self, layer: int) -> Tensor:
        """Return the edited projection's weight as ``[d_out, d_in]``, sharing memory with the model."""
        return self.weight_view(f"{self.module_name(layer, 'mlp_out')}.weight")

    # --- there and back

    def snapshot(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return copies of the named parameters (or their masters); :meth:`restore` puts them back bit by bit."""
        return {name: self.precise(name).detach().clone() for name in names}

    @torch.no_grad()
    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        for name, value in snapshot.items():
            self.write(name, value)

    @contextmanager
    def preserved(self, names: Iterable[str]) -> Iterator[None]:
        """Inside, the named parameters and the patches may be changed; on leaving they are put back bit by bit."""
        snapshot, patches = self.snapshot(names), self.patches.snapshot()
        try:
            yield
        finally:
            self.restore(snapshot)
            self.patches.restore(patches)

    def _fuse_activations(self) -> None:
        """Put torch's one kernel in the place of the eight of ``gelu_new``, which is the same function (docs/log.md)."""
        from transformers.activations import NewGELUActivation

        for module in list(self.model.modules()):
            for name, child in module.named_children():
                if isinstance(child, NewGELUActivation):
                    setattr(module, name, nn.GELU(approximate="tanh"))

    def _refuse_quantised(self) -> None:
        config = getattr(self.model.config, "quantization_config", None)
        packed = [name for name, parameter in self.model.named_parameters() if not parameter.is_floating_point()]
        if config is not None or packed:
            found = f"packed integers in {packed[0]}" if packed else f"quantization_config {config}"
            raise ModelError(
                f"model {self.name or self.model.config.model_type!r} is quantised ({found}); expected float32, bfloat16 or "
                "float16 weights; an update cannot be added to packed ones: load the unquantised checkpoint"
            )

    def _refuse_nan(self) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.is_floating_point() and not torch.isfinite(parameter).all():
                n_bad = int((~torch.isfinite(parameter)).sum())
                raise ModelError(
                    f"model {self.name or self.model.config.model_type!r}: {n_bad} of {parameter.numel()} values of "
                    f"{name} are NaN or infinite; expected finite weights; model.safetensors, or that tensor's shard, is "
                    "damaged or was saved in a dtype that overflows: fetch it again"
                )


def _has(module: Any, path: str) -> bool:
    for name in path.split("."):
        module = getattr(module, name, None)
        if module is None:
            return False
    return True
