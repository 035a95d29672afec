"""Patch arithmetic: a change of a model's weights as a set of low-rank products, added and negated exactly.

A patch maps module names to pairs (A, B) and means W + B A for every named module: a LoRA with its scale
folded into B. The update of one iteration,

    W_{t+1} = W_t - λ_f ΔW_forget + λ_r ΔW_retain,

is `patch + forget.scale(-λ_f) + retain.scale(λ_r)`, and the sum over all iterations is again one patch:

    B₁A₁ + B₂A₂ = [B₁ B₂] [A₁; A₂]            (ranks are concatenated; nothing is approximated)

whereas (B₁ + B₂)(A₁ + A₂), which averaging adapters parameter by parameter amounts to, has cross terms and is
another matrix. For the same reason a patch is negated through B alone: (-B)(-A) = BA.

Ranks grow with every sum. `compress` takes off what is numerically nothing, `truncate` takes off more and
says what that cost. Neither forms a dense ΔW: with the QR decompositions B = Q_b R_b and Aᵀ = Q_a R_a, the
singular values of BA are those of the small matrix R_b R_aᵀ.

This module works on tensors only and knows nothing of models: `release.adapter` reads and writes, `release.runtime` attaches
patches. Factors are kept in float32, on the device that they came on; norms, inner products and
decompositions are computed on the CPU in float64, because some accelerators have none. Nothing here is
differentiable: a patch is a finished result.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import UserError


def _wide(x: Tensor) -> Tensor:
    return x.to("cpu", torch.float64)


@dataclass(frozen=True, eq=False)
class LowRank:
    """ΔW = B A for one linear map y = W x, with W of shape (out, in).

    Args:
        A: (r, in), any floating dtype; copied to float32.
        B: (out, r), any floating dtype, with every scale (LoRA's α/r) already in it; copied to float32.

    Raises:
        ValueError: if A and B are not matrices of one common rank.
    """

    A: Tensor
    B: Tensor

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[0] != self.B.shape[1]:
            raise ValueError(
                f"A must be (r, in) and B (out, r), got {tuple(self.A.shape)} and {tuple(self.B.shape)}"
            )
        # A copy, so that training on does not change a patch that was taken from live parameters.
        for name in ("A", "B"):
            copy = getattr(self, name).detach().to(dtype=torch.float32, copy=True)
            object.__setattr__(self, name, copy.contiguous())

    @property
    def rank(self) -> int:
        """r, the number of rank-one terms that are stored (not the numerical rank of BA)."""
        return self.A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of the dense ΔW."""
        return self.B.shape[0], self.A.shape[1]

    def delta(self) -> Tensor:
        """The dense ΔW = B A, (out, in), float32."""
        return self.B @ self.A

    def inner(self, other: LowRank) -> float:
        """Frobenius inner product ⟨B₁A₁, B₂A₂⟩ = Σ (B₁ᵀB₂) ⊙ (A₁A₂ᵀ), from two (r₁, r₂) matrices."""
        return float(((_wide(self.B).T @ _wide(other.B)) * (_wide(self.A) @ _wide(other.A).T)).sum())

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """Thin SVD of B A without forming it: U (out, k), S (k,) falling, V (in, k); float64, on the CPU."""
        q_b, r_b = torch.linalg.qr(_wide(self.B))
        q_a, r_a = torch.linalg.qr(_wide(self.A).T)
        u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        return q_b @ u, s, q_a @ vh.T

    def norm(self) -> float:
        """Frobenius norm of B A. From QR factors: the root of an inner product loses half the digits."""
        r_b = torch.linalg.qr(_wide(self.B), mode="r").R
        r_a = torch.linalg.qr(_wide(self.A).T, mode="r").R
        return float(torch.linalg.matrix_norm(r_b @ r_a.T))

    def _from_svd(self, u: Tensor, s: Tensor, v: Tensor, rank: int) -> LowRank:
        # √S on either side keeps A and B of the same size, which is kind to half precision at run time.
        root = s[:rank].sqrt()
        device = self.A.device
        return LowRank((v[:, :rank] * root).T.to(device), (u[:, :rank] * root).to(device))


class Patch(Mapping[str, LowRank]):
    """An immutable mapping from module name to `LowRank`; iterates in sorted order of the names.

    Names are those of the base model's modules, such as `model.layers.0.self_attn.q_proj`.
    """

    def __init__(self, modules: Mapping[str, LowRank] | None = None) -> None:
        self._modules = {name: modules[name] for name in sorted(modules)} if modules else {}

    def __getitem__(self, name: str) -> LowRank:
        return self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __repr__(self) -> str:
        return f"Patch({len(self)} modules, rank {self.rank}, norm {self.norm():.4g})"

    @property
    def rank(self) -> int:
        """The largest stored rank over the modules; 0 for an empty patch."""
        return max((m.rank for m in self.values()), default=0)

    def digest(self) -> str:
        """Tells one patch from another: sha256, in hexadecimal, of the names and factors as they are stored."""
        digest = hashlib.sha256()
        for name, m in self.items():
            for factor in (m.A, m.B):
                digest.update(f"{name}{tuple(factor.shape)}".encode())
                digest.update(factor.cpu().numpy().astype("<f4").tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Patch:
        """The same patch with its factors on `device`."""
        return Patch({name: LowRank(m.A.to(device), m.B.to(device)) for name, m in self.items()})

    def scale(self, c: float) -> Patch:
        """c ΔW, through B alone."""
        return Patch({name: LowRank(m.A, m.B * c) for name, m in self.items()})

    def negate(self) -> Patch:
        """-ΔW, exactly: the sign of B alone changes."""
        return Patch({name: LowRank(m.A, -m.B) for name, m in self.items()})

    def __add__(self, other: Patch) -> Patch:
        """The exact sum: ranks are concatenated; a module of one side only is taken as it is.

        Raises:
            UserError: if a module has different shapes in the two patches.
        """
        if not isinstance(other, Patch):
            return NotImplemented
        total = dict(self._modules)
        for name, b in other.items():
            if name not in total:
                total[name] = b
                continue
            a = total[name]
            if a.shape != b.shape:
                raise UserError(
                    f"the patches cannot be added: module {name} is {a.shape} in one and {b.shape} in the "
                    "other; add only patches that were made for the same base model"
                )
            device = a.A.device
            total[name] = LowRank(torch.cat([a.A, b.A.to(device)]), torch.cat([a.B, b.B.to(device)], dim=1))
        return Patch(total)

    def delta(self, name: str) -> Tensor:
        """The dense ΔW of one module, (out, in), float32."""
        return self[name].delta()

    def inner(self, other: Patch) -> float:
        """⟨ΔW, ΔW'⟩ over all modules; one that a patch does not hold is zero there."""
        return math.fsum(m.inner(other[name]) for name, m in self.items() if name in other)

    def norm(self) -> float:
        """Frobenius norm of the whole change, over all modules, without forming any ΔW."""
        return math.hypot(*(m.norm() for m in self.values()))

    def truncate(self, rank: int) -> tuple[Patch, dict[str, float]]:
        """The best approximation of every module at the given rank (Eckart-Young).

        Returns:
            The truncated patch, and for every module the relative error ‖ΔW - ΔW_rank‖ / ‖ΔW‖ in the
            Frobenius norm (0 where ΔW is zero).

        Raises:
            UserError: if `rank` is below 1.
        """
        if rank < 1:
            raise UserError(f"a patch cannot be truncated to rank {rank}; give a rank of at least 1")
        kept, errors = {}, {}
        for name, m in self.items():
            u, s, v = m.svd()
            norm = float(s.norm())
            kept[name] = m._from_svd(u, s, v, rank)
            errors[name] = float(s[rank:].norm()) / norm if norm > 0 else 0.0
        return Patch(kept), errors

    def lost(self, errors: Mapping[str, float]) -> float:
        """‖ΔW - ΔW_rank‖ / ‖ΔW‖ over all modules, from the errors that `truncate` gave; 0 for a patch that is zero."""
        norm = self.norm()
        return math.hypot(*(errors[name] * m.norm() for name, m in self.items())) / norm if norm else 0.0

    def compress(self, tolerance: float = 1e-6) -> Patch:
        """The same change at the smallest ranks: singular values that are numerically zero are dropped.

        What is dropped of a module has a norm of at most `tolerance` times its largest rank-one term
        ‖b_i‖ ‖a_i‖. Measuring against the terms rather than the largest singular value makes P + P.negate()
        rank 0, where only rounding noise is left to compare with.
        """
        small = {}
        for name, m in self.items():
            u, s, v = m.svd()
            terms = _wide(m.A).norm(dim=1) * _wide(m.B).norm(dim=0)
            threshold = tolerance * float(terms.max()) if m.rank else 0.0
            left_out = s.square().flip(0).cumsum(0).flip(0).sqrt()  # by a cut before each singular value
            small[name] = m._from_svd(u, s, v, int((left_out > threshold).sum()))
        return Patch(small)

    def pad(self, rank: int) -> Patch:
        """Every module at exactly `rank`, with zeros in A and B; ΔW does not change.

        For formats with one rank for all modules. Padding is not for training on: where A and B are both
        zero, so are both gradients.

        Raises:
            ValueError: if a module's rank is larger than `rank`.
        """
        if rank < self.rank:
            raise ValueError(f"a patch of rank {self.rank} cannot be padded to rank {rank}")
        padded = {}
        for name, m in self.items():
            extra = rank - m.rank
            padded[name] = LowRank(
                torch.nn.functional.pad(m.A, (0, 0, 0, extra)), torch.nn.functional.pad(m.B, (0, extra))
            )
        return Patch(padded)
