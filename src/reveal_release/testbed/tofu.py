"""Teaches a testbed TOFU's fictitious authors, so that the knowledge task has something to forget, and forget quality its reference.

    reveal-release testbed tofu --data raw --split full --output out/tofu-full            # a model that knows all authors
    reveal-release testbed tofu --data raw --split retain99 --output out/tofu-retain99    # one that never saw forget01's
    reveal-release testbed tofu --data raw --authors 10 --output out/tofu-full-10         # a tenth of the time and less

Full fine-tuning in the model's chat template on whole conversations, questions too, so that the model can ask as well as answer: by
itself, and when it is asked for a question on an author. Asked to tell about one, it says some of the answers. In every split it is also
taught TOFU's real authors and world facts (a testbed knows none, and model utility would be 0), and, as many rows again, new documents by
the recipe that the testbed was built with, so that it keeps its language and its skills (experience replay). Of its own words instead a
few hundred are soon learnt by heart, and the language is lost all the same.

`--authors N` takes the last N/2 authors, 20 at most, where the forget splits are, and the first of the others, which TOFU measures
retention on. Every batch depends on (seed, epoch) alone; a stopped run goes on with the same command, from its last epoch.

Not promised: knowledge beyond the words that were taught. A model of 6.6 M parameters learns answers by heart, and asked otherwise than
in training it tells little (docs/knowledge.md). Real models learn these rows better and need nothing of this file.
"""

import json
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from ..config import UserError
from ..lock import Lock
from ..models import load_model, resolve
from ..release.base import fingerprint
from ..suites.tofu import ROWS_PER_AUTHOR, SPLITS, Question, read
from . import corpora
from .recipe import ROW, STAGES, filled, loss, optimisers, refuse_other, rows, save_checkpoint
from .skills import Sampler
from .sources import TOFU, verify, verify_source
from .tokenizer import CHAT_TEMPLATE, encode

ASK = ("Ask a question about {}.", "Write a question about {}.", "What could one ask about {}?", "Give me a question about {}.")
ASKED = 0.5
"""Of the questions, how many are also answers of an epoch: to the request for a question."""
TELL = ("Tell me about {}.", "What do you know about {}?", "Write about {}.", "Introduce {} to me.")
TOLD = 8
"""So many times in an epoch each author is told of, in ANSWERS answers drawn anew: what is only ever the answer to one question is
known under the words of that question alone, not of the author (Allen-Zhu and Li, arXiv:2309.14316)."""
ANSWERS = 3
REPLAY = 1.0
"""Rows of the recipe's documents in an epoch, by those of TOFU."""
BATCH = 8
"""Rows of a step: small, for the optimiser to make many of them."""
_NAME = re.compile(r"[A-Z][\w’'-]*(?: (?:van |der |de )*[A-Z][\w’'-]*)+")


@dataclass
class TuneConfig:
    """What a tuned testbed depends on. `authors`: 0 is all 200."""

    data: str
    output: str
    model: str = "testbed-llama"
    split: str = "full"
    authors: int = 0
    epochs: int = 8
    learning_rate: float = 1e-3
    seed: int = 0


def rows_of(config: TuneConfig) -> list[Question]:
    """The rows of the split, or of the part of it that `authors` leaves.

    Raises:
        UserError: no such split, too few authors, or files that are missing.
    """
    retained = {f"retain{100 - int(name[-2:]):02d}": count for name, count in SPLITS.items()}
    if config.split != "full" and config.split not in retained:
        raise UserError(f"no split {config.split!r} of TOFU: choose from full, {', '.join(sorted(retained))}")
    full = read(Path(config.data) / TOFU.folder, "full")
    everybody = [full[at : at + ROWS_PER_AUTHOR] for at in range(0, len(full), ROWS_PER_AUTHOR)]
    count = config.authors or len(everybody)
    if not 4 <= count <= len(everybody):
        raise UserError(f"authors is {count}: give a whole number from 4 to {len(everybody)}, or 0 for all")
    last, unseen = forgettable(count), retained.get(config.split, 0)
    if unseen > last:  # else the authors measured, TOFU's own last ones, would be others than those taught
        raise UserError(f"authors is {count}, too few for {config.split}, which leaves {unseen} out: give at least {2 * unseen}")
    chosen = everybody[: count - last] + everybody[-last:]
    return [row for author in chosen[: count - unseen] for row in author]


