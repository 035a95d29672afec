"""A method's settings, searched alike for all: each trained, taken as far as the budget allows, and judged by what still shows.

    outcome = fit(get_method("npo"), lm, task, rows, asked, config, seed, update, once, save)
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from ..chat import Turns
from ..config import RunConfig, Unfit
from ..dataset import Rows
from ..generation import Progress
from ..models import LanguageModel
from ..release.patch import Patch
from ..release.prose import prose
from ..release.release import choose_scale
from ..release.runtime import applied
from ..release.utility import Utility
from ..reveal.selfgen import GONE, SHOWN, is_gone, shown_share
from ..tasks import Task
from .base import BEYOND, TRIALS, Method, Setting, beyond, settings, train

Once = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
TELLING = 0.05
"""Where less of the original's answers show the behaviour, they tell no setting from another."""


def fit(
    method: type[Method], lm: LanguageModel, task: Task, rows: Rows, asked: Sequence[Turns], config: RunConfig, seed: int, update: Progress,
    once: Once, save: Callable[[str, Patch], None],
) -> dict[str, Any]:
    """The best of a method's settings, each at the scale that the budget allows: where its answers show the least of the behaviour.

    Of those that show as much of it, it is the one that spent the most of the budget, for where answers do not tell settings apart, what
    changes nothing is no choice; and of those with which it is gone, the one that cost the least.

    While the best has an outermost of the learning rates tried, the next beyond it is tried too, up to `BEYOND` of them.

    Args:
        asked: prompts whose answers are counted.
        once: does the work of each setting, by its `title`, unless that was done before; gives its outcome.
        save: is given the title and the patch of each that is the best so far, where a scale is within the budget.

    Returns:
        The outcomes: `tried`, and of them the `chosen`.
    """
    release, threshold = config.release.one_pair(), config.reveal.threshold
    prompts = list(dict.fromkeys(asked))[:GONE]
    utility = Utility.of(lm, rows.measured, prose(config.utility_text))
    tried: list[dict[str, Any]] = []

    def shown() -> float:
        return shown_share(lm, task, prompts, threshold, SHOWN)

    def gone() -> bool:
        return is_gone(lm, task, prompts, threshold)

    told = shown() >= TELLING  # else no answer says how far to go, and each setting spends the budget

    def best(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
        return min(outcomes, key=lambda one: ("failed" in one, not one["scale"], *order(one, told)))

    def attempt(setting: Setting) -> dict[str, Any]:
        def trained(done: int, total: int) -> None:
            update(len(tried) * (total + 1) + done, most * (total + 1))

        try:
            step = train(method, lm, rows.forget, rows.retain, release, setting, release.steps_of_a_pair, seed, trained)
            found = at_its_best(lm, step, utility, budget, config.release.max_scale, shown if told else None, gone)
        except Unfit as error:  # it diverged
            return {**asdict(setting), "scale": 0.0, "cost": 0.0, "shown": 1.0, "gone": False, "failed": str(error)}
        outcome = {**asdict(setting), **found}
        if found["scale"] and best([*tried, outcome]) is outcome:
            save(title(outcome), step.scale(found["scale"]))
        return outcome

    waiting, budget, most = settings(method, release), config.utility_budget, TRIALS + BEYOND
    while waiting:
        setting = waiting.pop(0)
        tried.append(once(title(asdict(setting)), partial(attempt, setting)))
        if not waiting and len(tried) < most:
            waiting += beyond(best(tried), tried)
    return {"chosen": best(tried), "tried": tried}


def title(setting: dict[str, Any]) -> str:
    """Tells a method's settings apart."""
    return f"{setting['learning_rate']:.6g}-{setting['strength']:g}"


def at_its_best(
    lm: LanguageModel,
    step: Patch,
    utility: Utility,
    budget: float,
    highest: float,
    shown: Callable[[], float] | None,
    gone: Callable[[], bool],
) -> dict[str, Any]:
    """The scale that the budget allows or 1, for which a method was published, where that shows less of the behaviour; where it is gone
    sooner, the scale with which it is.

    shown: None where hardly a prompt shows it even before: then the budget alone decides.
    """
    found = choose_scale(lm, step, utility, budget, budget, highest, gone if shown else (lambda: False))
    if not shown:
        return {"scale": found.scale, "cost": found.cost, "shown": None, "gone": False}
    points: list[dict[str, Any]] = []
    with applied(lm.model, step) as runtime:
        for scale in sorted({found.scale} if found.gone else {found.scale, min(1.0, found.scale)}):
            runtime.scale = scale
            cost = found.cost if scale == found.scale else utility.loss()
            points.append({"scale": scale, "cost": cost, "shown": shown(), "gone": found.gone})
    return min(points, key=order)


def order(one: dict[str, Any], told: bool = True) -> tuple[bool, float, float]:
    """Of outcomes the best comes first. told: whether answers tell them apart."""
    if not told:
        return True, 0.0, -one["cost"]
    return not one["gone"], one["shown"], one["cost"] if one["gone"] else -one["cost"]
