"""Every setting of a run, with its default and what it means: one place, used by Python, YAML and the command line alike.

    from reveal_release import RunConfig, run
    run(RunConfig(task="toxicity", model="testbed-llama", output="out/toxicity"))
"""

import dataclasses
import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any, Literal

SOURCES = ("seeds", "rewrite", "user_turn", "induction", "soft_prompt", "endpoint")
"""The proposal sources that there are; reveal/proposals.py says what each does."""

KEEP = (
    "kl", "kl-forget", "ending", "nll", "nll-forget", "l2", "olora", "olora-normalised", "gauge-free", "null-space",
    "activation-null-space", "skill-null-space",
)  # fmt: skip
"""The ways to keep what must stay that there are; release/keep/ has them."""


LEAST = {"retain_steps": 0, "code_samples": 2, "records": 8, "retain_records": 16}
"""The least that these may be, where it is not 1: too few records are not trained on, and some of them are held back."""

MOST_ITERATIONS = 20

NO_RESULT = ("output", "save_merged", "threads", "endpoint", "endpoint_model")
"""Settings that change no figure, and where another model is asked: it answers otherwise each time, and where it fails is to be mended."""

READ_BY = {
    "ner": ("forget_type",), "knowledge": ("forget_authors", "evaluate.tofu", "evaluate.retain_model"),
    "toxicity": ("scorer", "evaluate.scorer"), "code": (),
}  # fmt: skip
"""The settings that one of the bundled tasks alone reads. A task of a user's own may read any. (evaluate.entities is in `check`.)"""


class UserError(Exception):
    """A mistake the user can mend: one line that names the cause and the cure."""


class Unfit(UserError):
    """Nothing can be learnt from these data: too few records, or the training diverged. Another seed, or what was learnt before, may do."""


def first_line(error: Exception) -> str:
    """What an exception says, in short; its name where it says nothing."""
    return shorten(next(iter(str(error).strip().splitlines()), type(error).__name__), 160, placeholder=" …")


class Settings:
    """Whole numbers become floats where these are meant: 0 and 0.0 are one setting."""

    def __post_init__(self) -> None:
        for one in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, one.name)
            if one.type is float and type(value) is int:
                object.__setattr__(self, one.name, float(value))
            elif one.name == "keep" and isinstance(value, dict):
                object.__setattr__(self, one.name, {way: float(weight) if type(weight) is int else weight for way, weight in value.items()})


@dataclass(frozen=True)
class RevealConfig(Settings):
    """Search for the instructions that draw the behaviour out, and generation of the forget data with the best.

    Args:
        evaluations: instructions that a search tries; each costs `samples` completions.
        samples: completions per instruction, drawn with the same random numbers for every instruction.
        start: instructions tried before the bandit chooses.
        batch: instructions that the bandit picks per round.
        candidates: half of this number is proposed first, and a quarter of it more whenever fewer than half of it are left untried.
        finalists: best instructions that are scored again on fresh samples.
        final_samples: fresh completions of the winner, and the average number for each finalist.
        records: self-generated forget records to aim for.
        threshold: lowest score of a record that is kept.
        portfolio: number of instructions, the best and most varied, that write the forget data.
        sources: where candidates come from: seeds, rewrite, user_turn, induction, soft_prompt, endpoint.
        endpoint: base address of an OpenAI-compatible server, such as http://localhost:8000/v1. Its key is read from OPENAI_API_KEY.
        endpoint_model: name of the model on that server.
    """

    evaluations: int = 72
    samples: int = 8
    start: int = 16
    batch: int = 14
    candidates: int = 160
    finalists: int = 8
    final_samples: int = 32
    records: int = 512
    threshold: float = 0.5
    portfolio: int = 24
    sources: tuple[str, ...] = ("seeds", "rewrite", "user_turn", "induction")
    endpoint: str = ""
    endpoint_model: str = ""


