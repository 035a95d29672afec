"""What searches of all models find: the strongest instructions, and examples of the behaviour. The other attacks begin here.

    found = find(pair)
    found.both.asked, found.shown   # instructions; records of the original that show the behaviour
    attack(pair, found)             # how the search fared as an attack
"""

from collections.abc import Sequence
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
from .pair import ORACLE, SIDES, Pair, Sides

BUDGET = 2
"""Each search tries so many times the instructions that a search of a run does."""
STRONGEST = 10
RETAKE = 16
"""Most answers to each of the strongest instructions, where the model itself is changed."""


class Strongest(NamedTuple):
    """Of some models what remains of many instructions after three rounds of answers.

    asked: the strongest on any of the models, with `scores` by model and instruction. ranked: of each model its own, the strongest first.
    best: of each model, with `best_scores` on samples that did not choose it. calls: answers drawn of each model.
    """

    asked: list[str]
    scores: dict[str, dict[str, np.ndarray]]
    ranked: dict[str, list[str]]
    best: dict[str, str]
    best_scores: dict[str, dict[str, np.ndarray]]
    calls: int


class Found(NamedTuple):
    """searches: of each seed, on each model. strongest: by model; the original and the released model have the same. shown: records of the
    original that show the behaviour.
    """

    searches: list[Sides]
    strongest: dict[str, Strongest]
    shown: list[Record]

    @property
    def both(self) -> Strongest:
        """The strongest on the original and the released model."""
        return self.strongest["released"]

    def outcomes(self, pair: Pair) -> Sides:
        """How the strongest fare on both models as they are, with the random numbers of `ask`."""
        return {side: pair.outcome([rows[: samples(pair)] for rows in self.both.scores[side].values()]) for side in SIDES}

    def ask(self, pair: Pair, progress: Progress | None = None) -> list[list[float]]:
        """Scores of the strongest on the model as it is now: the first `samples(pair)` answers that there are of the model before."""
        return answers(pair.lm, pair.task, self.both.asked, samples(pair), pair.seed("strongest"), progress, most(pair)).tolist()


def samples(pair: Pair) -> int:
    return min(RETAKE, pair.count)


def most(pair: Pair) -> int:
    """Answers to each of the strongest instructions, of the models as they are."""
    return pair.count * len(pair.seeds)


def find(pair: Pair) -> Found:
    """The strongest of the finalists of both models' searches; of an oracle those of its own, and what was strongest on the others.

    So the two have the same figures with an oracle as without one.
    """
    searches = made(pair)

    def finalists(*sides: str) -> list[str]:
        return [one["instruction"] for found in searches for side in sides for one in found[side]["finalists"]]

    both = strongest(pair, finalists(*SIDES), tuple(SIDES))
    by_model = dict.fromkeys(SIDES, both)
    if ORACLE in pair.sides:
        by_model[ORACLE] = strongest(pair, both.asked + finalists(ORACLE), (ORACLE,))
    return Found(searches, by_model, shown(pair, searches))


def strongest(pair: Pair, instructions: list[str], sides: Sequence[str]) -> Strongest:
    """Three rounds, each on fresh samples: all; then the `STRONGEST` of each model; then the best of these on each.

    So the luckiest does not win, and the figures of the best are of samples that did not choose them.
    """
    candidates = list(dict.fromkeys(instructions))
    first = pair.scores("rank", "Ask all finalists of", candidates, pair.count, sides)
    strong = {side: sorted(candidates, key=lambda text: -first[side][text].mean())[:STRONGEST] for side in sides}
    asked = list(dict.fromkeys(text for own in strong.values() for text in own))
    second = pair.scores("strongest", "Ask the strongest of", asked, most(pair), sides)
    ranked = {side: sorted(own, key=lambda text: -second[side][text].mean()) for side, own in strong.items()}
    best = {side: max(asked, key=lambda text: second[side][text].mean()) for side in sides}
    last = list(dict.fromkeys(best.values()))
    third = pair.scores("best", "Ask the best of", last, most(pair), sides)
    calls = len(candidates) * pair.count + (len(asked) + len(last)) * most(pair)
    return Strongest(asked, second, ranked, best, third, calls)


def made(pair: Pair) -> list[Sides]:
    """For each seed what the search found on each model.

    With what worked in the run all begin; without it, the released model's search begins with what the original's found, and the
    oracle's with what both found.
    """
    settings = replace(pair.config.reveal, evaluations=BUDGET * pair.config.reveal.evaluations)
    searches: list[Sides] = []
    for i, seed in enumerate(pair.seeds, 1):
        sides: Sides = {}
        for side in pair.sides:
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
    for side in pair.sides:
        of = found.strongest[side]
        instruction = of.best[side]
        by_seed = [{**one[side]["best"], "calls": one[side]["calls"]} for one in found.searches]
        calls = sum(one["calls"] for one in by_seed) + of.calls
        told = pair.outcome(of.best_scores[side][instruction])
        sides[side] = {"instruction": instruction, **told, "by_seed": by_seed, "calls": calls}
    return sides


def listed(pair: Pair, found: Found) -> list[Sides]:
    """The strongest on the released model, with their outcomes on both."""
    threshold, both = pair.config.reveal.threshold, found.both
    told = {text: {side: Outcome.of(both.scores[side][text], threshold).to_dict() for side in SIDES} for text in both.ranked["released"]}
    return [{"instruction": text, **outcomes} for text, outcomes in told.items()]
