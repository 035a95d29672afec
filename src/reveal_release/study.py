"""The study of orthogonality: the ways to keep what must stay, each measured where it forgets as much as the others.

    study(RunConfig(task="toxicity", output="out/study"), ["olora", "gauge-free", "kl"], seeds=[0, 1, 2])

Each seed searches and writes its data once, and trains one forget module for all variants that do not touch it. Each variant then
trains its retain module, goes as far as it takes to forget the share asked for, and is measured there: what it costs, how much the two
modules overlap, and what they do to each other. As in the loop, each phase is done once and kept in the output folder; more variants or
seeds may be added to it later. docs/study.md says how to read it.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from .config import ReleaseConfig, RunConfig, UserError
from .generation import Progress
from .loop import HELD_BACK, LEAST_RECORDS, Data, Workshop
from .metrics.fluency import perplexity_ratio
from .metrics.statistics import Estimate
from .phases import environment, provenance
from .registry import nearest
from .release.adapter import applied, load, save_for
from .release.interference import interference
from .release.keep import KEEPERS
from .release.patch import Patch
from .release.release import Utility, direction, train_modules
from .release.scale import smallest_reaching
from .report.plots import study_picture
from .report.study import markdown
from .reveal.selfgen import encode, shown_share, split
from .seeds import SeveralSeeds, over_seeds

PUBLISHED = "olora"
"""The variant that the others are compared with: O-LoRA (arXiv 2310.14152) with its authors' weight."""
CONFIGURED = "default"
"""The variant that has what `release.keep` says."""
# One weight each, the same for all tasks, set before the study. olora: 0.5 is in its authors' scripts. olora-normalised: as much overlap
# of rows is left on the testbed as by that. gauge-free: so that nearly none of what it penalises is left there. kl and kl-forget: the
# default's. l2: takes some of a module's norm there, not most. null-space: any is the same. activation-null-space: most of what the
# layers read, so that what is left is still enough to learn with.
VARIANTS: dict[str, dict[str, float]] = {
    "none": {},
    PUBLISHED: {"olora": 0.5},
    "olora-normalised": {"olora-normalised": 10.0},
    "gauge-free": {"gauge-free": 10.0},
    "null-space": {"null-space": 1.0},
    "activation-null-space": {"activation-null-space": 0.9},
    "l2": {"l2": 1e-2},
    "kl": {"kl": 8.0},
    "kl-forget": {"kl-forget": 8.0},
    "kl+gauge-free": {"kl": 8.0, "gauge-free": 10.0},
    "kl+null-space": {"kl": 8.0, "null-space": 1.0},
}
PROBES = 192
"""Answers by which forgetting is made equal, at least."""
PARTS = ("figures", "forget", "retain")


def study(
    config: RunConfig, variants: Sequence[str] = (), seeds: Sequence[int] = (0, 1, 2), reporter: Any = None, forgetting: float = 0.75
) -> dict[str, Any]:
    """Makes a study, or goes on with it; returns what `study.json` holds.

    Args:
        config: as of a run, but for its seed; `release.keep` is the variant `default`. variants: by default all.
        forgetting: of the answers that show the behaviour, the share that every variant has to take away.

    Raises:
        UserError: for a setting, variant, task, model or folder that will not do, before any long work.
    """
    s = Study(config, variants or variant_names(), seeds, forgetting, reporter)
    s.measure("original", Patch())
    return s.finish([cell for seed in seeds for cell in s.of_seed(seed)])


def variant_names() -> list[str]:
    return [*VARIANTS, CONFIGURED]


