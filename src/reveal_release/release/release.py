"""One release: the forget module, the retain module, and the step along their difference that the budget allows.

W' = W + s (ΔW_retain − λ_f ΔW_forget), in the mean over a few pairs of modules. The paper trains both modules from W and adds them up.
Here the retain module is trained on W − λ_f ΔW_forget, so that it repairs what the subtraction breaks. It learns, by next-token loss, the
harmless answers that the model itself gave to the revealed instructions (so that something takes the behaviour's place), but not where
they end, makes the answers unlikely to which there is no harmless one, and is held, by KL divergence, to the outputs of W on everything
else. For a style the ascent module (`ascent`) is added to the mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..config import ReleaseConfig
from ..generation import Progress
from ..models import LanguageModel
from .patch import Patch
from .pem import train_pem
from .rows import Row
from .runtime import applied
from .scale import ScaleSearch, largest_within
from .utility import Utility

MARGIN = 1.25
"""How much further to go once the behaviour is gone: it may still show under other prompts than the model's own."""


def shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Tells how far a part is as so much of the whole: `before` steps of its `total` were done when the part began."""
    return (lambda done, _: progress(before + done, total)) if progress else None


def train_modules(
    lm: LanguageModel,
    forget: Sequence[Row],
    harmless: Sequence[Row],
    retain: Sequence[Row],
    config: ReleaseConfig,
    seed: int,
    progress: Progress | None = None,
    unanswered: Sequence[Row] = (),
    forget_pem: Patch | None = None,
) -> tuple[Patch, Patch]:
    """The forget and the retain module (which is empty if `config.retain_steps` is 0) of the model as it is now.

    Args:
        forget: what the revealed instructions drew out; harmless: what the same instructions drew that does not show the behaviour.
        retain: what must not change. unanswered: forget records to whose prompts there is no harmless answer to learn instead.
        forget_pem: the forget module, where it is trained already.
    """
    total = config.steps_of_a_pair
    if forget_pem is None:
        told = shifted(progress, 0, total)
        forget_pem = train_pem(lm, forget, config, steps=config.steps, seed=seed, role="forget", anchors=retain, progress=told)
    if not config.retain_steps:
        return forget_pem, Patch()
    with applied(lm.model, forget_pem.negate(), config.forget_scale) as subtracted:
        retain_pem = train_pem(
            lm,
            harmless,
            config,
            steps=config.retain_steps,
            seed=seed + 1,
            anchors=retain,
            unlearnt=unanswered,
            unlearnt_weight=len(unanswered) / len(forget),  # as much as they are of the behaviour
            teacher=subtracted,
            frozen=forget_pem,
            learn_ends=not config.keep.get("ending"),
            progress=shifted(progress, config.steps, total),
        )
    return forget_pem, retain_pem


def averaged(
    train: Callable[[int, Progress | None], tuple[Patch, Patch]], config: ReleaseConfig, seed: int, progress: Progress | None = None
) -> Patch:
    """One whole step: the mean of `direction` over `config.pairs` independently trained pairs of modules.

    A LoRA moves in the few directions that its random start gives it, so that two starts share little but what their records ask for:
    the mean keeps that, and of what each breaks by chance a part. Averaging weights that were trained apart is a model soup (Wortsman et
    al. 2022, arXiv 2203.05482).

    Args:
        train: a pair by its seed, as `train_modules` trains it.
    """
    each, step = config.steps_of_a_pair, Patch()
    for pair in range(config.pairs):
        pems = train(seed + 2 * pair, shifted(progress, pair * each, config.pairs * each))
        step = step + direction(*pems, config).scale(1 / config.pairs)
    return step


def suited(config: ReleaseConfig, forget: Sequence[Row], unanswered: Sequence[Row]) -> ReleaseConfig:
    """The settings for these records, by whether most of them are unanswered: for a skill, or else for a style.

    A skill such as writing code is all that its prompts draw out, and the layers read other things there than elsewhere: the modules can
    then do without the leading directions of what is retained (`skill-null-space`). What is left is its own: one pair that is trained for
    as long as all forgets it within the step that it was trained as, and the mean of shorter ones has to be taken several times as far,
    which costs the rest. A style, such as toxicity, comes out under prompts that also draw other answers; to change it those directions
    are needed.
    """
    if 2 * len(unanswered) > len(forget):
        return replace(config.one_pair(), ascent=0.0)
    return replace(config, keep={name: weight for name, weight in config.keep.items() if name != "skill-null-space"})


def direction(forget_pem: Patch, retain_pem: Patch, config: ReleaseConfig) -> Patch:
    """ΔW_retain − λ_f ΔW_forget: what one pair of modules adds to the weights at scale 1."""
    return retain_pem + forget_pem.scale(-config.forget_scale)


def choose_scale(
    lm: LanguageModel,
    step: Patch,
    utility: Utility,
    share: float,
    budget: float,
    highest: float,
    is_gone: Callable[[], bool],
    spent: float = 0.0,
    taken: float = 0.0,
) -> ScaleSearch:
    """The largest multiple of `step`, up to `highest`, whose cost stays within this step's `share` of the budget.

    Where no answer shows the behaviour any more, there will be nothing left to reveal, so the step is the last: it is then `MARGIN`
    times the mildest with which that is so (by bisection, to a sixteenth), or what of that the whole budget allows. The margin is on
    all of the step, also on what of it is on the model already.

    Args:
        is_gone: whether no fresh answer to the forget records' prompts shows the behaviour.
        spent: the cost of what is on the model already. taken: how much of that is of this step, as a multiple of it.
    """
    with applied(lm.model, step) as runtime:

        def cost(scale: float) -> float:
            runtime.scale = scale
            return utility.loss()

        def gone(scale: float) -> bool:
            runtime.scale = scale
            return is_gone()

        found = largest_within(cost, share, highest, spent)
        if not found.scale or not gone(found.scale):
            return found
        low, mildest = 0.0, found.scale
        for _ in range(4):
            middle = (low + mildest) / 2
            low, mildest = (low, middle) if gone(middle) else (middle, mildest)
        enough = MARGIN * (taken + mildest) - taken
        wide = largest_within(cost, budget, min(enough, highest if share < budget else found.scale), spent)
        return ScaleSearch(wide.scale, wide.cost, [*found.tried, *wide.tried], gone=True)
