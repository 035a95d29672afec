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
    "kl", "kl-forget", "ending", "nll", "l2", "olora", "olora-normalised", "gauge-free", "null-space", "activation-null-space",
    "skill-null-space",
)  # fmt: skip
"""The ways to keep what must stay that there are; release/keep/ has one file each."""


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
        evaluations: instructions tried per search; each costs `samples` completions.
        samples: completions per tried instruction, drawn with the same random numbers for every instruction.
        start: instructions tried before the bandit chooses.
        batch: instructions the bandit picks per round.
        candidates: half of this number are proposed at first, a quarter more whenever fewer than half are untried.
        finalists: best instructions that are scored again on fresh samples.
        final_samples: fresh completions of the best, and on average of a finalist.
        records: self-generated forget records to aim for.
        threshold: least score of a record that is kept.
        portfolio: best instructions, by which the forget data are written.
        sources: where candidates come from: seeds, rewrite, user_turn, induction, soft_prompt, endpoint.
        endpoint: base address of an OpenAI-compatible server, such as http://localhost:8000/v1; its key is OPENAI_API_KEY.
        endpoint_model: name of the model there.
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
        layers: share of the model's blocks, the last ones, whose linear layers the modules change; 1 is all.
        pairs: pairs of a forget and a retain module, each trained from a random start of its own; the step is the mean over them. Of a
            skill, where most forget records have prompts without a harmless answer, one pair is trained, for as long as all, and
            its s is at most max_scale / pairs.
        steps: optimiser steps of each forget module.
        batch: records per optimiser step.
        learning_rate: peak learning rate, falling to 0.
        retain_steps: steps of each retain module; 0 trains none.
        retain_records: self-generated records to aim for of what must not change.
        keep: ways to keep what must stay, each with its weight: kl (divergence from the starting model on those records), kl-forget
            (the same while the forget module is trained), ending (the ends of harmless answers are not learnt: divergence of the
            chance to end at each of their tokens, so that the model does not fall silent), nll (next-token loss on those records),
            olora, olora-normalised, gauge-free (penalties on what the two modules share), l2 (of the change), null-space (the retain
            module reads nothing that the forget module reads; any weight), activation-null-space (the share, below 1, of those
            records' input energy whose directions no module reads), skill-null-space (the same, where most forget records have prompts
            that drew out nothing else). They combine; none is {}. What is given replaces the default; --release.keep.NAME X sets one of it.
        anchor_scale: kl, kl-forget and ending are applied at multiples of the step up to this, at another for each batch.
        forget_scale: lambda in W + s (retain module - lambda forget module): fixed; only s is searched.
        max_scale: largest s of a step; where nothing new is revealed, the last step may go on by as many times what it was.
        per_layer: weigh each layer by what it forgets for the utility it costs, if that leaves less of the behaviour.
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
    max_scale: float = 24.0
    per_layer: bool = False

    @property
    def steps_of_a_pair(self) -> int:
        """Optimiser steps of both modules of a pair."""
        return self.steps + self.retain_steps

    def one_pair(self) -> "ReleaseConfig":
        """The same with one pair of modules, which is trained for as many steps as all are, and so need not be taken as many times."""
        n = self.pairs
        return dataclasses.replace(self, pairs=1, steps=n * self.steps, retain_steps=n * self.retain_steps, max_scale=self.max_scale / n)


@dataclass(frozen=True)
class EvaluateConfig(Settings):
    """How much is measured, before, and after every iteration that changed the model.

    Args:
        prompts: RealToxicityPrompts used.
        continuations: samples of each of those prompts.
        neutral: completions under 60 held-out neutral instructions, as many of each, and one at least.
        sentences: held-out sentences that entities are asked of.
        functions: held-out Python problems whose answers are run.
        sampled_functions: of these, how many are sampled `code_samples` times for pass@k by the code task.
        code_samples: solutions sampled of each of those.
        problems: held-out word problems.
        scorer: `evaluation`, a folder, or a Hugging Face text classifier: never the search's reward.
        tofu: folder of TOFU's files, by which the knowledge task measures; nothing is trained on them.
        retain_model: a model that never saw TOFU's forget set, for its forget quality.
        rows: most rows of each of these files that are measured.
        entities: sentences of your own that the ner task is measured on as well: a CoNLL-style file (on a line the word first,
            the tag last), or a Hugging Face dataset with `tokens` and `ner_tags`.
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
        task: behaviour to remove; `reveal-release tasks` lists them, or a .yaml or .py file of your own.
        model: `testbed-llama`, a folder, or a name on the hub, of a certain revision as `owner/name@revision`.
        output: run folder; an unfinished one of the same configuration is continued.
        seed: seeds every random choice but the sampling of the task's evaluation, and of the answers that tell how far to go, which is the
            same for all seeds.
        iterations: most rounds of reveal and release.
        utility_budget: largest relative rise (0.02 is 2 %) of the perplexity of validation prose, and twice that of the model's own
            harmless texts. What is left of it is split equally over the remaining iterations.
        utility_text: that prose: encyclopedia or web, which are bundled, or a file of your own, a passage a line.
        forget_type: entity types that the `ner` task forgets, with commas between.
        forget_authors: whom the `knowledge` task forgets: names with commas between, or TOFU's forget01, forget05 or forget10.
        stop_reward: a search whose best reward is no higher than this found nothing.
        scorer: reward of the search in the toxicity task: `reward`, a folder, or a Hugging Face text classifier.
        dtype: auto, float32 or bfloat16.
        device: auto, cpu or cuda.
        threads: CPU threads; 0 leaves torch's default.
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
        if self.scorer == self.evaluate.scorer:
            raise UserError(f"scorer and evaluate.scorer are both {self.scorer!r}: what the search optimised cannot be what is reported")
        for name, weight in self.release.keep.items():
            if name not in KEEP:
                raise UserError(f"release.keep has {name!r}: choose from {', '.join(KEEP)}")
            _range(f"release.keep of {name}", weight, 0.0, 0.999 if name in ("activation-null-space", "skill-null-space") else 1e9)
        for name in ("forget_scale", "max_scale", "anchor_scale", "learning_rate"):
            if not 0 < getattr(self.release, name) < math.inf:
                raise UserError(f"release.{name} is {getattr(self.release, name)}: give a number above 0")
        for part in ("reveal", "release", "evaluate"):
            for name, value in dataclasses.asdict(getattr(self, part)).items():
                least = LEAST.get(name, 1)
                if type(value) is int and value < least:
                    raise UserError(f"{part}.{name} is {value}: give a whole number of at least {least}")
        if self.evaluate.entities and self.task != "ner" and not self.task.endswith(".py"):
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
        later = (kept, "utility_text", "encyclopedia"), (kept["release"], "pairs", 1), (kept["release"], "per_layer", False)
        for part, name, without in (*later, (kept["evaluate"], "entities", "")):
            if part[name] == without:  # which came later: without it a run is what it was before
                del part[name]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def _range(name: str, value: float, low: float, high: float, note: str = "") -> None:
    if not low <= value <= high:
        raise UserError(f"{name} is {value}: give a number from {low:.10g} to {high:.10g}{note}")
