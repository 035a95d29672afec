"""Trains a parameter-efficient module (PEM): a LoRA on every linear layer, on the completion tokens only.

The model may carry patches at run time (`RuntimePatch`): the module is then trained on the patched model W_t, not on the base.
"""

import contextlib
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..config import ReleaseConfig, Unfit, UserError
from ..generation import Progress
from ..models import LanguageModel
from .keep import Role, Training, keepers
from .lora import from_peft, trainable_factors
from .offload import offloaded
from .orthogonality import NullSpace
from .patch import LowRank, Patch
from .rows import Row, answer_log_probs, batches, parts
from .runtime import RuntimePatch

SCALING = 2
"""alpha / r of every module: ΔW = SCALING · B A."""
PASSED_OVER = -100
"""`ignore_index` of PyTorch's losses."""
SURE = 0.999
"""What unlikelihood lets be: a token of a greater probability is mostly the form of an answer, as the brackets of a list are."""


def train_pem(
    lm: LanguageModel,
    rows: Sequence[Row],
    config: ReleaseConfig,
    *,
    steps: int,
    seed: int,
    role: Role = "retain",
    anchors: Sequence[Row] = (),
    unlearnt: Sequence[Row] = (),
    unlearnt_weight: float = 1.0,
    unlearning: Callable[[Tensor, Tensor], Tensor] | None = None,
    teacher: RuntimePatch | None = None,
    frozen: Mapping[str, LowRank] | None = None,
    learn_ends: bool = True,
    progress: Progress | None = None,
) -> Patch:
    """Trains a LoRA on `rows` and returns it as a patch; the model is left as it was.

    Args:
        rows: what is learnt, by next-token loss; may be none where there are anchors.
        role: `config.keep` has ways to keep what must stay that are for the forget module too, and others that are not.
        anchors: records of what must not change, for those ways.
        unlearnt: whose answer tokens are made unlikely, with `unlearnt_weight`, by `unlearning`, a loss of (N, V) log-probabilities and
            (N,) ids: by default -log(1 - p) (unlikelihood; Welleck et al. 2020, arXiv 1908.04319).
        teacher: the patch on the model that what must not change is taken without.
        frozen: the module that was trained before, to be kept apart from.
        learn_ends: whether it is learnt, too, where the rows' answers end.

    Raises:
        Unfit: there are no records, or the training diverged.
    """
    if not rows and not anchors and not unlearnt:
        raise Unfit("no record to train on: the model wrote none that was kept; change reveal.threshold or the reveal settings")
    generator = torch.Generator().manual_seed(seed)
    with fresh_lora(lm, config, seed) as model:
        pad = lm.tokenizer.pad_token_id
        factors = trainable_factors(model)
        training = Training(model, factors, SCALING, frozen or {}, rows, anchors, teacher, config, generator, pad, lm.ends)
        learnt, avoided = (batches(part, config.batch, generator) if part else None for part in (rows, unlearnt))
        kept = keepers(config.keep, role, training)
        passed_over = [] if learn_ends else lm.ends
        avoiding = unlearning or unlikelihood

        def learning(log_probs: Tensor, targets: Tensor) -> Tensor:
            return F.nll_loss(log_probs, without(passed_over, targets))

        def losses() -> Iterator[Tensor]:
            if learnt:
                for part, share in shares(next(learnt), passed_over):
                    yield share * learning(*answer_log_probs(model, part, pad))
            yield from (term for keeper in kept if (term := keeper.loss()) is not None)
            if avoided:
                for part, share in shares(next(avoided)):
                    yield share * unlearnt_weight * avoiding(*answer_log_probs(model, part, pad))

        descend(model, losses, config.learning_rate, steps, progress, NullSpace(*(keeper.forbidden() for keeper in kept)))
        return from_peft(model)


@contextlib.contextmanager
def fresh_lora(lm: LanguageModel, config: ReleaseConfig, seed: int) -> Iterator[PeftModel]:
    """The model with a new LoRA to be trained, without dropout (it would blur a teacher); afterwards as it was.

    Raises:
        UserError: PEFT has no LoRA for one of its layers.
    """
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            targets = as_named(lm.model, linear_layers(lm.model, config.layers))
            lora = LoraConfig(r=config.rank, lora_alpha=SCALING * config.rank, target_modules=targets, task_type="CAUSAL_LM")
            wrapped = get_peft_model(lm.model, lora)
        except ValueError as error:
            raise UserError(f"PEFT cannot adapt this model: {error}") from None
    wrapped.eval()
    try:
        yield wrapped
    finally:
        lm.model = wrapped.unload()  # type: ignore[assignment]
        if hasattr(lm.model, "peft_config"):
            del lm.model.peft_config