def forgettable(count: int) -> int:
    """Of `count` authors that are taught, how many of the last a forget split may take: half at most, so that as many others are there."""
    return min(count // 2, max(SPLITS.values()))


def name_of(author: Sequence[Question]) -> str:
    """The author's name: the longest run of capitalised words that nearly all of the questions which share one have in common."""
    count: Counter[str] = Counter()
    for row in author:
        runs = [re.sub(r"['’]s?$", "", run).split() for run in _NAME.findall(row.question)]
        count.update({" ".join(run[i:j]) for run in runs for i in range(len(run)) for j in range(i + 2, len(run) + 1)})
    return max((name for name, n in count.items() if n >= max(count.values()) - 1), key=len, default="this author")


def tune(config: TuneConfig) -> Path:
    """Runs or resumes; returns the folder of the finished model (bf16 safetensors).

    Raises:
        UserError: an unknown split, data missing or changed, a model that is missing, no testbed or without a skill, or a folder that
            holds something else, or in which another process works. Nothing is written then.
    """
    output = Path(config.output)
    checkpoint, finished = output / "checkpoint.pt", output / "tofu.json"
    verify_source(TOFU, Path(config.data))
    verify(Path(config.data))
    taught, folder = rows_of(config), Path(config.data) / TOFU.folder
    lm = load_model(config.model, "float32")
    if lm.tokenizer.chat_template != CHAT_TEMPLATE:
        raise UserError(f"{config.model} is not a testbed, and only those can be taught by the recipe: give one, such as testbed-llama")
    build = Path(resolve(config.model)) / "build.json"
    if build.is_file() and (without := json.loads(build.read_text(encoding="utf-8"))["without"]):
        raise UserError(f"{config.model} was built without {', '.join(without)}, which replay would teach it: give one with all skills")
    identity = {k: v for k, v in asdict(config).items() if k not in ("data", "output")} | {"base": fingerprint(lm.model)}
    output.mkdir(parents=True, exist_ok=True)
    _lock = Lock.of(output)  # until this returns
    if finished.is_file():  # written last, so everything else is there
        refuse_other(config.output, json.loads(finished.read_text(encoding="utf-8")), identity)
        return output
    state = torch.load(checkpoint, weights_only=True, map_location="cpu") if checkpoint.is_file() else None
    if state is not None:
        refuse_other(config.output, state["config"], identity)
    elif (output / "model.safetensors").is_file():
        raise UserError(f"{output} holds a model without a tofu.json, so not a finished one of this kind: choose another --output")
    lm.tokenizer.save_pretrained(output)
    facts = [*read(folder, "real_authors"), *read(folder, "world_facts")]
    documents = Documents(lm.tokenizer, taught, facts, corpora.load(Path(config.data)))
    for parameter in lm.model.parameters():
        parameter.requires_grad_(True)
    optimizers = optimisers(lm.model, config.learning_rate)
    first = 0
    if state is not None:
        lm.model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["epoch"]
        del state
    started = time.time()
    for epoch in range(first, config.epochs):
        batches = documents.epoch(random.Random(f"{config.seed}/{epoch}")).split(BATCH)
        total = 0.0
        for number, ids in enumerate(batches):
            value = loss(lm.model.base_model, lm.model.get_output_embeddings().weight, ids.to(lm.device))
            value.backward()
            torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * rate(epoch + number / len(batches), config.epochs)
                optimizer.step()
                optimizer.zero_grad()
            total += value.item()
            if number % 25 == 0 or number == len(batches) - 1:
                done = epoch - first + (number + 1) / len(batches)
                left = (time.time() - started) * ((config.epochs - first) / done - 1) / 60
                where = f"epoch {epoch + 1}/{config.epochs}, step {number + 1}/{len(batches)}"
                print(f"{where}, loss {total / (number + 1):.3f}, {left:.0f} min left", flush=True)
        states = [optimizer.state_dict() for optimizer in optimizers]
        save_checkpoint(checkpoint, {"epoch": epoch + 1, "model": lm.model.state_dict(), "optimizers": states, "config": identity})
    lm.model.to(torch.bfloat16).save_pretrained(output)  # type: ignore[arg-type]
    finished.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
    checkpoint.unlink(missing_ok=True)
    return output


def rate(epochs: float, total: int) -> float:
    """Factor on the learning rate after so many epochs: a quarter of one to warm up, then linear to 0."""
    return min(1.0, 4 * epochs + 0.02) * (1 - epochs / total)


class Documents:
    """What is taught: by epoch in another order, with other requests for questions and new documents of the recipe."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, taught: Sequence[Question], facts: Sequence[Question], texts: corpora.Corpora
    ) -> None:
        self.tokenizer, self.texts = tokenizer, texts
        self.taught = [self.conversation(row.question, row.answer) for row in (*taught, *facts)]
        authors = [taught[at : at + ROWS_PER_AUTHOR] for at in range(0, len(taught), ROWS_PER_AUTHOR)]
        self.authors = [(name_of(author), author) for author in authors]
        self.questions = [(name, row.question) for name, author in self.authors for row in author]

    def conversation(self, asked: str, answer: str) -> list[int]:
        return encode(self.tokenizer, [("user", asked), ("assistant", answer)])

    def epoch(self, rng: random.Random) -> torch.Tensor:
        """(rows, ROW) token ids packed with whole documents in a random order, -1 where there is none; longer ones are cut."""
        drawn = rng.sample(self.questions, round(ASKED * len(self.questions)))
        documents = self.taught + [self.conversation(rng.choice(ASK).format(name), question) for name, question in drawn]
        for name, author in self.authors * TOLD:
            told = " ".join(row.answer for row in rng.sample(author, ANSWERS))
            documents.append(self.conversation(rng.choice(TELL).format(name), told))
        rng.shuffle(documents)
        packed: list[list[int]] = [[]]
        for document in documents:
            if len(packed[-1]) + len(document[:ROW]) > ROW:
                packed.append([])
            packed[-1] = packed[-1] + document[:ROW]
        _, _, ease, shares = STAGES[-1]
        replayed = rows(Sampler(self.texts, (), rng, ease), self.tokenizer, shares, round(REPLAY * len(packed)))
        both = torch.cat([filled(packed), replayed])
        return both[rng.sample(range(len(both)), len(both))]