@dataclass(frozen=True)
class ReleaseConfig(Settings):
    """Training of the modules (LoRA) and their subtraction.

    Args:
        rank: LoRA rank r of each module; alpha is 2 r.
        layers: share of the model's blocks, counted from the last, whose linear layers are changed; 1 is all.
        pairs: pairs of a forget and a retain module, each trained from its own random start; the step is their mean. For a skill, where
            most forget records have prompts without a harmless answer, a single pair is trained for as many steps as all together, and its
            scale is at most max_scale / pairs.
        steps: optimiser steps of each forget module.
        batch: records per optimiser step.
        learning_rate: peak learning rate; it falls linearly to 0.
        retain_steps: optimiser steps of each retain module; 0 trains none.
        retain_records: self-generated records to aim for of what must not change.
        keep: ways to keep what must stay, each with its weight. kl: KL divergence from the starting model on the retain records.
            kl-forget: the same while the forget module is trained. ending: harmless answers are learnt but not where they end, and KL
            divergence holds the chance to end at each of their tokens, so that the model does not fall silent. nll: next-token loss on
            the retain records. nll-forget: the same while the forget module is trained, of the model without it. olora, olora-normalised,
            gauge-free: penalties on what the two modules share. l2: penalty on the change. null-space: the retain module reads nothing
            that the forget module reads (any weight). activation-null-space: no module reads the directions that hold this share, below
            1, of the retain records' input energy. skill-null-space: the same, for a skill only (see pairs). They combine; {} is none. A
            dictionary replaces the default; --release.keep.NAME X sets one weight of it.
        anchor_scale: kl, kl-forget and ending are applied at multiples of the step up to this, a different one for each batch.
        forget_scale: lambda in W + s (retain module - lambda forget module). It is fixed; only s is searched.
        ascent: weight in the step of one more module, which is trained by gradient ascent on the forget records, and is held to the
            retain records by next-token loss (half the weight, or that of nll) and by kl. A skill (see pairs) has none; 0 trains none.
        max_scale: largest s of a step. If nothing new is revealed, the last step may be extended by up to this factor.
        per_layer: weigh each layer by how much it forgets for the utility it costs, if that leaves less of the behaviour.
    """

    rank: int = 32
    layers: float = 0.5
    pairs: int = 2
    steps: int = 30
    batch: int = 16
    learning_rate: float = 7e-4
    retain_steps: int = 40
    retain_records: int = 480
    keep: dict[str, float] = field(default_factory=lambda: {"kl": 8.0, "ending": 8.0, "olora": 1e-4, "skill-null-space": 0.5})
    anchor_scale: float = 4.0
    forget_scale: float = 0.3
    ascent: float = 1.0
    max_scale: float = 24.0
    per_layer: bool = False

    @property
    def steps_of_a_pair(self) -> int:
        """Optimiser steps of both modules of a pair."""
        return self.steps + self.retain_steps

    @property
    def steps_in_all(self) -> int:
        """Optimiser steps of all pairs, and of the ascent module, which takes as many as one."""
        return (self.pairs + bool(self.ascent)) * self.steps_of_a_pair

    def one_pair(self) -> "ReleaseConfig":
        """The same with one pair of modules, which is trained for as many steps as all are, and so need not be taken as many times."""
        n = self.pairs
        return dataclasses.replace(self, pairs=1, steps=n * self.steps, retain_steps=n * self.retain_steps, max_scale=self.max_scale / n)


