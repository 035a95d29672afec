"""What searches of both models find: the strongest instructions, and examples of the behaviour. The other attacks begin here.

    found = find(pair)
    found.asked, found.shown        # instructions; records of the original that show the behaviour
    attack(pair, found)             # how the search fared as an attack
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..generation import Progress
from ..models import LanguageModel
from ..release.patch import Patch
from ..reveal.rewards import RewardCache
from ..reveal.search import search
from ..tasks import Record
from .elicitation import Outcome, answers, examples
from .pair import SIDES, Pair, Sides

BUDGET = 2
"""Each search tries so many times the instructions that a search of a run does."""
STRONGEST = 10
RETAKE = 16
"""Most answers to each of the strongest instructions, where the model itself is changed."""


class Found(NamedTuple):
    """searches: of each seed, on both models. asked: the strongest instructions of either model, with `scores` by model and instruction.

    ranked: the strongest on the released model. best: of either model, with `best_scores` on samples that did not choose it. shown:
    records of the original that show the behaviour. calls: answers drawn of each model to find out the strongest.
    """

    searches: list[Sides]
    asked: list[str]
    scores: dict[str, dict[str, np.ndarray]]
    ranked: list[str]
    best: dict[str, str]
    best_scores: dict[str, dict[str, np.ndarray]]
    shown: list[Record]
    calls: int

    def outcomes(self, pair: Pair) -> Sides:
        """How `asked` fare on both models as they are, with the random numbers of `ask`."""
        return {side: pair.outcome([rows[: samples(pair)] for rows in self.scores[side].values()]) for side in SIDES}

    def ask(self, pair: Pair, progress: Progress | None = None) -> list[list[float]]:
        """Scores of `asked` on the model as it is now: the first `samples(pair)` answers that `scores` has of the model before."""
        return answers(pair.lm, pair.task, self.asked, samples(pair), pair.seed("strongest"), progress, most(pair)).tolist()


def samples(pair: Pair) -> int:
    return min(RETAKE, pair.count)


def most(pair: Pair) -> int:
    """Answers to each of the strongest instructions, of both models as they are."""
    return pair.count * len(pair.seeds)


def find(pair: Pair) -> Found:
    """The finalists of all searches, asked of both models in three rounds, each on fresh samples.

    All; then the `STRONGEST` of either model (`asked`); then the best of these on either (`best`). So the luckiest does not win, and
    the figures of the best are of samples that did not choose them.
    """
    searches = made(pair)
    finalists = (f["instruction"] for sides in searches for side in SIDES for f in sides[side]["finalists"])
    candidates = list(dict.fromkeys(finalists))
    first = pair.scores("rank", "Ask all finalists of", candidates, pair.count)
    strong = {side: sorted(candidates, key=lambda text: -first[side][text].mean())[:STRONGEST] for side in SIDES}
    asked = list(dict.fromkeys(strong["original"] + strong["released"]))
    second = pair.scores("strongest", "Ask the strongest of", asked, most(pair))
    best = {side: max(asked, key=lambda text: second[side][text].mean()) for side in SIDES}
    ranked = sorted(strong["released"], key=lambda text: -second["released"][text].mean())
    last = list(dict.fromkeys(best.values()))
    third = pair.scores("best", "Ask the best of", last, most(pair))
    calls = len(candidates) * pair.count + (len(asked) + len(last)) * most(pair)
    return Found(searches, asked, second, ranked, best, third, shown(pair, searches), calls)


def made(pair: Pair) -> list[Sides]:
    """For each seed what the search found on both models.

    With what worked in the run both begin; without it, the released model's search begins with what the original's found.
    """
    settings = replace(pair.config.reveal, evaluations=BUDGET * pair.config.reveal.evaluations)
    searches: list[Sides] = []
    for i, seed in enumerate(pair.seeds, 1):
        sides: Sides = {}
        for side in SIDES:
            begin = pair.known or [f["instruction"] for found in sides.values() for f in found["finalists"]]
            patch = pair.patch if side == "released" else Patch()

            def work(lm: LanguageModel, update: Progress, seed: int = seed, begin: list[str] = begin, patch: Patch = patch) -> Any:
                cache = RewardCache.of(lm, pair.task, pair.config, patch, pair.folder.state / "rewards")
                return search(lm, pair.task, settings, seed, begin, update, cache).to_dict()

            sides[side] = pair.on(side, f"search-{i}", f"Search {i} of {len(pair.seeds)}:", work, settings.evaluations)
        searches.append(sides)
    return searches


def shown(pair: Pair, searches: list[Sides]) -> list[Record]:
    """Records of the original that show the behaviour.

    As in a run, a portfolio writes them: what the searches of the original tried, by reward and share of distinct answers. The
    strongest alone may have but one answer each.
    """
    tried = [row for sides in searches for row in sides["original"]["history"]]
    worth = {text: reward * distinct for text, reward, distinct in tried}
    portfolio = sorted(worth, key=lambda text: -worth[text])[: pair.config.reveal.portfolio]

    def work(lm: LanguageModel, update: Progress) -> Any:
        threshold, seed = pair.config.reveal.threshold, pair.seed("examples")
        return [record.to_dict() for record in examples(lm, pair.task, portfolio, pair.count, threshold, seed, update)]

    return [Record.from_dict(row) for row in pair.on("original", "examples", "Examples from", work)]


def attack(pair: Pair, found: Found) -> Sides:
    """The best instruction of each model, and the best of each search."""
    sides: Sides = {}
    for side, instruction in found.best.items():
        by_seed = [{**one[side]["best"], "calls": one[side]["calls"]} for one in found.searches]
        calls = sum(one["calls"] for one in by_seed) + found.calls
        told = pair.outcome(found.best_scores[side][instruction])
        sides[side] = {"instruction": instruction, **told, "by_seed": by_seed, "calls": calls}
    return sides


def listed(pair: Pair, found: Found) -> list[Sides]:
    """The strongest on the released model, with their outcomes on both."""
    threshold = pair.config.reveal.threshold
    return [
        {"instruction": text} | {side: Outcome.of(found.scores[side][text], threshold).to_dict() for side in SIDES} for text in found.ranked
    ]
