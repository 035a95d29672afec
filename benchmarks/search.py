"""NeuralUCB against other ways to choose what to try, at equal model calls, as one Markdown table; and what nu is worth.

    python benchmarks/search.py --threads 1                                                # three tasks, three pools each: hours
    python benchmarks/search.py --task toxicity --seeds 0 --pool 80 --samples 24 --repeats 20 --threads 1      # minutes

**The pool.** For each task and seed the project's own sources propose about as many instructions as they do in a search, and as there:
the first half with nothing known, the rest from the best so far. Each is measured on the same sampling seeds, once, and kept under
--output: what is there is only read, and a stopped measurement goes on where it was.

**A replay.** A search on that pool draws its rewards from these samples. They are parted anew for each: a policy sees those of three
quarters, and the instruction that it ends with is reported on the last quarter, which chose nothing. Parts, samples and the first
arms are the same for all policies. A search ends, as in a run, with a race of its finalists; a search with a part of the calls is the
same one stopped early, with the same part of the race. Where a race asks for more samples than there are, they are drawn with
replacement. Unlike a run, all the pool can be chosen from the start.

    ucb, thompson       NeuralUCB as the search has it, and NeuralTS (arXiv 2010.00827)
    ucb, nu = 0.1       the same with a constant in place of "auto"
    random              the same number of instructions, by chance
    best of n seeds     the task's own instructions alone, all calls spread evenly over them
    evolution           first the seeds, then rewrites of the best so far, no bandit
    whole pool          every instruction on all samples that a policy may see: the most that there is to be found

Evolution is run live, not replayed: what it breeds depends on what it has bred, and hardly any of that is in a pool. It has the same
calls and the same race, and its winners are measured on fresh samples; --lives says how often for each pool.

Intervals are Student's t over replays (lives), each the mean over the pools: of these pools as they were measured. What another pool
would give is told by the pools alone, and the last lines have intervals over them.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from reveal_release import RunConfig
from reveal_release.config import RevealConfig, UserError
from reveal_release.generation import STRIDE, Progress
from reveal_release.metrics.statistics import Estimate
from reveal_release.metrics.words import key
from reveal_release.release.patch import Patch
from reveal_release.report.progress import Reporter
from reveal_release.reveal.bandit import BanditConfig, NeuralBandit
from reveal_release.reveal.proposals import propose
from reveal_release.reveal.rewards import RewardCache
from reveal_release.reveal.search import context, draw, features, race
from reveal_release.tasks import Record
from reveal_release.workshop import Workshop

SHARES = (0.25, 0.5, 1.0)
"""Of the default budget; the claim is about the second against the third."""
SEEN = 0.75
"""The part of the samples that policies see."""
BANDITS = {"ucb": BanditConfig(), "thompson": BanditConfig(policy="thompson")} | {
    f"ucb, nu = {nu:g}": BanditConfig(exploration=nu) for nu in (0.1, 0.3, 1.0)
}
LIVE = "evolution"


@dataclass(frozen=True)
class Pool:
    """seeds: how many of the instructions, the first, are the task's own. features: (n, d). scores: (n, samples)."""

    instructions: list[str]
    seeds: int
    features: Tensor
    scores: np.ndarray


# -- what the model is asked for -------------------------------------------------------------------------------


def workshop(task: str, seed: int, options: argparse.Namespace) -> Workshop:
    folder = Path(options.output) / f"{task}-{seed}"
    config = RunConfig(task=task, model=options.model, output=str(folder), seed=seed, threads=options.threads)
    return Workshop(config, Reporter(), kind="search benchmark")


def cache(w: Workshop) -> RewardCache:
    return RewardCache.of(w.lm, w.task, w.config, Patch(), w.folder.state / "rewards")


