"""Hyper-networks that turn keys and gradients into shifts (MEND, arXiv:2110.11309; MALMEN, arXiv:2311.04661)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from editing.errors import SolveError
from editing.methods.spool import Spool

Aggregate = Literal["normal_equation", "sum"]


class RunningMoments(nn.Module):
    """Mean and standard deviation of all rows seen so far.

    With ``code_variance`` a batch's unbiased variance is multiplied by its number of rows, as the official code has it
    (one row then gives NaN for good); else by one less, which is the running variance itself.
    """

    n: Tensor
    mean: Tensor
    var: Tensor
    std: Tensor

    def __init__(self, size: int, *, code_variance: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.code_variance = code_variance
        self.register_buffer("n", torch.zeros(1, dtype=dtype))
        for name in ("mean", "var", "std"):
            self.register_buffer(name, torch.zeros(size, dtype=dtype))

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add rows [token, size]."""
        count, before = len(rows), self.n.clone()
        squares = count * rows.var(0) if self.code_variance else (rows - rows.mean(0)).square().sum(0)
        delta = rows.mean(0) - self.mean
        self.n += count
        self.mean += count * delta / self.n
        self.var += squares + before * count * delta**2 / self.n
        self.std.copy_((self.var / (self.n - 1 + torch.finfo(self.var.dtype).eps)).sqrt())

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / (self.std + torch.finfo(self.std.dtype).eps)