@dataclass(frozen=True)
class EvaluateConfig(Settings):
    """How much is measured, before, and after every iteration that changed the model.

    Args:
        prompts: number of RealToxicityPrompts, of 200 that are bundled.
        continuations: samples per prompt.
        neutral: completions of the 60 held-out neutral instructions, spread evenly over them, at least one each.
        sentences: held-out sentences for named entities, of 400 that are bundled.
        functions: held-out Python problems whose answers are run.
        sampled_functions: how many of these are sampled `code_samples` times, for pass@k in the code task.
        code_samples: solutions sampled per such problem.
        problems: held-out word problems.
        scorer: `evaluation`, a folder, or a Hugging Face text classifier; never the one that rewards the search.
        tofu: folder with TOFU's files, for the knowledge task to measure by; nothing is trained on them.
        retain_model: a model that never saw TOFU's forget set, for its forget quality.
        rows: largest number of rows measured of each of these files.
        entities: sentences of your own for the ner task to be measured on as well: a CoNLL-style file (a word first and its tag last on
            each line), or a Hugging Face dataset with `tokens` and `ner_tags`.
    """

    prompts: int = 100
    continuations: int = 4
    neutral: int = 300
    sentences: int = 120
    functions: int = 100
    sampled_functions: int = 50
    code_samples: int = 8
    problems: int = 600
    scorer: str = "evaluation"
    tofu: str = ""
    retain_model: str = ""
    rows: int = 400
    entities: str = ""


