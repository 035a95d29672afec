"""Keeping two parameter-efficient modules (PEMs) out of each other's way: penalties, constraint, measures.

The forget PEM ΔW_f = B_f A_f is trained first and frozen; the retain PEM ΔW_r = B_r A_r is trained second.
Where the two act on the same directions, taking one out also moves the other. A penalty is added to the
second PEM's loss,

    loss + μ · olora(trainable, frozen)

where both arguments map module names to anything with `.A` (r, in) and `.B` (out, r): the live parameters,
from `release.lora.trainable_factors(peft_model)`, and a `Patch`.

| name               | for one module                | over modules | what lowers it too                     |
| ------------------ | ----------------------------- | ------------ | -------------------------------------- |
| `olora`            | Σ_ij abs(A_f A_rᵀ)_ij         | sum          | shrinking A_r while B_r grows          |
| `olora_normalised` | mean_ij abs(cos) of rows of A | mean         | a change of basis (A -> GA, B -> BG⁻¹) |
| `gauge_free`       | cos² between ΔW_f and ΔW_r    | mean         | nothing; but rows of A may be shared   |

`olora` is what the published code of O-LoRA computes (Wang et al., arXiv 2310.14152; the paper's equation
squares the entries, with the same zeros): not normalised by rank, width or the number of modules, so its μ
does not carry over between models. The other two lie in [0, 1]. `gauge_free` asks for less than the others:
ΔW_f and ΔW_r may read the same inputs, as long as their B's keep the products apart.

All compute in float32 (call them outside autocast), on the trainable side's device; keep the frozen patch
there too (`Patch.to`), or it is copied at every step.

What this does not promise: orthogonal weights are not orthogonal functions. Two orthogonal PEMs still meet in
the nonlinearities and in the layers above.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Unfit, UserError
from .patch import LowRank, Patch


class Factors(Protocol):
    """Anything that carries the two factors of ΔW = B A: a `LowRank`, or live parameters."""

    @property
    def A(self) -> Tensor: ...

    @property
    def B(self) -> Tensor: ...



def _pairs(
    trainable: Mapping[str, Factors], frozen: Mapping[str, LowRank]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(A_r, B_r, A_f, B_f) in float32 on the trainable side's device, for every module that both hold."""
    shared = [name for name in trainable if name in frozen]
    if not shared:
        raise UserError(
            "the two PEMs have no module in common, so there is no orthogonality penalty between them; "
            "train both on overlapping target modules of one base model, or leave the penalty out of release.keep"
        )
    for name in shared:
        A, B = trainable[name].A, trainable[name].B
        yield A.float(), B.float(), frozen[name].A.to(A.device), frozen[name].B.to(B.device)


def olora(trainable: Mapping[str, Factors], frozen: Mapping[str, LowRank]) -> Tensor:
    """O-LoRA as its code has it: Σ over modules and entries of |A_f A_rᵀ|. In [0, ∞)."""
    return torch.stack([(A_f @ A_r.T).abs().sum() for A_r, _, A_f, _ in _pairs(trainable, frozen)]).sum()


def olora_normalised(trainable: Mapping[str, Factors], frozen: Mapping[str, LowRank]) -> Tensor:
    """Mean |cosine| between a row of A_f and a row of A_r, over pairs of rows, then over modules. In [0, 1].

    A zero row (padding) counts as orthogonal to everything.
    """
    return torch.stack([_row_cosine(A_f, A_r) for A_r, _, A_f, _ in _pairs(trainable, frozen)]).mean()


def gauge_free(trainable: Mapping[str, Factors], frozen: Mapping[str, LowRank]) -> Tensor:
    """Mean over modules of cos²(ΔW_f, ΔW_r) = ⟨ΔW_f, ΔW_r⟩² / (‖ΔW_f‖² ‖ΔW_r‖²). In [0, 1].

    Depends on the products B A only, so A -> GA, B -> BG⁻¹ leaves it as it is; costs r×r matrices. A LoRA
    starts at ΔW_r = 0, where the angle is not defined and its gradient has no bound: ‖ΔW_r‖² is increased by
    1e-6 ‖ΔW_f‖², which makes the penalty and its gradient 0 there, and lowers it by less than 1 % once
    ‖ΔW_r‖ is a hundredth of ‖ΔW_f‖.
    """
    values = []
    for A_r, B_r, A_f, B_f in _pairs(trainable, frozen):
        product = inner(A_f, B_f, A_r, B_r)
        norm_f = inner(A_f, B_f, A_f, B_f)
        norm_r = inner(A_r, B_r, A_r, B_r)
        tiny = torch.finfo(torch.float32).tiny  # only for ΔW_f = 0, where 0/0 must be 0
        # Divided in two steps: the product of two squared norms leaves the range of float32 early.
        values.append((product / norm_f.clamp_min(tiny)) * (product / (norm_r + 1e-6 * norm_f).clamp_min(tiny)))
    return torch.stack(values).mean()


def inner(A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor) -> Tensor:
    """⟨B₁A₁, B₂A₂⟩ = Σ (B₁ᵀB₂) ⊙ (A₁A₂ᵀ)."""
    return ((B1.T @ B2) * (A1 @ A2.T)).sum()