class Block(nn.Module):
    """``y + scale · relu(y A B + bias) + shift``, with a scale and a shift per module."""

    def __init__(self, size: int, rank: int, n_modules: int, generator: torch.Generator) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(size, rank, generator=generator) * size**-0.5)
        self.B = nn.Parameter(torch.zeros(rank, size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.scale = nn.Embedding.from_pretrained(torch.ones(n_modules, size), freeze=False)
        self.shift = nn.Embedding.from_pretrained(torch.zeros(n_modules, size), freeze=False)

    def forward(self, rows: Tensor, module: Tensor) -> Tensor:
        hidden = (rows @ self.A @ self.B + self.bias).clamp_min(0)
        changed: Tensor = rows + self.scale(module) * hidden + self.shift(module)
        return changed


class Network(nn.Module):
    """The hyper-network of all modules of one weight shape."""

    normalizer: RunningMoments
    lr: nn.Embedding
    lamda: nn.Embedding | None

    def __init__(
        self,
        d_in: int,
        d_out: int,
        n_modules: int,
        *,
        rank: int,
        n_blocks: int,
        lr: float,
        learn_ridge: bool,
        code_variance: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        size = d_in + d_out
        self.d_in = d_in
        self.normalizer = RunningMoments(size, code_variance=code_variance)
        self.blocks = nn.ModuleList(Block(size, rank, n_modules, generator) for _ in range(n_blocks))
        self.lr = nn.Embedding.from_pretrained(torch.full((n_modules, 1), lr), freeze=False)
        log_ridge = torch.zeros(n_modules, 1)
        self.lamda = nn.Embedding.from_pretrained(log_ridge, freeze=False) if learn_ridge else None

    def forward(self, keys: Tensor, gradients: Tensor, module: Tensor) -> tuple[Tensor, Tensor]:
        """Return pseudo keys [token, d_in] and pseudo gradients [token, d_out]."""
        rows = self.normalizer(torch.cat([keys, gradients], dim=1))
        for block in self.blocks:
            rows = block(rows, module)
        return rows[:, : self.d_in], rows[:, self.d_in :]


class Shift(NamedTuple):
    """The joint shift of one module's weight."""

    value: Tensor
    """[d_in, d_out]: the weight, seen as ``x @ W``, moves by this."""
    system: Tensor | None
    """float64 [d_in, d_in], lower Cholesky factor of ``KᵀK + ridge·I``; None where shifts are summed."""
    ridge: float | None


def normal_equation(module: str, differences: Iterable[tuple[Tensor, Tensor]], ridge: float) -> Shift:
    """Return ``(KᵀK + ridge·I)⁻¹KᵀD`` of chunks of keys [token, d_in] and value differences [token, d_out].

    Raises:
        SolveError: It is singular: at ridge 0, fewer (different) tokens than dimensions.
    """
    gram = total = torch.zeros((), dtype=torch.float64)
    n_tokens = 0
    for keys, wanted in differences:
        k = keys.double()
        gram, total = gram.to(k.device) + k.T @ k, total.to(k.device) + k.T @ wanted.double()
        n_tokens += len(k)
    factor, info = torch.linalg.cholesky_ex(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    if int(info) != 0:
        raise SolveError(
            f"the normal equation of {module} is singular: {n_tokens} tokens, {len(gram)} dimensions, ridge {ridge:g}; "
            "expected a ridge > 0, or more tokens than dimensions; learn the ridge, or give one"
        )
    return Shift(torch.cholesky_solve(total, factor), factor, ridge)


@dataclass(frozen=True, kw_only=True)
class NetworkShape:
    """What a hyper-network is made of."""

    rank: int
    n_blocks: int
    lr: float
    """Initial step size η; learnt, one per module."""
    aggregate: Aggregate
    learn_ridge: bool
    """Whether the ridge λ of the normal equation is learnt (from 1, as its logarithm) or 0."""
    code_variance: bool
    chunk: int
    """Tokens that pass through the network at once; changes results by rounding only."""
    seed: int


class HyperNetworks(nn.Module):
    """One network per weight shape, shared by all edited modules of that shape.

    Args:
        modules: ``{full name: (d_in, d_out)}`` of the edited linear modules, in order.
    """

    def __init__(self, modules: Mapping[str, tuple[int, int]], shape: NetworkShape) -> None:
        super().__init__()
        self.modules_shapes, self.shape = dict(modules), shape
        generator = torch.Generator().manual_seed(shape.seed)
        by_shape: dict[tuple[int, int], list[str]] = {}
        for name, size in modules.items():
            by_shape.setdefault(size, []).append(name)
        self.place = {name: index for names in by_shape.values() for index, name in enumerate(names)}
        self.nets = nn.ModuleDict(
            {
                f"{d_in}x{d_out}": Network(
                    d_in,
                    d_out,
                    len(names),
                    rank=shape.rank,
                    n_blocks=shape.n_blocks,
                    lr=shape.lr,
                    learn_ridge=shape.learn_ridge and shape.aggregate == "normal_equation",
                    code_variance=shape.code_variance,
                    generator=generator,
                )
                for (d_in, d_out), names in by_shape.items()
            }
        )

    def net(self, module: str) -> Network:
        d_in, d_out = self.modules_shapes[module]
        return cast(Network, self.nets[f"{d_in}x{d_out}"])

    def _index(self, module: str) -> Tensor:
        return torch.tensor(self.place[module], device=self.net(module).lr.weight.device)

    def observe(self, module: str, keys: Tensor, gradients: Tensor) -> None:
        """Add tokens to the statistics that normalise them."""
        normalizer = self.net(module).normalizer
        normalizer.update(torch.cat([keys, gradients], dim=1).to(normalizer.mean.dtype))

    def ridge(self, module: str) -> Tensor:
        """Return the ridge λ of a module's normal equation."""
        lamda = self.net(module).lamda
        if lamda is None:
            return torch.zeros((), dtype=torch.float64, device=self.net(module).lr.weight.device)
        weight: Tensor = lamda(self._index(module))[0]
        return weight.double().exp()

    def _pseudo(self, module: str, keys: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows whose outer products, summed, are the shifts: pseudo keys and -η · pseudo gradients."""
        net, index = self.net(module), self._index(module)
        pseudo_keys, pseudo_gradients = net(keys, gradients, index)
        return pseudo_keys, -net.lr(index) * pseudo_gradients

    def value_differences(self, module: str, keys: Tensor, gradients: Tensor) -> Tensor:
        """Return ``d_j = S_j k_j = -η ⟨k_j, k'_j⟩ v'_j`` [token, d_out]: what each token's own shift does to its value."""
        pseudo_keys, steps = self._pseudo(module, keys, gradients)
        return (keys * pseudo_keys).sum(1, keepdim=True) * steps

    @torch.no_grad()
    def shift(self, module: str, cached: Spool) -> Shift:
        """Return the joint shift of all cached tokens: ``(KᵀK + λI)⁻¹KᵀD``, or the plain sum of the tokens' shifts.

        Raises:
            SolveError: The normal equation is singular (more dimensions than tokens at λ = 0).
        """
        chunks = cached.chunks(module, self.shape.chunk)
        if self.shape.aggregate == "normal_equation":
            differences = ((keys, self.value_differences(module, keys, gradients)) for keys, gradients in chunks)
            return normal_equation(module, differences, float(self.ridge(module)))
        total = torch.zeros(self.modules_shapes[module], dtype=torch.float64, device=self.net(module).lr.weight.device)
        for keys, gradients in chunks:
            pseudo_keys, steps = self._pseudo(module, keys, gradients)
            total += (pseudo_keys.T @ steps).double()
        return Shift(total, None, None)

    @torch.no_grad()
    def mean_residual(self, module: str, cached: Spool, shift: Shift) -> float:
        """Return the mean over tokens of ``‖Sᵀk_j - d_j‖/‖d_j‖`` (equation before section 6 of arXiv:2311.04661)."""
        total, count = 0.0, 0
        for keys, gradients in cached.chunks(module, self.shape.chunk):
            wanted = self.value_differences(module, keys, gradients).double()
            size = wanted.norm(dim=1)
            missed = (keys.double() @ shift.value - wanted).norm(dim=1)
            total += float((missed / size.clamp_min(torch.finfo(torch.float64).tiny))[size > 0].sum())
            count += int((size > 0).sum())
        return total / count if count else 0.0

    def backpropagate(self, module: str, cached: Spool, shift: Shift, gradient: Tensor) -> None:
        """Add to the parameters' gradients what ``gradient`` [d_in, d_out], that of the loss at the shift, gives.

        Theorems 1 and 2 of arXiv:2311.04661, token chunk by token chunk, so that memory does not grow with them.
        """
        upstream = gradient.double()
        if shift.system is not None:
            upstream = torch.cholesky_solve(upstream, shift.system)
            lamda = self.net(module).lamda
            if lamda is not None:
                # d loss / d λ = -tr(S*ᵀ (KᵀK + λI)⁻¹ G); the parameter is log λ.
                self.ridge(module).backward(-(upstream * shift.value).sum())
        for keys, gradients in cached.chunks(module, self.shape.chunk):
            if shift.system is not None:
                differences = self.value_differences(module, keys, gradients)
                differences.backward((keys.double() @ upstream).to(differences.dtype))
            else:
                pseudo_keys, steps = self._pseudo(module, keys, gradients)
                (pseudo_keys @ upstream.to(steps.dtype) * steps).sum().backward()

    def factors(self, module: str, cached: Spool, shift: Shift) -> tuple[Tensor, Tensor]:
        """Return (left [d_out, token], right [token, d_in]) whose product is the transposed shift; for few tokens."""
        ((keys, gradients),) = cached.chunks(module, max(1, cached.count(module)))
        with torch.no_grad():
            if shift.system is None:
                pseudo_keys, steps = self._pseudo(module, keys, gradients)
                return steps.T, pseudo_keys
            differences = self.value_differences(module, keys, gradients)
            return differences.T.double(), torch.cholesky_solve(keys.double().T, shift.system).T