class Bench:
    """What the variants of a seed share: encoded records, and the original's figures on those that are measured.

    A fifth of the forget prompts, with all answers to them, and of the retain records is trained on by no module.
    """

    def __init__(self, w: Workshop, data: Data) -> None:
        self.w, self.config = w, w.config
        held, learnt = split(data.forget, HELD_BACK)
        prompts = {r.prompt for r in held}
        harmless = [r for r in data.harmless if r.prompt not in prompts]
        answered = {r.prompt for r in harmless}
        held = held or learnt  # all under one prompt: there is no other
        self.asked = list(dict.fromkeys(r.prompt for r in held))[:PROBES]
        unanswered = [r for r in learnt if r.prompt not in answered]
        self.forget, self.harmless, self.unanswered, self.forgotten = (encode(w.lm, p) for p in (learnt, harmless, unanswered, held))
        self.kept, self.retain = (encode(w.lm, part) for part in split(data.retain, HELD_BACK))

    @property
    def lacking(self) -> str:
        """What there is too little of to train on, or nothing."""
        counts = {"forget": len(self.forget), "retain": len(self.retain)}
        return next((f"{count} {name} records, too few to train on" for name, count in counts.items() if count < LEAST_RECORDS), "")

    @cached_property
    def utility(self) -> Utility:
        """Of the original; to be asked for before a step is on the model."""
        return Utility.of(self.w.lm, self.kept)

    def shown(self) -> float:
        """Share of fresh answers to the held-back forget prompts that show the behaviour."""
        return shown_share(self.w.lm, self.w.task, self.asked * -(-PROBES // len(self.asked)), self.config.reveal.threshold)

    def modules(self, release: ReleaseConfig, progress: Progress, forget_pem: Patch | None = None) -> tuple[Patch, Patch]:
        """`train_modules` with the seed of a run's first iteration."""
        data, seed = (self.forget, self.harmless, self.retain), self.w.seed("release-1")
        return train_modules(self.w.lm, *data, release, seed, progress, self.unanswered, forget_pem)


class Study(SeveralSeeds):
    """The cells: one variant with one seed each."""

    def __init__(self, config: RunConfig, variants: Sequence[str], seeds: Sequence[int], forgetting: float, reporter: Any = None) -> None:
        config.check()
        for name in variants:
            if name not in variant_names():
                raise UserError(f"no variant {name!r}" + nearest(name, variant_names(), f"choose from {', '.join(variant_names())}"))
        if not seeds:
            raise UserError("give at least one seed")
        if not 0 < forgetting <= 1:
            raise UserError(f"forgetting is {forgetting}: give a share above 0 and at most 1, such as 0.75")
        if not config.release.retain_steps:
            raise UserError("release.retain_steps is 0: the study is of what the retain module does, so give it steps")
        known = {**VARIANTS, CONFIGURED: config.release.keep}
        self.variants = {name: known[name] for name in variants}
        self.seeds, self.forgetting = seeds, forgetting
        super().__init__(config, "study", reporter, forgetting=forgetting)

    def of_seed(self, seed: int) -> list[dict[str, Any]]:
        """The outcomes of a seed's cells."""
        w = self.workshop(seed)
        bench = Bench(w, w.generate_data(1, Patch(), w.reveal(1, Patch())))
        shown, lacking = 0.0, bench.lacking
        if not lacking:
            shown = self.phase(f"shown-{seed}", f"What the original shows, seed {seed}", lambda _: bench.shown())
            lacking = "" if shown else "the original shows nothing of it at prompts held back"
        if lacking:
            self.reporter.note(f"seed {seed}: {lacking}")
        return [self.cell(name, seed, bench, (1 - self.forgetting) * shown, lacking) for name in self.variants]

    def cell(self, name: str, seed: int, bench: Bench, target: float, lacking: str) -> dict[str, Any]:
        """Trains and measures one, where there are data for it and it forgets enough."""
        release = replace(self.config.release, keep=self.variants[name])
        cell: dict[str, Any] = {"variant": name, "keep": release.keep, "seed": seed, "failed": lacking}
        if lacking:
            return cell
        own = "".join(f"-{way}-{weight:g}" for way, weight in sorted(release.keep.items()) if weight and "forget" in KEEPERS[way].roles)
        alone, shared = replace(release, retain_steps=0), f"forget{own}-{seed}"  # by what of it touches the forget module
        try:
            forget_pem = self.module(shared, f"Forget module{own}, seed {seed}", lambda u: bench.modules(alone, u)[0])
            retain_pem = self.module(f"{name}-{seed}", f"{name}, seed {seed}", lambda u: bench.modules(release, u, forget_pem)[1])
        except UserError as error:
            return {**cell, "failed": str(error)}
        found = self.phase(
            f"equal-{name}-{seed}",
            f"{name}, seed {seed}: as far as it takes",
            lambda _: equally_forgetting(bench, forget_pem, retain_pem, release, target),
        )
        if found["failed"]:
            return {**cell, **found}
        metrics = self.measure(f"{name}-{seed}", direction(forget_pem, retain_pem, release).scale(found["figures"]["scale"]["value"]))
        seconds = plain(self.seconds[f"train-{shared}"] + self.seconds[f"train-{name}-{seed}"])
        return {**cell, **found, "figures": {**found["figures"], "seconds": seconds}, **metrics}

    def module(self, name: str, title: str, train: Callable[[Progress], Patch]) -> Patch:
        """Trains a module once and keeps it. Raises UserError, each time, where it diverges."""
        path = self.folder.path / "modules" / name

        def work(update: Progress) -> Any:
            try:
                save_for(self.lm, train(update), path)
            except UserError as error:
                return str(error)
            return ""

        if failed := self.phase(f"train-{name}", title, work):
            raise UserError(failed)
        return load(path)

    def finish(self, cells: list[dict[str, Any]]) -> dict[str, Any]:
        """Writes `study.json`, `table.md` and `study.svg`."""
        facts = provenance(self.config)
        del facts["seed"]
        results = {
            **facts,
            "seeds": list(self.seeds),
            "forgetting": self.forgetting,
            "published": PUBLISHED,
            "original": self.measure("original", Patch()),
            "cells": cells,
            "rows": rows_of(cells),
            "environment": environment(self.lm),
            "output": str(self.folder.path),
        }
        self.folder.write("study.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        self.folder.write("table.md", markdown(results))
        study_picture(results, self.folder.path / "study.svg")
        return results


def equally_forgetting(bench: Bench, forget_pem: Patch, retain_pem: Patch, release: ReleaseConfig, target: float) -> dict[str, Any]:
    """The smallest multiple of the step with which the share of answers that show the behaviour falls to `target`, and figures there.

    Returns:
        `tried`: (scale, share shown) in the order measured. `failed`: empty, or that no multiple up to `release.max_scale` will do.
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
        now = Utility.of(lm, bench.kept)
    prose = perplexity_ratio(utility.prose, now.prose)
    rows = bench.forgotten, bench.kept
    figures = {
        "scale": plain(found.scale),
        "shown": plain(found.cost),
        "utility_loss": plain(utility.lost(now)),
        "prose_rise": Estimate(prose.value - 1, prose.n, prose.low - 1, prose.high - 1).to_dict(),
        "records_rise": plain(math.expm1(now.nll - utility.nll)),
        **{name: plain(value) for name, value in interference(lm, forget_pem, retain_pem, *rows, release, found.scale).items()},
    }
    return {"failed": "", "tried": found.tried, "figures": figures}


def plain(value: float) -> dict[str, float]:
    """One figure without an interval."""
    return Estimate(value, 1, math.nan, math.nan).to_dict()


def rows_of(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each variant its figures and metrics over the seeds, and by how much they differ from those of O-LoRA with the same seed.

    Seeds in which a variant was not measured are told in `missing` and left out.
    """
    published = {cell["seed"]: cell for cell in cells if cell["variant"] == PUBLISHED and not cell["failed"]}
    rows = []
    for name in dict.fromkeys(cell["variant"] for cell in cells):
        group = [cell for cell in cells if cell["variant"] == name]
        done = [cell for cell in group if not cell["failed"]]
        row: dict[str, Any] = {"variant": name, "keep": group[0]["keep"], "seeds": len(done)}
        row["missing"] = [f"seed {cell['seed']}: {cell['failed']}" for cell in group if cell["failed"]]
        if done:
            row |= {part: {key: over_seeds([cell[part][key] for cell in done]) for key in done[0][part]} for part in PARTS}
        pairs = [(cell, published[cell["seed"]]) for cell in done if cell["seed"] in published]
        row["difference"] = difference(pairs) if pairs and name != PUBLISHED else None
        rows.append(row)
    return rows


def difference(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Of every figure and metric the mean difference within the pairs; the interval is over the pairs, one has none."""

    def less(part: str, key: str) -> dict[str, float]:
        return over_seeds([plain(one[part][key]["value"] - other[part][key]["value"]) for one, other in pairs])

    return {part: {key: less(part, key) for key in pairs[0][0][part]} for part in PARTS}