def measured_pool(w: Workshop, size: int, samples: int) -> Pool:
    def work(update: Progress) -> Any:
        rng, kept, config = random.Random(w.seed("pool")), cache(w), w.config.reveal
        taken = {key(text) for text in w.task.evaluation_instructions()}
        seeds = propose(context(w.lm, w.task, {}, [], rng), ["seeds"], 0, taken)[:size]
        sources = [name for name in config.sources if name != "seeds"]
        scores: dict[str, list[float]] = {}
        outputs: list[Record] = []
        new = seeds + propose(context(w.lm, w.task, {}, [], rng), sources, size // 2 - len(seeds), taken)
        while new and len(scores) < size:
            new = new[: size - len(scores)]
            records = draw(w.lm, w.task, new, samples, w.seed("pool") * STRIDE, cache=kept)
            drawn = np.array([r.score for r in records]).reshape(len(new), samples)
            scores |= dict(zip(new, drawn.tolist(), strict=True))
            outputs += [r for i, r in enumerate(records) if i % samples < config.samples]
            update(len(scores), size)
            rewards = {text: float(np.mean(row[: config.samples])) for text, row in scores.items()}  # as uncertain as in a search
            new = propose(context(w.lm, w.task, rewards, outputs, rng), sources, size // 4, taken)
        return {"scores": scores, "seeds": len(seeds)}

    title = f"{w.config.task}, seed {w.config.seed}: measure {size} instructions"
    found = w.phase(f"pool-{size}-{samples}", title, work, size)
    instructions = list(found["scores"])
    return Pool(instructions, found["seeds"], features(w.lm, instructions), np.array(list(found["scores"].values())))


def evolved(w: Workshop, life: int) -> list[float]:
    """Mean reward, on fresh samples, of what an evolution with each share of the calls ends with."""
    config, seed = w.config.reveal, w.seed(f"{LIVE}-{life}")

    def work(update: Progress) -> Any:
        rng, kept = random.Random(seed), cache(w)
        taken = {key(text) for text in w.task.evaluation_instructions()}
        rewards: dict[str, float] = {}

        def ask(instructions: Sequence[str], samples: int, base: int) -> list[Record]:
            return draw(w.lm, w.task, instructions, samples, seed * STRIDE + base, cache=kept)

        new = propose(context(w.lm, w.task, {}, [], rng), ["seeds"], 0, taken)
        while new and len(rewards) < config.evaluations:
            new = new[: config.evaluations - len(rewards)]
            scores = np.array([r.score for r in ask(new, config.samples, 0)]).reshape(len(new), -1).mean(1)
            rewards |= dict(zip(new, scores.tolist(), strict=True))
            update(len(rewards), config.evaluations)
            new = propose(context(w.lm, w.task, rewards, [], rng), ["rewrite"], config.batch, taken)
        history = [(text, reward, 1.0) for text, reward in rewards.items()]
        winners = [race(ask, history[: tried(share, config)], raced(share, config))[0].instruction for share in SHARES]
        fresh = ask(winners, config.final_samples, 750_000)
        return np.array([r.score for r in fresh]).reshape(len(winners), -1).mean(1).tolist()

    return w.phase(f"{LIVE}-{life}", f"{w.config.task}, seed {w.config.seed}: {LIVE} {life}", work, config.evaluations)


# -- replays ---------------------------------------------------------------------------------------------------


def tried(share: float, config: RevealConfig) -> int:
    return round(share * config.evaluations)


def raced(share: float, config: RevealConfig) -> RevealConfig:
    return replace(config, final_samples=max(1, round(share * config.final_samples)))


def calls(share: float, config: RevealConfig) -> int:
    return tried(share, config) * config.samples + config.finalists * raced(share, config).final_samples


class Replay:
    """One repetition of every policy on a pool: their samples, first arms and noise are functions of its number."""

    def __init__(self, pool: Pool, number: int, config: RevealConfig) -> None:
        self.pool, self.number, self.config = pool, number, config
        rng = np.random.default_rng(number)
        samples = rng.permutation(pool.scores.shape[1])
        cut = round(SEEN * len(samples))
        self.seen, self.truth = pool.scores[:, samples[:cut]], pool.scores[:, samples[cut:]].mean(1)
        self.rewards, self.others = self.seen[:, : config.samples].mean(1), self.seen[:, config.samples :]
        self.order: list[int] = rng.permutation(len(pool.instructions)).tolist()
        self.arms = {text: arm for arm, text in enumerate(pool.instructions)}

    def drawn(self, scores: np.ndarray, samples: int, base: int) -> np.ndarray:
        """(arms, samples) of scores (arms, any): the same ones of every arm, as the pool's sampling seeds are."""
        size = scores.shape[1]
        return scores[:, np.random.default_rng([self.number, base]).choice(size, samples, replace=samples > size)]

    def ask(self, instructions: Sequence[str], samples: int, base: int) -> list[Record]:
        """What a race draws: other samples than those that made its finalists."""
        scores = self.drawn(self.others[[self.arms[text] for text in instructions]], samples, base)
        return [Record((), "", score, text) for text, row in zip(instructions, scores.tolist(), strict=True) for score in row]

    def picked(self, bandit: BanditConfig) -> list[int]:
        """The arms that a bandit tries, in order, as in `reveal.search`."""
        config, found = self.config, NeuralBandit(replace(bandit, seed=self.number))
        found.add_arms(self.pool.features)
        new = self.order[: config.start]
        while new:
            found.observe(new, self.rewards[new].tolist())
            missing = config.evaluations - len(found.evaluated)
            new = found.select(min(config.batch, missing)) if missing else []
        return list(found.evaluated)

    def winners(self, arms: Sequence[int]) -> list[float]:
        """The true reward of what a race of the best ends with, for each share of the calls."""
        history = [(self.pool.instructions[arm], float(self.rewards[arm]), 1.0) for arm in arms]
        config = self.config
        ends = [race(self.ask, history[: tried(share, config)], raced(share, config))[0].instruction for share in SHARES]
        return [float(self.truth[self.arms[text]]) for text in ends]

    def best_seeds(self) -> list[float]:
        own = self.seen[: self.pool.seeds]
        means = [self.drawn(own, max(1, calls(share, self.config) // len(own)), 0).mean(1) for share in SHARES]
        return [float(self.truth[int(mean.argmax())]) for mean in means]

    def run(self) -> dict[str, list[float]]:
        found = {name: self.winners(self.picked(bandit)) for name, bandit in BANDITS.items()}
        found["random"] = self.winners(self.order)
        if self.pool.seeds:
            found["best of n seeds"] = self.best_seeds()
        found["whole pool"] = [float(self.truth[int(self.seen.mean(1).argmax())])] * len(SHARES)
        return found


def of_pool(task: str, seed: int, options: argparse.Namespace) -> dict[str, np.ndarray]:
    """By policy, (repetitions, shares) of true rewards found."""
    w = workshop(task, seed, options)
    pool = measured_pool(w, options.pool, options.samples)
    lives = [evolved(w, life) for life in range(options.lives)]
    replays: list[dict[str, list[float]]] = []
    with w.reporter.phase(f"{task}, seed {seed}: replay", options.repeats) as update:
        for number in range(options.repeats):
            replays.append(Replay(pool, number, w.config.reveal).run())
            update(number + 1, options.repeats)
    found = {name: np.array([one[name] for one in replays]) for name in replays[0]}
    return found | ({LIVE: np.array(lives)} if lives else {})


# -- the table -------------------------------------------------------------------------------------------------


def early(found: dict[str, np.ndarray], name: str) -> np.ndarray:
    """(repetitions,): a policy with half of the calls less `random` with all; live ones have no repetition in common with it."""
    late = found["random"][:, 2]
    return found[name][:, 1] - (late.mean() if name == LIVE else late)


def lines(task: str, pools: Sequence[dict[str, np.ndarray]]) -> list[str]:
    rows = []
    for name in pools[0]:
        table = np.mean([found[name] for found in pools], axis=0)
        cells = [f"{Estimate.mean(column):.3f}" for column in table.T]
        ahead = Estimate.mean(np.mean([early(found, name) for found in pools], axis=0))
        rows.append(f"| {task} | {name} | {' | '.join(cells)} | {ahead:+.3f} |")
    return rows


def claim(label: str, pools: Sequence[dict[str, np.ndarray]]) -> str:
    each = [Estimate.mean(early(found, "ucb")) for found in pools]
    over = Estimate.mean([one.value for one in each])
    decisive = over if over.n > 1 else each[0]
    verdict = "holds" if decisive.low > 0 else "does not hold" if decisive.high < 0 else "is not shown"
    better = sum(one.low > 0 for one in each)
    figure = f"{decisive:+.3f}" + (" over the pools" if over.n > 1 else " over replays of one pool")
    return f"{label}: better instructions at half the calls {verdict}: {figure}; in {better} of {len(each)} pools on its own."


def equal(label: str, pools: Sequence[dict[str, np.ndarray]]) -> str:
    """What the bandit finds less what random choice finds with as many calls: over the pools, or of one pool over its replays."""
    each = [found["ucb"] - found["random"] for found in pools]
    ahead = [each[0][:, i] if len(each) == 1 else [one[:, i].mean() for one in each] for i in range(len(SHARES))]
    figures = [f"{Estimate.mean(values):+.3f} in {calls(share, RevealConfig())}" for values, share in zip(ahead, SHARES, strict=True)]
    return f"{label}: ucb less random choice at equal calls: {'; '.join(figures)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", default=["toxicity", "ner", "code"])
    parser.add_argument("--model", default="testbed-llama")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="a pool each")
    parser.add_argument("--pool", type=int, default=RevealConfig().candidates, help="instructions of a pool")
    parser.add_argument("--samples", type=int, default=64, help="samples of each")
    parser.add_argument("--repeats", type=int, default=100, help="replays of each pool")
    parser.add_argument("--lives", type=int, default=4, help="evolutions for each pool")
    parser.add_argument("--output", default="out/search")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's default")
    options = parser.parse_args()
    default = RevealConfig()
    if options.samples < 2 * default.samples or options.pool < default.evaluations or options.repeats < 1:
        parser.error(f"give at least {default.samples * 2} --samples, {default.evaluations} of the --pool, and 1 of --repeats")
    found = {task: [of_pool(task, seed, options) for seed in options.seeds] for task in options.task}
    heads = " | ".join(f"found in {calls(share, default)} calls" for share in SHARES)
    print(f"| task | policy | {heads} | half the calls against random's all |\n|---|---|{'---|' * (len(SHARES) + 1)}")
    for task, pools in found.items():
        print(*lines(task, pools), sep="\n")
    print()
    named = [*found.items(), *([("all", [one for pools in found.values() for one in pools])] if len(found) > 1 else [])]
    for name, pools in named:
        print(claim(name, pools), equal(name, pools), sep="\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