def _row_cosine(A_f: Tensor, A_r: Tensor) -> Tensor:
    if A_f.shape[0] == 0 or A_r.shape[0] == 0:
        return A_r.new_zeros(())
    return (F.normalize(A_f, dim=1) @ F.normalize(A_r, dim=1).T).abs().mean()


def row_basis(A: Tensor, tolerance: float = 1e-6) -> Tensor:
    """Orthonormal basis of the row space of A (r, in): (in, k) float64 on the CPU, k the numerical rank of A.

    QR first, so that the SVD, which finds the rank (QR alone would complete a deficient or padded A with
    arbitrary directions), is of an r×r matrix. Singular values up to `tolerance` times the largest count as
    zero.
    """
    q, r = torch.linalg.qr(A.detach().to("cpu", torch.float64).T)
    u, s, _ = torch.linalg.svd(r, full_matrices=False)
    largest = float(s.max()) if s.numel() else 0.0
    return q @ u[:, s > tolerance * largest]


def _project(A: Tensor, basis: Tensor) -> Tensor:
    if basis.shape[1] >= basis.shape[0]:
        raise Unfit(
            f"all {basis.shape[0]} input dimensions of a module are forbidden, which leaves no null space to train in; lower the rank "
            "of the frozen PEM, truncate it, or use a penalty of release.keep instead"
        )
    q = basis.to(A.device, A.dtype if A.dtype == torch.float64 else torch.float32)
    out = A.detach().to(q.dtype)
    for _ in range(2):  # the second pass removes what the first left through rounding
        out = out - (out @ q) @ q.T
    return out.to(A.dtype)


class NullSpace:
    """Hard constraint during training: keeps every A off given directions of its module's inputs.

    Off the rows of A_f, A_f A_rᵀ = 0: ΔW_r reads nothing that ΔW_f reads, whatever B_r becomes.

        null_space = NullSpace({name: m.A for name, m in forget_patch.items()})
        null_space.project_(factors)                                 # before training
        loss.backward(); null_space.project_gradients_(factors)
        optimizer.step(); null_space.project_(factors)

    Projecting A after every step is projected gradient descent. Optimisers with momentum, or a scale per entry, leave the allowed
    space even on projected gradients, so A is projected again each time. Gradients are projected too, because most of one may lie in
    the forbidden space, where it would use up the clipping norm and Adam's second moments.

    Args:
        directions: (k, in) rows by module name, independent or not; of several mappings, the joint span is forbidden.
    """

    def __init__(self, *directions: Mapping[str, Tensor]) -> None:
        self._bases: dict[str, Tensor] = {}
        for name in dict.fromkeys(name for one in directions for name in one):
            rows = [one[name] for one in directions if name in one]
            # A basis of each first: what counts as zero is relative to the largest of its kind.
            joint = row_basis(torch.cat([row_basis(x).T for x in rows]))
            self._bases[name] = joint.to(rows[0].device, torch.float32)

    @torch.no_grad()
    def project_(self, trainable: Mapping[str, Factors]) -> None:
        """Project every A in place. Modules without directions are left alone.

        Raises:
            Unfit: if a module has no null space left.
        """
        for name in self._bases.keys() & trainable.keys():
            A = trainable[name].A
            A.copy_(_project(A, self._bases[name]))

    def project_gradients_(self, trainable: Mapping[str, Factors]) -> None:
        """Project the gradient of every A in place."""
        for name in self._bases.keys() & trainable.keys():
            gradient = trainable[name].A.grad
            if gradient is not None:
                gradient.copy_(_project(gradient, self._bases[name]))


def overlap(patch_f: Patch, patch_r: Patch) -> dict[str, float]:
    """How much two finished patches overlap, for reports.

    Returns:
        `row_cosine`: mean |cosine| of the rows of A_f and A_r (what `olora_normalised` penalises), in [0, 1].
        `subspace_cosine`: mean cosine of the principal angles between the two row spaces, averaged over
            modules, in [0, 1]: 0 for orthogonal spaces, 1 where one holds the other. Does not depend on the
            basis.
        `delta_cosine`: ⟨ΔW_f, ΔW_r⟩ / (‖ΔW_f‖ ‖ΔW_r‖) over all modules together, in [-1, 1], signed.
        The first two average over the modules that both patches hold; all are 0 if there are none.
    """
    rows, angles = [], []
    for name in patch_f:
        if name not in patch_r:
            continue
        A_f, A_r = patch_f[name].A.cpu(), patch_r[name].A.cpu()
        rows.append(float(_row_cosine(A_f, A_r)))
        cosines = torch.linalg.svdvals(row_basis(A_f).T @ row_basis(A_r))
        angles.append(float(cosines.clamp(max=1.0).mean()) if cosines.numel() else 0.0)
    norms = patch_f.norm() * patch_r.norm()
    return {
        "row_cosine": sum(rows) / len(rows) if rows else 0.0,
        "subspace_cosine": sum(angles) / len(angles) if angles else 0.0,
        "delta_cosine": patch_f.inner(patch_r) / norms if norms > 0 else 0.0,
    }
