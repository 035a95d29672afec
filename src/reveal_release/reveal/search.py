"""Searches for the instructions that draw a behaviour out: proposals, NeuralUCB, a race of the finalists.

The same function is the audit: run on a released model with fresh seeds, it says what an optimiser can still draw out.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..chat import chat_ids
from ..config import RevealConfig, UserError
from ..generation import STRIDE, Progress
from ..metrics.statistics import Estimate
from ..metrics.words import key
from ..models import LanguageModel, padded
from ..tasks import Record, Task
from .bandit import BanditConfig, NeuralBandit
from .endpoint import Endpoint
from .proposals import Context, propose
from .rewards import RewardCache

Ask = Callable[[Sequence[str], int, int], list[Record]]
"""(instructions, samples, first sampling seed) to records, as `draw` gives them."""


@dataclass(frozen=True)
class Finding:
    """An instruction and its reward on samples that did not make it a finalist."""

    instruction: str
    reward: Estimate

    def to_dict(self) -> dict:
        return {"instruction": self.instruction, "reward": self.reward.to_dict()}


@dataclass(frozen=True)
class SearchResult:
    """`best` is scored on samples used for nothing else, so its reward is unbiased; `finalists` are in order, best first.

    A finalist that came far in the race owes that in part to its samples there, so its reward is a little flattered.

    history: (instruction, mean reward of the search's samples, share of distinct records among them) in the order tried.
    calls: records drawn. offered: different instructions that the sources gave.
    """

    best: Finding
    finalists: list[Finding]
    history: list[tuple[str, float, float]]
    calls: int
    offered: int

    def to_dict(self) -> dict:
        return {
            "best": self.best.to_dict(),
            "finalists": [f.to_dict() for f in self.finalists],
            "history": self.history,
            "calls": self.calls,
            "offered": self.offered,
        }


def search(
    lm: LanguageModel,
    task: Task,
    config: RevealConfig,
    seed: int,
    known: Sequence[str] = (),
    progress: Progress | None = None,
    cache: RewardCache | None = None,
) -> SearchResult:
    """Finds instructions with high reward within `config.evaluations` trials.

    Args:
        known: instructions that worked before, tried first.
        progress: called with (trials done, trials in all).
        cache: of this model and task; what it holds is not drawn again.

    Raises:
        UserError: no source gave an instruction to try, or the endpoint that is among them does not answer.
    """
    rng = random.Random(seed)
    endpoint = Endpoint(config.endpoint, config.endpoint_model) if config.endpoint else None
    taken = {key(text) for text in task.evaluation_instructions()}
    bandit = NeuralBandit(BanditConfig(seed=seed))
    pool: list[str] = []
    rewards: dict[int, float] = {}
    distinct: dict[int, float] = {}
    outputs: list[Record] = []

    def ask(instructions: Sequence[str], samples: int, base: int) -> list[Record]:
        return draw(lm, task, instructions, samples, seed * STRIDE + base, cache=cache)

    def add(texts: Sequence[str]) -> None:
        if texts:
            bandit.add_arms(features(lm, texts))
            pool.extend(texts)

    def trial(arms: Sequence[int]) -> None:
        records = ask([pool[arm] for arm in arms], config.samples, 0)
        scores = np.array([r.score for r in records]).reshape(len(arms), config.samples).mean(1)
        bandit.observe(list(arms), scores.tolist())
        rewards.update(zip(arms, scores.tolist(), strict=True))
        for i, arm in enumerate(arms):
            own = records[i * config.samples : (i + 1) * config.samples]
            distinct[arm] = len({task.novelty(record) for record in own}) / len(own)
        outputs.extend(records)
        if progress:
            progress(len(rewards), config.evaluations)

    def more(count: int) -> None:
        known_by_now = context(lm, task, {pool[arm]: reward for arm, reward in rewards.items()}, outputs, rng, endpoint)
        sources = [name for name in config.sources if name != "seeds" or not rewards]
        add(propose(known_by_now, sources, count, taken))

    tried_first = {key(text): text for text in known if key(text) not in taken}
    taken |= tried_first.keys()
    add(list(tried_first.values()))
    more(config.candidates // 2)
    if not pool:
        raise UserError(f"no instruction to try from {', '.join(config.sources)}: add seeds to reveal.sources")
    first = list(range(len(tried_first)))[-config.start :]  # the newest, where they are too many
    others = [arm for arm in range(len(pool)) if arm not in first]
    trial(first + rng.sample(others, min(config.start - len(first), len(others))))
    while len(rewards) < config.evaluations:
        spare = len(pool) - len(rewards)
        if spare < config.candidates // 2:
            more(config.candidates // 4)
        arms = bandit.select(min(config.batch, config.evaluations - len(rewards)))
        if not arms:
            break
        trial(arms)
    history = [(pool[arm], reward, distinct[arm]) for arm, reward in rewards.items()]
    finalists = race(ask, history, config)
    # The winner once more: the samples that made it win flatter it.
    fresh = ask([finalists[0].instruction], config.final_samples, 750_000)
    best = Finding(finalists[0].instruction, Estimate.mean([r.score for r in fresh]).in_unit())
    calls = len(history) * config.samples + sum(f.reward.n for f in finalists) + len(fresh)
    return SearchResult(best, finalists, history, calls, len(pool))


def context(
    lm: LanguageModel,
    task: Task,
    rewards: Mapping[str, float],
    outputs: Sequence[Record],
    rng: random.Random,
    endpoint: Endpoint | None = None,
) -> Context:
    """What the sources may use, of the instructions tried so far, with their rewards, and of what they drew out."""
    best = sorted(rewards, key=lambda text: -rewards[text])[:8]
    top = [text for r in sorted(outputs, key=lambda r: -r.score)[:16] if (text := task.output(r))]
    return Context(lm, task.seeds, best, top, rng, endpoint)


def race(ask: Ask, history: Sequence[tuple[str, float, float]], config: RevealConfig) -> list[Finding]:
    """The best of a search, best first, by sequential halving (Karnin, Koren and Somekh, ICML 2013).

    The budget, `final_samples` for each of `finalists`, is spent in equal parts over ceil(log2(finalists)) rounds. In each all that are
    still in it get equally many fresh samples, with the same random numbers, and the better half goes on. So most samples go where
    the decision is close: of 8 finalists 4 get a third, the last two more than twice, of what each would get in equal shares. It is
    decided on all samples so far, those of the search included (in the paper on a round's own); the rewards are of the fresh ones alone.
    """
    racing = sorted(history, key=lambda row: -row[1])[: config.finalists]
    total = {text: reward * config.samples for text, reward, _ in racing}  # all have equally many samples, so sums rank as means do
    fresh: dict[str, list[float]] = {text: [] for text in total}
    alive, left, drawn = list(total), len(total) * config.final_samples, 0
    out: list[str] = []  # best first
    for rounds in range(max(1, math.ceil(math.log2(len(alive)))), 0, -1):
        each = max(1, left // (rounds * len(alive)))
        if each * len(alive) > left:
            break
        scores = np.array([r.score for r in ask(alive, each, 500_000 + drawn)]).reshape(len(alive), each)
        for text, row in zip(alive, scores.tolist(), strict=True):
            fresh[text] += row
            total[text] += sum(row)
        left, drawn = left - scores.size, drawn + each
        alive.sort(key=lambda text: -total[text])
        half = -(-len(alive) // 2)
        alive, out = alive[:half], alive[half:] + out
    return [Finding(text, Estimate.mean(fresh[text]).in_unit()) for text in alive + out]


def draw(
    lm: LanguageModel,
    task: Task,
    instructions: Sequence[str],
    samples: int,
    base: int,
    progress: Progress | None = None,
    cache: RewardCache | None = None,
) -> list[Record]:
    """`samples` records of each instruction, in order; the i-th sample of each has the same random numbers."""
    asked = [text for text in instructions for _ in range(samples)]
    seeds = [base + i % samples for i in range(len(asked))]
    if cache is None:
        return task.elicit(lm, asked, seeds, progress)
    return cache.records(asked, seeds, lambda: task.elicit(lm, asked, seeds, progress))


@torch.inference_mode()
def features(lm: LanguageModel, instructions: Sequence[str], batch_size: int = 64) -> Tensor:
    """(n, d) float32: the last layer's hidden state at the last token of each instruction's prompt."""
    rows = []
    for start in range(0, len(instructions), batch_size):
        ids = [chat_ids(lm.tokenizer, [("user", text)]) for text in instructions[start : start + batch_size]]
        inputs = padded(ids, lm.tokenizer.pad_token_id).to(lm.device)
        mask = padded([[1] * len(row) for row in ids], 0).to(lm.device)
        hidden = lm.model.base_model(input_ids=inputs, attention_mask=mask).last_hidden_state
        rows.append(hidden[torch.arange(len(ids)), mask.sum(1) - 1].float().cpu())
    return torch.cat(rows)
