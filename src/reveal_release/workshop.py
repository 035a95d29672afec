"""The phases of a run, each of which takes the patch so far: evaluate, reveal, write data, release, and the end.

    w = Workshop(RunConfig(task="toxicity", output="out"))
    data = w.generate_data(1, Patch(), w.reveal(1, Patch()))

Each draws its random numbers from the run's seed and its own name and leaves its result in the run folder, so what was killed goes on
with the same command and ends in the same figures.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from .chat import Turns
from .config import RunConfig, Unfit
from .dataset import LEAST_RECORDS, Data, Rows
from .generation import Progress, generate
from .models import LanguageModel, dtype_name
from .patches import merge
from .phases import Phases, begin, check_able, check_endpoint, check_places
from .provenance import environment, model_identity, provenance
from .release import per_layer
from .release.adapter import load, save_for
from .release.ascent import train_ascent
from .release.front import trade_off
from .release.patch import Patch
from .release.pem import size_of_pem
from .release.prose import prose
from .release.release import MARGIN, averaged, choose_scale, shifted, suited, train_modules
from .release.runtime import applied
from .release.scale import ScaleSearch
from .release.utility import Utility, mean_nll
from .report.card import card
from .reveal.rewards import RewardCache
from .reveal.search import search
from .reveal.selfgen import GONE, SHOWN, is_gone, retain_records, revealed_records, shown_share
from .runfolder import RunFolder
from .tasks import Record


def weights_written(lm: LanguageModel, config: RunConfig) -> int:
    """Bytes at most: of each step, of all of them as the patch, and of the merged model if it is wanted."""
    step = (2 * config.release.pairs + bool(config.release.ascent)) * size_of_pem(lm, config.release)
    merged = sum(weight.numel() * weight.element_size() for weight in lm.model.parameters()) if config.save_merged else 0
    return 2 * config.iterations * step + merged


class Workshop(Phases):
    """The phases of one run: each takes the patch so far."""

    def __init__(self, config: RunConfig, reporter: Any = None, kind: str = "run", lm: LanguageModel | None = None) -> None:
        self.config = config
        check_places(config, kind)
        self.prose = prose(config.utility_text)
        self.task, self.lm = begin(config, lm)
        if kind == "run":
            check_able(self.task, self.lm, config)
        remarks = [] if lm else self.lm.remarks  # else whoever loaded it has told them
        weights = weights_written(self.lm, config) if kind != "reveal" else 0
        folder = RunFolder(config, kind, model_identity(self.lm), weights)
        super().__init__(folder, reporter, config.seed, remarks)
        self.evaluations: list[dict[str, Any]] = []
        self.iterations: list[dict[str, Any]] = []
        self.forgotten: list[Record] = []
        self.learnt: set[Turns] = set()  # the prompts of all iterations' forget and harmless records

    def patched(self, patch: Patch) -> Any:
        return applied(self.lm.model, patch)

    def evaluate(self, t: int, patch: Patch) -> None:
        if t == 0 and not self.folder.has("reveal-1.json"):
            check_endpoint(self.config)  # before the long work, not after it

        def work(update: Progress) -> Any:
            with self.patched(patch):
                return self.task.measured(self.lm, update)

        title = "Evaluate the original" if t == 0 else f"Evaluate iteration {t}"
        self.evaluations.append({"iteration": t, "metrics": self.phase(f"evaluate-{t}", title, work)})

    def search(self, name: str, title: str, patch: Patch, known: list[str]) -> dict[str, Any]:
        def work(update: Progress) -> Any:
            cache = RewardCache.of(self.lm, self.task, self.config, patch, self.folder.state / "rewards")
            with self.patched(patch):
                return search(self.lm, self.task, self.config.reveal, self.seed(name), known, update, cache).to_dict()

        return self.phase(name, title, work, self.config.reveal.evaluations)

    def reveal(self, t: int, patch: Patch) -> dict[str, Any]:
        found = self.search(f"reveal-{t}", f"Reveal {t}: search for instructions", patch, self.known())
        worked = [f["instruction"] for f in found["finalists"] if f["reward"]["value"] > self.config.stop_reward]
        self.iterations.append({"iteration": t, "best": found["best"], "worked": worked, "calls": found["calls"], "records": 0})
        return found

    def found(self, revealed: dict[str, Any]) -> bool:
        """Whether a search found something to forget."""
        return revealed["best"]["reward"]["value"] > self.config.stop_reward

    def known(self) -> list[str]:
        """The instructions that worked in earlier iterations, those last that did so the latest: what still works is to be found first."""
        latest = dict.fromkeys(text for iteration in reversed(self.iterations) for text in reversed(iteration["worked"]))
        return list(latest)[::-1]

    def generate_data(self, t: int, patch: Patch, revealed: dict[str, Any]) -> Data:
        """What the patched model wrote for the best instructions, and, once for all iterations, what the original does otherwise.

        Where the search found nothing, or too little, the patched model is asked again what drew the behaviour out before: a step
        that stopped at its share of the budget may have left it there.
        """
        config, seed = self.config, self.seed(f"forget-{t}")
        rewards = {text: reward for text, reward, _ in revealed["history"]}
        rewards |= {f["instruction"]: f["reward"]["value"] for f in revealed["finalists"]}  # on more samples
        distinct = {text: share for text, _, share in revealed["history"]}  # what always gets one answer makes one record
        ranked = sorted(rewards, key=lambda text: -rewards[text] * distinct[text])
        most = config.reveal.portfolio if self.found(revealed) else 0
        portfolio, others = ranked[:most], ranked[most:]

        def write_revealed(update: Progress) -> Any:
            with self.patched(patch):
                forget, harmless = revealed_records(self.lm, self.task, portfolio, config.reveal, seed, t, update, others, self.forgotten)
            return {"forget": [r.to_dict() for r in forget], "harmless": [r.to_dict() for r in harmless]}

        drawn = self.phase(f"forget-{t}", f"Reveal {t}: the model writes its forget data", write_revealed, config.reveal.records)
        self.folder.write_rows(f"forget_data/iteration-{t}.jsonl", drawn["forget"])
        self.iterations[-1]["records"] = len(drawn["forget"])
        retain, otherwise = self.retain_data()
        forget, harmless = ([Record.from_dict(row) for row in drawn[part]] for part in ("forget", "harmless"))
        data = Data(forget, harmless + otherwise, retain)
        self.forgotten += forget
        self.learnt.update(record.prompt for record in data.forget + data.harmless)
        return data

    def retain_data(self) -> tuple[list[Record], list[Record]]:
        """What the original does otherwise, (retain, harmless); once for all iterations."""
        config = self.config

        def write(update: Progress) -> Any:
            kept, otherwise = retain_records(self.lm, self.task, config.release, config.reveal.threshold, self.seed("retain"), update)
            return {"retain": [r.to_dict() for r in kept], "harmless": [r.to_dict() for r in otherwise]}

        own = self.phase("retain", "The model writes its retain data", write, config.release.retain_records)
        self.folder.write_rows("retain_data.jsonl", own["retain"])
        retain, harmless = ([Record.from_dict(row) for row in own[part]] for part in ("retain", "harmless"))
        return retain, harmless

    def release(self, t: int, patch: Patch, data: Data) -> Patch | None:
        """The step of iteration t, or None where the budget allows none that matters.

        What is left of the budget is spent in equal parts, so that a later iteration has something to spend on what it reveals.

        Raises:
            Unfit: too few records to train on, or the training diverged.
        """
        rows = Rows.of(self.lm, data, self.learnt)
        if rows.lacking:
            cure = "raise --release.retain-records, or give the task more benign instructions, whose answers never show the behaviour"
            if len(rows.forget) < LEAST_RECORDS:
                now = f"--reveal.threshold (now {self.config.reveal.threshold:g})"
                cure = f"it hardly shows the behaviour, or {now} does not part them: set another"
            raise Unfit(f"the model wrote {rows.lacking}: {cure}")
        shown, is_gone = self.probes(t, data.forget)
        config, path = suited(self.config.release, rows.forget, rows.unanswered), self.folder.state / f"step-{t}"
        budget, trained = self.config.utility_budget, config.steps_in_all

        def pair(seed: int, told: Progress | None) -> tuple[Patch, Patch]:
            return train_modules(self.lm, rows.forget, rows.harmless, rows.retain, config, seed, told, rows.unanswered)

        def whole_step(update: Progress) -> Patch:
            mean = averaged(pair, config, self.seed(f"release-{t}"), shifted(update, 0, trained))
            if not config.ascent:
                return mean
            told = shifted(update, trained - config.steps_of_a_pair, trained)
            return mean + train_ascent(self.lm, rows.forget, rows.retain, config, self.seed(f"ascent-{t}"), told).scale(config.ascent)

        def work(update: Progress) -> Any:
            utility, weights = Utility.of(self.lm, rows.measured, self.prose), dict[str, float]()

            def go(step: Patch) -> ScaleSearch:
                return choose_scale(self.lm, step, utility, share, budget, config.max_scale, is_gone, spent)

            with self.patched(patch):
                spent = utility.loss() if patch else 0.0
                share = min(budget, spent + (budget - spent) / (self.config.iterations - t + 1))
                step = whole_step(update)
                chosen = go(step)
                if config.per_layer and chosen.scale:
                    nll = partial(mean_nll, self.lm, rows.forget)
                    step, chosen, weights = per_layer.choose(self.lm, step, chosen, go, utility.loss, nll, shown)
                points = trade_off(self.lm, step, [(0.0, spent), *chosen.tried], budget, lambda: shown(SHOWN // 3))
            if chosen.scale:
                save_for(self.lm, step.scale(chosen.scale), path)
            self.folder.drop("state/elicit-after.json", "state/samples.json", "model")  # of a run that ended where this now succeeded
            figures = {"scale": chosen.scale, "layer_weights": weights, "utility_loss": chosen.cost, "gone": chosen.gone}
            settings = {"keep": config.keep, "pairs": config.pairs, "ascent": config.ascent}
            return {**figures, **settings, "front": [asdict(point) for point in points]}

        outcome = self.phase(f"release-{t}", f"Release {t}: train, subtract, choose how far", work, trained)
        self.iterations[-1].update(outcome)
        return load(path) if outcome["scale"] else None

    def further(self, t: int, patch: Patch, data: Data) -> tuple[Patch | None, bool]:
        """More of the last step, where iteration t revealed too little to train on and that step ended at its share of the budget.

        With the whole budget, of which no later step needs a part: as far as it allows where earlier prompts, or the few that iteration
        t found, still draw the behaviour out, and else by the margin that a step is given with which the behaviour is gone.

        Returns:
            What is added, if the budget, and records to measure it on, are left for it; whether these prompts then draw some out still.
        """
        measured, (_, is_gone) = Rows.of(self.lm, data, self.learnt).measured, self.probes(t, self.forgotten, data.forget)
        budget, config = self.config.utility_budget, self.config.release
        done = next(one for one in reversed(self.iterations) if one.get("scale"))
        last = load(self.folder.state / f"step-{done['iteration']}")

        def work(_: Progress) -> Any:
            utility = Utility.of(self.lm, measured, self.prose) if measured else None
            with self.patched(patch):
                left = not is_gone()
                if not utility or not left and done["gone"]:
                    return {"left": left}
                go = partial(choose_scale, self.lm, last, utility, budget, budget, spent=utility.loss(), taken=1.0)
                # Where nothing shows, the whole margin, not the least with which it is gone.
                more = go(config.max_scale, is_gone) if left else go(MARGIN - 1, lambda: False)
            chosen = {"scale": more.scale, "utility_loss": more.cost, "gone": more.gone} if more.scale else {}
            return {**chosen, "left": left and not more.gone}

        outcome = self.phase(f"further-{t}", f"Release {t}: nothing new, the last step further", work)
        left = outcome.pop("left")
        self.iterations[-1].update(outcome)
        return last.scale(outcome["scale"]) if outcome else None, left

    def probes(self, t: int, records: list[Record], surely: Sequence[Record] = ()) -> tuple[Callable[..., float], Callable[[], bool]]:
        """Two that ask the model as it then is the records' prompts, always the same of them, drawn at random but for those of `surely`:
        what share of the answers shows the behaviour, and whether it is gone.
        """
        first = list(dict.fromkeys(record.prompt for record in surely))[:GONE]
        others = [prompt for prompt in dict.fromkeys(record.prompt for record in records) if prompt not in first]
        asked = first + random.Random(self.seed(f"shown-{t}")).sample(others, min(GONE - len(first), len(others)))
        about = self.lm, self.task, asked, self.config.reveal.threshold
        return lambda count=SHOWN: shown_share(*about, count), lambda: is_gone(*about)

    def finish(self, patch: Patch, stopped: str, given: str = "") -> dict[str, Any]:
        """Elicitation on both models with fresh seeds, samples, the patch, `results.json`.

        given: the part of the data, forget or retain, that an ablation took from labelled examples.
        """
        before = self.search("elicit-before", "Elicit: search the original with a fresh seed", Patch(), [])
        after = self.search("elicit-after", "Elicit: search the released model with a fresh seed", patch, self.known())
        if any(one.get("front") for one in self.iterations):
            from .report.plots import front  # matplotlib is slow to import

            front(self.iterations, self.folder.path / "front.svg")
        samples = self.phase("samples", "Sample before and after", lambda _: self.samples(patch))
        small = patch.compress()
        results = {
            **provenance(self.config, self.task),
            "before": self.evaluations[0]["metrics"],
            "after": self.evaluations[-1]["metrics"],
            "elicitation": {
                side: {**found["best"]["reward"], "instruction": found["best"]["instruction"], "calls": found["calls"]}
                for side, found in (("before", before), ("after", after))
            },
            "patch": {"path": "patch" if patch else None, "rank": small.rank},
            "given": given,
            "stopped_because": stopped,
            "iterations": self.iterations,
            "evaluations": self.evaluations,
            "samples": samples,
            "remarks": self.lm.remarks,
            "seconds": self.seconds,
            "peak_memory_mib": max(self.memory_mib.values()),
            "memory_mib": self.memory_mib,
            "environment": environment(self.lm),
            "output": str(self.folder.path),
        }
        if patch:
            told = card(results, self.task.description, self.task.judge)
            save_for(self.lm, small, self.folder.path / "patch", told, {"task": self.task.name})
        self.folder.write_results("results.json", results)
        if patch and self.config.save_merged and not (self.folder.path / "model").exists():
            merge(self.config.model, str(self.folder.path / "patch"), str(self.folder.path / "model"), dtype_name(self.lm.model.dtype))
        return results

    def samples(self, patch: Patch) -> list[dict[str, str]]:
        asked = self.task.showcase()
        seeds = list(range(len(asked)))
        before = generate(self.lm, asked, self.task.sampling, seeds)
        with self.patched(patch):
            after = generate(self.lm, asked, self.task.sampling, seeds)
        prompts = ["\n".join(text for role, text in turns if role == "user") for turns in asked]
        return [{"prompt": p, "before": b, "after": a} for p, b, a in zip(prompts, before, after, strict=True)]


