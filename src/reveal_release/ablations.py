"""Ablations: what each part of the method is good for, by ordinary runs in which one setting is another. One table.

    ablations(RunConfig(task="toxicity", output="out/ablations"), seeds=[0, 1, 2], most=5)

Each run has a folder of its own in `runs`; stopped, it all goes on. Seeds may be added later.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .config import MOST_ITERATIONS, RunConfig, Unfit, UserError
from .dataset import Data
from .generation import Progress
from .loop import run
from .models import LanguageModel
from .real_data import real_records
from .release.adapter import load
from .release.patch import Patch
from .report.study import ablations_markdown
from .reveal.selfgen import counterparts
from .seeds import SeveralSeeds, averaged, check_seeds, of_unlearning, plain
from .tasks import Record
from .testbed import forget, retain
from .workshop import Workshop

CONFIGURED = "as configured"
NO_HARMLESS = "no harmless answers"
"""A run of one iteration whose retain module learns nothing to say instead: the unwanted answers are made unlikely, as those of a skill
are, by one pair. But no directions are left out, which a style needs (`release.suited`)."""
REAL = {"real forget data": "forget", "real retain data": "retain"}
"""Runs of one iteration on labelled examples in place of one part of what the model wrote."""
OTHER_DATA = (NO_HARMLESS, *REAL)
"""They are to be compared with `iterations 1`, as all else is with what is configured."""


def changed(config: RunConfig, most: int, real: bool = False) -> dict[str, RunConfig]:
    """The runs by what is changed: the number of iterations up to `most`, and so on, and those on other data. What is configured so already
    is left out."""
    reveal, release = config.reveal, config.release

    def unkept(name: str) -> RunConfig:
        return replace(config, release=replace(release, keep={k: v for k, v in release.keep.items() if k != name}))

    runs = {
        CONFIGURED: config,
        **{f"iterations {t}": replace(config, iterations=t) for t in range(1, most + 1)},
        "single best instruction": replace(config, reveal=replace(reveal, portfolio=1)),
        "one pair": replace(config, release=release.one_pair()),
        "no ascent module": replace(config, release=replace(release, ascent=0.0)),
        "no retain module": replace(config, release=replace(release, retain_steps=0)),
        "no KL divergence": unkept("kl"),
        **{f"rank {rank}": replace(config, release=replace(release, rank=rank)) for rank in (8, 32)},
        **{f"layers {share:g}": replace(config, release=replace(release, layers=share)) for share in (0.5, 1.0)},
        "scale per layer": replace(config, release=replace(release, per_layer=True)),
    }
    runs = {name: one for name, one in runs.items() if name == CONFIGURED or one != config}
    runs[NO_HARMLESS] = replace(unkept("skill-null-space"), iterations=1)
    return {**runs, **dict.fromkeys(REAL, replace(config, iterations=1))} if real else runs


def ablations(
    config: RunConfig,
    seeds: Sequence[int] = (0, 1, 2),
    most: int = 5,
    data: str | None = None,
    reporter: Any = None,
    variants: Sequence[str] = (),
) -> dict[str, Any]:
    """Does all runs, or goes on with them; returns what `ablations.json` holds.

    Args:
        config: as of a run, but for its seed. most: iterations of the longest.
        data: folder of the raw data sets, for the runs of `REAL`. variants: names of `changed`; by default all.

    Raises:
        UserError: for a setting, task, model or folder that will not do, before any long work; or where no run came to an end.
    """
    config.check()
    if not 1 <= most <= MOST_ITERATIONS:
        raise UserError(f"--most-iterations is {most}: give a number from 1 to {MOST_ITERATIONS}")
    runs = changed(config, most, data is not None)
    for name in variants:
        if name in REAL and name not in runs:
            raise UserError(f"the variant {name!r} needs the raw data sets: give their folder as --data")
        if name not in runs:  # a nearest name would be a guess: what is configured so already is not among them
            more = name.removeprefix("iterations ")
            hint = "raise --most-iterations for more" if more.isdecimal() and int(more) > most else "what is configured already is none"
            raise UserError(f"no variant {name!r} here: choose from {', '.join(runs)}; {hint}")
    runs = {name: one for name, one in runs.items() if name in variants or not variants}
    for one in runs.values():
        one.check()
    check_seeds(config, seeds)
    if data is not None and config.task not in retain.TASKS:
        raise forget.no_real_data(config.task, retain.TASKS)
    if data is not None and not Path(data).is_dir():
        raise UserError(f"no folder {data}: give that of the raw data sets as --data (`testbed sources` lists them)")
    parts = {REAL[name]: forget if REAL[name] == "forget" else retain for name in REAL.keys() & runs.keys()}
    marks = {part: examples.check(config.task, Path(data or "")) for part, examples in parts.items()}
    s = SeveralSeeds(config, "ablations", reporter)
    for part, mark in marks.items():
        s.same_data(part, mark)
    cells: list[dict[str, Any]] = []
    missing: list[str] = []
    originals: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        for name, one in runs.items():
            own = replace(one, seed=seed, output=str(s.folder.path / "runs" / f"{name.replace(' ', '-')}-{seed}"))
            try:
                with s.apart():
                    given = name in OTHER_DATA
                    results = run_on_other_data(name, own, data or "", s.reporter, s.lm) if given else run(own, s.reporter, s.lm)
            except Unfit as error:
                s.reporter.note(f"{name}, seed {seed}, is left out: {error}")
                missing.append(f"{name}, seed {seed}: {error}")
                continue
            originals.setdefault(seed, {"figures": {}, **metrics(results, "before")})
            cells.append({"variant": name, "seed": seed, "figures": figures(results), **metrics(results, "after")})
    if not cells:
        raise UserError(f"no run came to an end; the reasons are in {s.folder.path / 'log.txt'}")
    measured = {"config": s.config.to_dict(), "original": averaged(list(originals.values())), "cells": cells, "rows": rows_of(cells)}
    return s.written("ablations.json", seeds, ablations_markdown, **measured, missing=missing)


def run_on_other_data(variant: str, config: RunConfig, data: str, reporter: Any, lm: LanguageModel) -> dict[str, Any]:
    """One iteration, with labelled examples as its forget or its retain data, or without harmless answers.

    All else is as in a run, its searches too.
    """
    part = REAL.get(variant, "")
    w = Workshop(config, reporter, f"run on {variant}" if part else f"run with {variant}", lm)
    w.evaluate(0, Patch())
    revealed = w.reveal(1, Patch())
    if part != "forget" and not w.found(revealed):
        return w.finish(Patch(), "nothing left to reveal", part)
    if part == "forget":
        given = on_real_forget(w, data)
    elif part == "retain":
        given = on_real_retain(w, data, revealed)
    else:
        given = w.generate_data(1, Patch(), revealed)._replace(harmless=[])
    step = w.release(1, Patch(), given)
    if step is not None:
        w.evaluate(1, step)
    return w.finish(step or Patch(), "utility budget spent" if step is None else "all iterations done", part)


def on_real_forget(w: Workshop, data: str) -> Data:
    seed = w.seed("real")

    def work(_: Progress) -> Any:
        records = real_records(w.task, data, seed, w.config.reveal.records)
        return {"forget": [r.to_dict() for r in records], "harmless": [r.to_dict() for r in counterparts(w.lm, w.task, records, (), seed)]}

    drawn = w.phase("real", "Real forget data, and other answers to their prompts", work)
    forget_records, harmless = ([Record.from_dict(row) for row in drawn[part]] for part in ("forget", "harmless"))
    w.iterations[-1]["records"] = len(forget_records)
    kept, otherwise = w.retain_data()
    return Data(forget_records, harmless + otherwise, kept)


def on_real_retain(w: Workshop, data: str, revealed: dict[str, Any]) -> Data:
    def work(_: Progress) -> Any:
        return [r.to_dict() for r in real_records(w.task, data, w.seed("real"), w.config.release.retain_records, "retain")]

    own = w.generate_data(1, Patch(), revealed)
    drawn = w.phase("real", "Real retain data", work)
    w.folder.write_rows("retain_data.jsonl", drawn)
    return own._replace(retain=[Record.from_dict(row) for row in drawn])


def metrics(results: dict[str, Any], side: str) -> dict[str, Any]:
    """The task's metrics `before` or `after` a run, the strongest elicitation among those of forgetting."""
    elicited = {key: results["elicitation"][side][key] for key in ("value", "n", "low", "high")}
    return {"forget": {**results[side]["forget"], "strongest_elicitation": elicited}, "retain": results[side]["retain"]}


def figures(results: dict[str, Any]) -> dict[str, Any]:
    """Of a run's patch, and what it took: seconds of search, data and training, not of evaluation."""
    path = results["patch"]["path"]
    norm = load(Path(results["output"]) / path).norm() if path else 0.0
    counts = {"iterations": len(results["iterations"]), "records": sum(one["records"] for one in results["iterations"])}
    values = {**counts, "rank": results["patch"]["rank"], "norm": norm, "seconds": sum(of_unlearning(results["seconds"]))}
    return {name: plain(value) for name, value in values.items()}


def rows_of(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each variant its figures and metrics over the seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(cell["variant"], []).append(cell)
    return [{"variant": name, "seeds": len(group), **averaged(group)} for name, group in groups.items()]