@dataclass(frozen=True)
class RunConfig(Settings):
    """A whole run of Reveal & Release.

    Args:
        task: behaviour to remove: a name that `reveal-release tasks` lists, or a .yaml or .py file of your own.
        model: `testbed-llama`, a folder, or a name on the hub; for a certain revision `owner/name@revision`.
        output: run folder. An unfinished run of the same configuration in it is resumed.
        seed: seed of every random choice, except the sampling of the task's evaluation and of the answers that decide how far a step
            goes; these are the same for all seeds.
        iterations: largest number of rounds of reveal and release.
        utility_budget: largest relative rise (0.02 is 2 %) of the perplexity of validation prose; that of the model's own harmless texts
            may rise by twice as much. What is left is split equally over the remaining iterations.
        utility_text: that prose: encyclopedia or web, which are bundled, or a file of your own with a passage per line.
        forget_type: entity types that the `ner` task forgets, separated by commas.
        forget_authors: whom the `knowledge` task forgets: names separated by commas, or TOFU's forget01, forget05 or forget10.
        stop_reward: a search whose best reward is no higher than this has found nothing.
        scorer: reward of the search in the toxicity task: `reward`, a folder, or a Hugging Face text classifier.
        dtype: auto, float32 or bfloat16.
        device: auto, cpu or cuda.
        threads: CPU threads; 0 leaves it to torch.
        save_merged: also write the merged model.
        allow_unsafe_code: run code that the model wrote even where this machine cannot isolate it.
    """

    task: str = "toxicity"
    model: str = "testbed-llama"
    output: str = "out"
    seed: int = 0
    iterations: int = 2
    utility_budget: float = 0.02
    utility_text: str = "encyclopedia"
    forget_type: str = "person"
    forget_authors: str = "forget01"
    stop_reward: float = 0.05
    scorer: str = "reward"
    reveal: RevealConfig = field(default_factory=RevealConfig)
    release: ReleaseConfig = field(default_factory=ReleaseConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    threads: int = 0
    save_merged: bool = False
    allow_unsafe_code: bool = False

    def check(self) -> None:
        """Raises UserError for a value out of its range, naming the field and the range."""
        if not self.output.strip():
            raise UserError("output is empty: name a folder")
        _range("utility_budget", self.utility_budget, 0.0, 1.0, " (0.02 is 2 %)")
        _range("stop_reward", self.stop_reward, 0.0, 1.0)
        _range("reveal.threshold", self.reveal.threshold, 0.001, 1.0)
        _range("release.layers", self.release.layers, 0.001, 1.0)
        _range("iterations", self.iterations, 1, MOST_ITERATIONS)
        _range("seed", self.seed, 0, 2**32 - 1)
        _range("threads", self.threads, 0, 1024)
        python = self.task.lower().endswith(".py")  # it may read any setting
        if self.scorer == self.evaluate.scorer and (self.task == "toxicity" or python):
            raise UserError(f"scorer and evaluate.scorer are both {self.scorer!r}: what the search optimised cannot be what is reported")
        for name, weight in self.release.keep.items():
            if name not in KEEP:
                raise UserError(f"release.keep has {name!r}: choose from {', '.join(KEEP)}")
            _range(f"release.keep of {name}", weight, 0.0, 0.999 if name in ("activation-null-space", "skill-null-space") else 1e9)
        for name in ("forget_scale", "max_scale", "anchor_scale", "learning_rate"):
            if not 0 < getattr(self.release, name) < math.inf:
                raise UserError(f"release.{name} is {getattr(self.release, name)}: give a number above 0")
        _range("release.ascent", self.release.ascent, 0.0, 1e9)
        for part in ("reveal", "release", "evaluate"):
            for name, value in dataclasses.asdict(getattr(self, part)).items():
                least = LEAST.get(name, 1)
                if type(value) is int and value < least:
                    raise UserError(f"{part}.{name} is {value}: give a whole number of at least {least}")
        if self.evaluate.entities and self.task != "ner" and not python:
            raise UserError(f"evaluate.entities is set, but the task {self.task} does not read it: leave it out, or give --task ner")
        if self.reveal.evaluations < self.reveal.start:
            start = f"reveal.start ({self.reveal.start})"
            raise UserError(f"reveal.evaluations ({self.reveal.evaluations}) is below {start}: raise it, or lower reveal.start")
        unknown = set(self.reveal.sources) - set(SOURCES)
        if unknown or not self.reveal.sources:
            raise UserError(f"reveal.sources has {sorted(unknown) or 'nothing'}: choose from {', '.join(SOURCES)}")
        if set(self.reveal.sources) <= {"induction", "soft_prompt"}:  # they begin with what others found
            raise UserError(f"reveal.sources has only {', '.join(self.reveal.sources)}, which vary what others find: add seeds")
        if "endpoint" not in self.reveal.sources:
            if self.reveal.endpoint or self.reveal.endpoint_model:
                name = "endpoint" if self.reveal.endpoint else "endpoint_model"
                raise UserError(f"reveal.{name} is set but never asked: add endpoint to reveal.sources, or leave it out")
        elif not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s?#]*)?", self.reveal.endpoint):
            raise UserError(
                "reveal.sources has endpoint and reveal.endpoint is no base address: give one such as http://localhost:8000/v1, "
                "with the key in OPENAI_API_KEY alone"
            )
        elif not self.reveal.endpoint_model:
            raise UserError("reveal.endpoint_model is empty: give the name of the endpoint's model")

    def check_read(self) -> None:
        """Raises UserError for a setting, other than its default, that the task does not read."""
        if self.task not in READ_BY:
            return
        given, usual = self.to_dict(), RunConfig().to_dict()
        for task, names in READ_BY.items():
            for part, _, name in (key.rpartition(".") for key in names if task != self.task):
                value, default = ((one[part] if part else one)[name] for one in (given, usual))
                if value != default:
                    key = f"{part}.{name}".lstrip(".")
                    raise UserError(f"{key} is {value!r}, but the task {self.task} does not read it: leave it out, or give --task {task}")

    def to_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def hash(self) -> str:
        """Identity of the results: all that can change them, so not where they are written or how they are kept."""
        kept = {k: v for k, v in self.to_dict().items() if k not in NO_RESULT}
        kept["reveal"] |= dict.fromkeys(("endpoint", "endpoint_model"), "")
        later = (
            (kept, "utility_text", "encyclopedia"), (kept["evaluate"], "entities", ""),
            (kept["release"], "pairs", 1), (kept["release"], "per_layer", False), (kept["release"], "ascent", 0.0),
        )  # fmt: skip
        for part, name, without in later:
            if part[name] == without:  # which came later: without it a run is what it was before
                del part[name]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _range(name: str, value: float, low: float, high: float, note: str = "") -> None:
    if not low <= value <= high:
        raise UserError(f"{name} is {value}: give a number from {low:.10g} to {high:.10g}{note}")
