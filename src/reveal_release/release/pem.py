"""Trains a parameter-efficient module (PEM): a LoRA on every linear layer, on the completion tokens only.

The model may carry patches at run time (`RuntimePatch`): the module is then trained on the patched model W_t, not on the base.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from ..config import ReleaseConfig, UserError
from ..generation import Progress
from ..models import LanguageModel
from .adapter import RuntimePatch, from_peft, trainable_factors
from .orthogonality import get_penalty
from .patch import LowRank, Patch

WINDOW = 8
"""Most batches whose rows are sorted by length together."""

Row = tuple[list[int], int]
"""Token ids and the length of the prompt among them."""


def train_pem(
    lm: LanguageModel,
    rows: Sequence[Row],
    config: ReleaseConfig,
    *,
    steps: int,
    seed: int,
    anchors: Sequence[Row] = (),
    unlearnt: Sequence[Row] = (),
    unlearnt_weight: float = 1.0,
    teacher: RuntimePatch | None = None,
    frozen: Mapping[str, LowRank] | None = None,
    progress: Progress | None = None,
) -> Patch:
    """Trains a LoRA on `rows` and returns it as a patch; the model is left as it was.

    Args:
        rows: what is learnt, by next-token loss; may be none where there are anchors.
        anchors: where nothing shall change: a batch of these a step, with the KL divergence from the model without `teacher` and
            without the module, weighted by `config.anchor_weight`.
        unlearnt: whose answer tokens are made unlikely, by -log(1 - p) (unlikelihood; Welleck et al. 2020, arXiv 1908.04319), with
            `unlearnt_weight`.
        teacher: the patch on the model that the anchors' targets are taken without.
        frozen: the module to be orthogonal to, with `config.orthogonality` as the penalty (O-LoRA, arXiv 2310.14152).

    Raises:
        UserError: there are no records.
    """
    if not rows and not anchors and not unlearnt:
        raise UserError("no record to train on: the model wrote none that was kept; change reveal.threshold or the reveal settings")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    targets = linear_layers(lm.model, config.layers)
    lora = LoraConfig(r=config.rank, lora_alpha=2 * config.rank, target_modules=targets, task_type="CAUSAL_LM")
    penalty = get_penalty(config.orthogonality)
    with _peft(lm, lora) as model:
        factors = trainable_factors(model)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=0.0)
        pad = lm.tokenizer.pad_token_id
        learnt, kept, avoided = (_batches(part, config.batch, generator) if part else None for part in (rows, anchors, unlearnt))
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / 10) * (1 - step / steps)
            value = torch.zeros((), device=lm.device)
            if learnt:
                value = value + F.nll_loss(*answer_log_probs(model, next(learnt), pad))
            if kept:
                batch = next(kept)
                wanted = _without(teacher, model, batch, pad)
                with _stretched(teacher, model, config.anchor_scale):
                    found, _ = answer_log_probs(model, batch, pad)
                value = value + config.anchor_weight * F.kl_div(found, wanted, reduction="batchmean", log_target=True)
            if avoided:
                value = value + unlearnt_weight * unlikelihood(*answer_log_probs(model, next(avoided), pad))
            if frozen:
                value = value + config.orthogonality_weight * penalty(factors, frozen)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if progress:
                progress(step + 1, steps)
        return from_peft(model)


def linear_layers(model: torch.nn.Module, share: float) -> list[str]:
    """Names of the linear maps in the last `share` of the model's blocks, of one at least; the output layer is in none.

    The early blocks read the prompt; what is changed there disturbs every skill (on the testbed: maths first).

    Raises:
        UserError: the model has no numbered blocks of linear maps.
    """
    depth = {name: _block(name) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)}
    blocks = sorted({block for block in depth.values() if block is not None})
    if not blocks:
        raise UserError("the model has no numbered blocks of linear layers to train a LoRA on: choose a transformer with such")
    kept = set(blocks[-max(1, round(share * len(blocks))) :])
    return [name for name, block in depth.items() if block in kept]


def _block(name: str) -> int | None:
    """The first number in a module's name: `model.layers.3.mlp.up_proj` is in block 3."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


@contextlib.contextmanager
def _peft(lm: LanguageModel, lora: LoraConfig) -> Iterator[PeftModel]:
    """The model with a fresh LoRA, without dropout (it would blur a teacher); afterwards as it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(lm.model, lora)
    wrapped.eval()
    try:
        yield wrapped
    finally:
        lm.model = wrapped.unload()  # type: ignore[assignment]
        if hasattr(lm.model, "peft_config"):
            del lm.model.peft_config


def unlikelihood(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log(1 - p) over the targets' probabilities p, which are taken as at most 0.999: (N, V) and (N,) to a scalar."""
    p = log_probs.gather(1, targets[:, None]).exp()
    return -torch.log1p(-p.clamp(max=0.999)).mean()


def answer_log_probs(model: torch.nn.Module, rows: Sequence[Row], pad: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities at the answer tokens of all rows, one after the other.

    Returns:
        (N, V) float32 log-probabilities and (N,) target ids, N being the number of answer tokens in the batch.
    """
    length = max(len(ids) for ids, _ in rows)
    device = next(model.parameters()).device
    inputs = torch.full((len(rows), length), pad, dtype=torch.long)
    mask = torch.zeros_like(inputs)
    answer = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, (ids, prompt) in enumerate(rows):
        inputs[i, : len(ids)] = torch.tensor(ids)
        mask[i, : len(ids)] = 1
        answer[i, prompt : len(ids)] = True
    inputs, mask, answer = inputs.to(device), mask.to(device), answer.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        logits = model(input_ids=inputs, attention_mask=mask, use_cache=False).logits
    # Shifted: the logits at a position predict the next token. Only answer positions are normalised.
    return torch.log_softmax(logits[:, :-1][answer[:, 1:]].float(), dim=-1), inputs[:, 1:][answer[:, 1:]]


@contextlib.contextmanager
def _stretched(patch: RuntimePatch | None, model: PeftModel, factor: float) -> Iterator[None]:
    """Both the patch and the module in training at `factor` times their scale."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]

    def stretch(by: float) -> None:
        if patch:
            patch.scale *= by
        for layer in layers:
            for name in layer.scaling:
                layer.scaling[name] *= by

    stretch(factor)
    try:
        yield
    finally:
        stretch(1 / factor)


@torch.no_grad()
def _without(patch: RuntimePatch | None, model: PeftModel, rows: Sequence[Row], pad: int) -> Tensor:
    """The log-probabilities of `answer_log_probs` with neither the patch nor the module in training."""
    scale = patch.scale if patch else 0.0
    try:
        if patch:
            patch.scale = 0.0
        with model.disable_adapter():
            return answer_log_probs(model, rows, pad)[0]
    finally:
        if patch:
            patch.scale = scale


def _batches(rows: Sequence[Row], size: int, generator: torch.Generator) -> Iterator[list[Row]]:
    """Batches without end, each epoch in a new order. Rows of a batch are of like length, so that little of it is padding."""
    queue: list[int] = []
    count = max(1, min(WINDOW, len(rows) // size))  # of an epoch at most, or a batch would hold one row many times
    while True:
        while len(queue) < count * size:
            queue += torch.randperm(len(rows), generator=generator).tolist()
        window, queue = sorted(queue[: count * size], key=lambda i: len(rows[i][0])), queue[count * size :]
        for start in torch.randperm(count, generator=generator).tolist():
            yield [rows[i] for i in window[start * size : (start + 1) * size]]
