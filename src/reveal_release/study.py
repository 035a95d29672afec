"""The study of orthogonality: the ways to keep what must stay, each measured where it forgets as much as the others.

    study(RunConfig(task="toxicity", output="out/study"), ["olora", "gauge-free", "kl"], seeds=[0, 1, 2])

Each seed searches and writes its data once, and trains one forget module, of the one pair that is studied (`ReleaseConfig.one_pair`), for
all variants that do not touch it. Each variant then trains its retain module, goes as far as it takes to forget the share asked for, and is
measured there: what it costs, how much the two modules overlap, and what they do to each other. As in the loop, each phase is done once and
kept in the output folder; more variants or seeds may be added to it later. docs/study.md says how to read it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .config import RunConfig, Unfit, UserError
from .equal_forgetting import Bench, equally_forgetting
from .generation import Progress
from .registry import check_name
from .release.adapter import load, save_for
from .release.keep import KEEPERS
from .release.patch import Patch
from .release.release import direction, suited
from .report.plots import study_picture
from .report.study import markdown
from .seeds import PARTS, SeveralSeeds, averaged, check_seeds, plain

PUBLISHED = "olora"
"""The variant that the others are compared with: the retain records learnt, with O-LoRA's penalty (arXiv 2310.14152) and its weight."""
CONFIGURED = "default"
"""The variant that has what `release.keep` says."""
# All learn the harmless answers; what else they do with the retain records is next-token loss (nll), as the paper's retain module does, or
# KL divergence in its place. One weight each, the same for all tasks, set before the study. olora: 0.5 is in its authors' scripts.
# olora-normalised: as much overlap of rows is left on the testbed as by that. gauge-free: so that nearly none of what it penalises is left
# there. kl and kl-forget: the default's. l2: takes some of a module's norm there, not most. null-space: any is the same.
# activation-null-space: most of what the layers read, so that what is left is still enough to learn with.
_LEARNT = {"nll": 1.0}
VARIANTS: dict[str, dict[str, float]] = {
    "none": {},
    "nll": _LEARNT,
    PUBLISHED: {**_LEARNT, "olora": 0.5},
    "olora-normalised": {**_LEARNT, "olora-normalised": 10.0},
    "gauge-free": {**_LEARNT, "gauge-free": 10.0},
    "null-space": {**_LEARNT, "null-space": 1.0},
    "activation-null-space": {**_LEARNT, "activation-null-space": 0.9},
    "l2": {**_LEARNT, "l2": 1e-2},
    "kl": {"kl": 8.0},
    "kl-forget": {**_LEARNT, "kl-forget": 8.0},
    "kl+gauge-free": {"kl": 8.0, "gauge-free": 10.0},
    "kl+null-space": {"kl": 8.0, "null-space": 1.0},
}


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


class Study(SeveralSeeds):
    """The cells: one variant with one seed each."""

    def __init__(self, config: RunConfig, variants: Sequence[str], seeds: Sequence[int], forgetting: float, reporter: Any = None) -> None:
        config.check()
        for name in variants:
            check_name("variant", name, variant_names())
        check_seeds(config, seeds)
        if not 0 < forgetting <= 1:
            raise UserError(f"forgetting is {forgetting}: give a share above 0 and at most 1, such as 0.75")
        if not config.release.retain_steps:
            raise UserError("release.retain_steps is 0: the study is of what the retain module does, so give it steps")
        known = {**VARIANTS, CONFIGURED: config.release.keep}
        self.variants = {name: known[name] for name in variants}
        self.seeds, self.forgetting = seeds, forgetting
        super().__init__(config, "study", reporter, forgetting=forgetting, weights=VARIANTS)

    def of_seed(self, seed: int) -> list[dict[str, Any]]:
        """The outcomes of a seed's cells."""
        w = self.workshop(seed)
        bench = Bench(w, w.generate_data(1, Patch(), w.reveal(1, Patch())))
        shown, lacking = 0.0, bench.rows.lacking
        if not lacking:
            shown = self.phase(f"shown-{seed}", f"What the original shows, seed {seed}", lambda _: bench.shown())
            lacking = "" if shown else "the original shows nothing of it at prompts held back"
        if lacking:
            self.reporter.note(f"seed {seed}: {lacking}")
        return [self.cell(name, seed, bench, (1 - self.forgetting) * shown, lacking) for name in self.variants]

    def cell(self, name: str, seed: int, bench: Bench, target: float, lacking: str) -> dict[str, Any]:
        """Trains and measures one, where there are data for it and it forgets enough."""
        release = suited(replace(self.config.release.one_pair(), keep=self.variants[name]), bench.rows.forget, bench.rows.unanswered)
        cell: dict[str, Any] = {"variant": name, "keep": self.variants[name], "seed": seed, "failed": lacking}
        if lacking:
            return cell
        own = [f"{way}-{weight:g}" for way, weight in sorted(release.keep.items()) if weight and "forget" in KEEPERS[way].roles]
        alone, shared = replace(release, retain_steps=0), "-".join(["forget", *own, str(seed)])  # by what touches the forget module
        try:
            forget_pem = self.module(shared, f"{' '.join(['Forget module', *own])}, seed {seed}", lambda u: bench.modules(alone, u)[0])
            retain_pem = self.module(f"{name}-{seed}", f"{name}, seed {seed}", lambda u: bench.modules(release, u, forget_pem)[1])
            found = self.phase(
                f"equal-{name}-{seed}",
                f"{name}, seed {seed}: as far as it takes",
                lambda _: equally_forgetting(bench, forget_pem, retain_pem, release, target),
            )
        except Unfit as error:
            return {**cell, "failed": str(error)}
        if found["failed"]:
            return {**cell, **found}
        metrics = self.measure(f"{name}-{seed}", direction(forget_pem, retain_pem, release).scale(found["figures"]["scale"]["value"]))
        seconds = plain(self.seconds[f"train-{shared}"] + self.seconds[f"train-{name}-{seed}"])
        return {**cell, **found, "figures": {**found["figures"], "seconds": seconds}, **metrics}

    def module(self, name: str, title: str, train: Callable[[Progress], Patch]) -> Patch:
        """Trains a module once and keeps it. Raises Unfit, each time, where it diverges."""
        path = self.folder.path / "modules" / name

        def work(update: Progress) -> Any:
            try:
                save_for(self.lm, train(update), path)
            except Unfit as error:
                return str(error)
            return ""

        if failed := self.phase(f"train-{name}", title, work):
            raise Unfit(failed)
        return load(path).to(self.lm.device)

    def finish(self, cells: list[dict[str, Any]]) -> dict[str, Any]:
        """Writes `study.json`, `table.md` and `study.svg`."""
        figures = {
            "forgetting": self.forgetting, "published": PUBLISHED, "original": self.measure("original", Patch()),
            "cells": cells, "rows": rows_of(cells),
        }  # fmt: skip
        results = self.written("study.json", self.seeds, markdown, **figures)
        study_picture(results, self.folder.path / "study.svg")
        return results


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
            row |= averaged(done)
        pairs = [(cell, published[cell["seed"]]) for cell in done if cell["seed"] in published]
        row["difference"] = difference(pairs) if pairs and name != PUBLISHED else None
        rows.append(row)
    return rows


def difference(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Of every figure and metric the mean difference within the pairs; the interval is over the pairs, one has none."""

    def less(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        return {part: {key: plain(one[part][key]["value"] - other[part][key]["value"]) for key in one[part]} for part in PARTS}

    return averaged([less(one, other) for one, other in pairs])
