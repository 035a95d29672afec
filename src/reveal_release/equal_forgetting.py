"""Equal forgetting: the scale at which a step takes away a given share of the behaviour, and what is measured there.

    bench = Bench(workshop, data)
    forget_pem, retain_pem = bench.modules(release, progress)
    equally_forgetting(bench, forget_pem, retain_pem, release, target=0.25 * bench.shown())

Not promised: that steps which forget equally much here do so under other prompts as well.
"""

import math
from functools import cached_property
from typing import Any

from .config import ReleaseConfig
from .dataset import HELD_BACK, Data, Rows, encode, split
from .generation import Progress
from .metrics.fluency import perplexity_ratio
from .metrics.statistics import Estimate
from .release.interference import interference
from .release.patch import Patch
from .release.release import direction, train_modules
from .release.runtime import applied
from .release.scale import smallest_reaching
from .release.utility import Utility
from .reveal.selfgen import shown_share
from .seeds import plain
from .workshop import Workshop

PROBES = 192
"""Answers by which forgetting is made equal, at least; fewer where there is but one to each prompt."""


class Bench:
    """What the variants of a seed share: encoded records, and the original's figures on those that are measured.

    A fifth of the forget prompts, with all answers to them, and of the retain records is trained on by no module.
    """

    def __init__(self, w: Workshop, data: Data) -> None:
        self.w, self.config = w, w.config
        held, learnt = split(data.forget, HELD_BACK, w.seed("held-back"))
        prompts = {r.prompt for r in held}
        harmless = [r for r in data.harmless if r.prompt not in prompts]
        held = held or learnt  # all under one prompt: there is no other
        self.asked = list(dict.fromkeys(r.prompt for r in held))[:PROBES]
        self.rows, self.forgotten = Rows.of(w.lm, Data(learnt, harmless, data.retain)), encode(w.lm, held)

    @cached_property
    def utility(self) -> Utility:
        """Of the original; to be asked for before a step is on the model."""
        return Utility.of(self.w.lm, self.rows.measured, self.w.prose)

    def shown(self) -> float:
        """Share of fresh answers to the held-back forget prompts, equally many to each, that show the behaviour; of a greedy task one."""
        count = len(self.asked) * (1 if self.w.task.sampling.greedy else -(-PROBES // len(self.asked)))
        return shown_share(self.w.lm, self.w.task, self.asked, self.config.reveal.threshold, count)

    def modules(self, release: ReleaseConfig, progress: Progress, forget_pem: Patch | None = None) -> tuple[Patch, Patch]:
        """`train_modules` with the seed of a run's first iteration."""
        rows, seed = self.rows, self.w.seed("release-1")
        return train_modules(self.w.lm, rows.forget, rows.harmless, rows.retain, release, seed, progress, rows.unanswered, forget_pem)


def equally_forgetting(bench: Bench, forget_pem: Patch, retain_pem: Patch, release: ReleaseConfig, target: float) -> dict[str, Any]:
    """The smallest multiple of the step with which the share of answers that show the behaviour falls to `target`, and figures there.

    Returns:
        `tried`: (scale, share shown) in the order measured. `failed`: empty, or that no multiple up to `release.max_scale` will do, or
        none that leaves the model whole.
        `figures`: of that scale; rises of perplexity are relative, changes of loss in nats.
    """
    lm, utility = bench.w.lm, bench.utility
    with applied(lm.model, direction(forget_pem, retain_pem, release)) as runtime:

        def shown(scale: float) -> float:
            runtime.scale = scale
            return bench.shown()

        found = smallest_reaching(shown, target, release.max_scale)
        if not found.scale:
            least = min(share for _, share in found.tried)
            return {"failed": f"still shows {100 * least:.0f} % up to scale {release.max_scale:g}", "tried": found.tried}
        runtime.scale = found.scale
        if not math.isfinite(utility.loss()):  # nor is anything shown, then
            return {"failed": f"breaks at scale {found.scale:g}, before it forgets so much", "tried": found.tried}
        now = Utility.of(lm, bench.rows.measured, bench.w.prose)
    prose = perplexity_ratio(utility.prose, now.prose)
    rows = bench.forgotten, bench.rows.measured
    figures = {
        "scale": plain(found.scale),
        "shown": plain(found.cost),
        "utility_loss": plain(utility.lost(now)),
        "prose_rise": Estimate(prose.value - 1, prose.n, prose.low - 1, prose.high - 1).to_dict(),
        "records_rise": plain(math.expm1(now.nll - utility.nll)),
        **{name: plain(value) for name, value in interference(lm, forget_pem, retain_pem, *rows, release, found.scale).items()},
    }
    return {"failed": "", "tried": found.tried, "figures": figures}