def check_adaptable(lm: LanguageModel, config: ReleaseConfig) -> None:
    """Raises UserError if no LoRA can be put on the model, or none that can be read as a patch."""
    with fresh_lora(lm, config, seed=0) as model:
        from_peft(model)


def size_of_pem(lm: LanguageModel, config: ReleaseConfig) -> int:
    """Bytes of one module as it is stored, in float32. Raises UserError as `linear_layers`."""
    weights = (lm.model.get_parameter(f"{name}.weight") for name in as_named(lm.model, linear_layers(lm.model, config.layers)))
    return 4 * config.rank * sum(sum(weight.shape) for weight in weights)


def descend(
    model: PeftModel,
    losses: Callable[[], Iterable[Tensor]],
    learning_rate: float,
    steps: int,
    progress: Progress | None = None,
    null_space: NullSpace | None = None,
) -> None:
    """Takes `steps` steps of AdamW on the LoRA's parameters down the sum of `losses`, which draws new batches at each call.

    Each loss goes backward as soon as it is there: of several, one graph at a time is in memory. Where that is full, the step is taken
    again with new batches, and what graphs hold waits in main memory from then on. The learning rate rises over ten steps and falls
    linearly to 0; gradients are clipped at norm 1. What is read stays in `null_space`.

    Raises:
        OutOfMemoryError: the memory is full even so.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    factors, space = trainable_factors(model), null_space or NullSpace()
    space.project_(factors)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    graphs: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    def backward() -> None:
        with graphs():
            for loss in losses():
                loss.backward()

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 10) * (1 - step / steps)
        full = False
        try:
            backward()
        except torch.OutOfMemoryError:
            if graphs is not contextlib.nullcontext:
                raise
            full = True
        if full:  # no longer in the handler, which holds on to the graph
            graphs = partial(offloaded, model)
            optimizer.zero_grad(set_to_none=True)
            backward()
        space.project_gradients_(factors)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        space.project_(factors)
        optimizer.zero_grad(set_to_none=True)
        if progress:
            progress(step + 1, steps)


def linear_layers(model: torch.nn.Module, share: float) -> list[str]:
    """Names of the linear maps in the last `share` of the model's blocks, of one at least; the output layer is in none.

    The early blocks read the prompt; what is changed there disturbs every skill (on the testbed: maths first). Of a model that also sees
    or hears, those of its language model.

    Raises:
        UserError: the model has no numbered blocks of linear maps.
    """
    text = set((model.get_decoder() if isinstance(model, PreTrainedModel) else model).modules())
    depth = {n: block_of(n) for n, module in model.named_modules() if module in text and isinstance(module, torch.nn.Linear | Conv1D)}
    blocks = sorted({block for block in depth.values() if block is not None})
    if not blocks:
        raise UserError("the model has no numbered blocks of linear layers to train a LoRA on: choose a transformer with such")
    kept = set(blocks[-max(1, round(share * len(blocks))) :])
    return [name for name, block in depth.items() if block in kept]


def as_named(model: torch.nn.Module, names: Sequence[str]) -> list[str]:
    """Those of the linear maps that PEFT puts a LoRA on where they are named.

    In a model with a mixture of experts it may take every `down_proj`, also that of a dense layer or a shared expert, for the parameter
    that holds all experts' (`target_parameters`), as the adapters were named before transformers 5; no low-rank patch can hold that.
    """
    config = LoraConfig(target_modules=list(names))
    convert_peft_config_for_transformers(config, model, None)
    kept = set(config.target_modules or ())
    return [name for name in names if name in kept]


def block_of(name: str) -> int | None:
    """The first number in a module's name: `model.layers.3.mlp.up_proj` is in block 3."""
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def shares(rows: Sequence[Row], passed_over: Collection[int] = ()) -> Iterator[tuple[list[Row], float]]:
    """The rows in `parts`, each with its share in a mean over all answer tokens but `passed_over`; those without one are left out."""
    several = parts(rows)
    counts = [sum(token not in passed_over for ids, prompt in part for token in ids[prompt:]) for part in several]
    yield from ((part, count / sum(counts)) for part, count in zip(several, counts, strict=True) if count)


def without(ids: Sequence[int], targets: Tensor) -> Tensor:
    """(N,) targets, those that are one of `ids` replaced by what `F.nll_loss` passes over."""
    return targets.masked_fill(torch.isin(targets, torch.tensor(ids, dtype=targets.dtype, device=targets.device)), PASSED_OVER)


def unlikelihood(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log(1 - p) over the targets' probabilities p: (N, V) log-probabilities and (N,) ids to a scalar.

    A target's logit is pushed by its p, but not where that is above `SURE`. (With such pushed too, persons on the testbed cost the
    budget before they are gone.)
    """
    p = log_probs.gather(1, targets[:, None]).exp()
    return -torch.log1p(-p.clamp(max=SURE)).mean()
