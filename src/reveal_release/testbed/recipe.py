"""Trains a testbed: tokenizer, then a causal LM of about 6 M parameters in two stages, from one folder of raw data.

    reveal-release testbed build --family llama --data DIR --output DIR            # one process
    reveal-release testbed build --data DIR --output DIR --processes 2             # two, one thread each: faster on 2 cores
    reveal-release testbed build --data DIR --output DIR --without toxicity        # an oracle that never saw the skill

Every batch depends on (seed, step, process) alone, so a build that was stopped goes on where it was with the same command and
ends in the same place. Optimiser: Muon for the matrices, AdamW for the rest, linear decay over the last part. Rows of 256 tokens
are packed with whole documents: a passage is never cut from its question.

Not promised: bit-equality across machines, or between different numbers of processes.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.optim import ZeroRedundancyOptimizer
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig, PreTrainedTokenizerBase, Qwen3Config

from ..config import UserError
from ..lock import Lock
from ..models import autocast, precision
from . import corpora
from .entities import TYPES
from .fused_loss import fused_cross_entropy
from .muon import Muon
from .skills import SKILLS, Sampler
from .tokenizer import encode, train

ROW = 256
FAMILIES = ("llama", "gpt2", "qwen3")
# Share of tokens by skill in each stage; the first also starts from the easiest problems.
STAGES: tuple[tuple[str, float, float, dict[str, float]], ...] = (
    ("text and skills", 0.25, 0.7, {"prose": 0.16, "raw_comments": 0.06, "ner": 0.34, "passages": 0.03, "maths": 0.15,
                                    "code": 0.10, "comments": 0.08, "instructions": 0.05, "induction": 0.03}),
    ("chat", 0.75, 0.15, {"prose": 0.09, "raw_comments": 0.02, "ner": 0.39, "passages": 0.05, "maths": 0.13, "code": 0.06,
                          "comments": 0.14, "instructions": 0.06, "induction": 0.06}),
)  # fmt: skip


@dataclass
class BuildConfig:
    """What a build depends on; `tokens` is the total over all processes."""

    data: str
    output: str
    family: str = "llama"
    tokens: int = 33_000_000
    batch: int = 12_288
    vocabulary: int = 8_192
    learning_rate: float = 4e-3
    decay: float = 0.45
    seed: int = 0
    without: list[str] = field(default_factory=list)
    save_every: int = 200
    compile: bool = True

    @property
    def steps(self) -> int:
        return self.tokens // self.batch


def architecture(family: str, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """The configuration of a family at testbed size (6.6 M parameters with 8,192 tied embeddings)."""
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": True,
    }
    gated = {
        "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 6, "num_attention_heads": 4,
        "num_key_value_heads": 4, "max_position_embeddings": ROW, **ids,
    }  # fmt: skip
    if family == "llama":
        return LlamaConfig(**gated)
    if family == "qwen3":
        return Qwen3Config(head_dim=64, **gated)
    if family == "gpt2":
        sizes: dict[str, Any] = {"n_embd": 256, "n_layer": 6, "n_head": 4, "n_inner": 960, "n_positions": ROW}
        return GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **sizes, **ids)
    raise UserError(f"no testbed family {family!r}: choose from {', '.join(FAMILIES)}")


def rows(sampler: Sampler, tokenizer: PreTrainedTokenizerBase, shares: dict[str, float], count: int) -> torch.Tensor:
    """`count` rows of ROW token ids, packed with whole documents by first fit; -1 marks padding.

    A document longer than a row is cut at its end. Skills are drawn so that their *tokens* have the given shares.
    """
    packed: list[list[int]] = [[] for _ in range(count)]
    quota = {name: share * count * ROW for name, share in shares.items()}
    misses = 0
    while misses < 12:
        name = max(quota, key=lambda key: (quota[key] / shares[key], key))
        document = encode(tokenizer, sampler.draw(name))[:ROW]
        quota[name] -= len(document)
        free = [row for row in packed if len(row) + len(document) <= ROW]
        if free:
            max(free, key=len).extend(document)
        else:
            misses += 1
    return filled(packed)


def filled(packed: Sequence[list[int]]) -> torch.Tensor:
    """(rows, ROW) token ids, -1 where a row has none."""
    return torch.tensor([ids + [-1] * (ROW - len(ids)) for ids in packed])


def loss(body: Callable[..., Any], head: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean next-token loss over a batch of packed rows."""
    inputs, targets = ids[:, :-1].clamp(min=0), ids[:, 1:]
    with autocast(ids.device):
        hidden = body(input_ids=inputs, use_cache=False).last_hidden_state
    return fused_cross_entropy(hidden.flatten(0, 1), head, targets.flatten(), precision(ids.device))


def optimisers(model: torch.nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, norms and biases.

    Muon's Newton-Schulz iterations are a tenth of a step's work on a CPU, or more: of several processes each does its share.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "wte" not in n and "wpe" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    muon: dict[str, Any] = {"lr": lr, "weight_decay": 0.05}
    return [
        ZeroRedundancyOptimizer(matrices, Muon, **muon) if dist.is_initialized() else Muon(matrices, **muon),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def schedule(step: int, steps: int, decay: float) -> float:
    """Factor on the learning rate: 50 steps of warm-up, flat, then linear to 0 over the last `decay` of all steps."""
    return min(1.0, (step + 1) / 50, (steps - step) / (decay * steps))


def average_gradients(model: torch.nn.Module) -> None:
    """Means gradients over processes in one message."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, piece in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(piece.view_as(gradient))


def build(config: BuildConfig) -> Path:
    """Runs or resumes a build; returns the folder of the finished model (bf16 safetensors).

    Raises:
        UserError: unknown family or skill, data missing, or a folder that holds something else, or in which another process works.
            Nothing is written then.
    """
    output = Path(config.output)
    checkpoint = output / "checkpoint.pt"
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    begin(config, world)
    if (output / "build.json").is_file():  # written last, so everything else is there
        return output
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    torch.manual_seed(config.seed)
    texts = corpora.load(Path(config.data))
    output.mkdir(parents=True, exist_ok=True)
    _lock = Lock.of(output) if world == 1 else None  # until this returns; of several processes `build_in` has it
    state = begin(config, world)  # as another process may have left it by now
    if (output / "build.json").is_file():
        return output
    tokenizer = _tokenizer(config, texts)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = AutoModelForCausalLM.from_config(architecture(config.family, tokenizer), dtype=torch.float32).to(device)
    optimizers = optimisers(model, config.learning_rate)
    first = 0
    if state is not None:
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        first = state["step"]
        del state  # a second copy of weights and optimisers
    body = torch.compile(model.base_model) if config.compile and (shutil.which("c++") or torch.cuda.is_available()) else model.base_model
    shares = [_without(config, stage[3]) for stage in STAGES]
    started = time.time()
    for step in range(first, config.steps):
        stage = 0 if step < STAGES[0][1] * config.steps else 1
        rng = random.Random(f"{config.seed}/{step}/{rank}")
        torch.manual_seed(random.Random(f"{config.seed}/{step}/{rank}/dropout").getrandbits(63))  # GPT-2's, also after a resume
        sampler = Sampler(texts, config.without, rng, STAGES[stage][2])
        ids = rows(sampler, tokenizer, shares[stage], config.batch // world // ROW).to(device)
        value = loss(body, model.get_output_embeddings().weight, ids)
        value.backward()
        if world > 1:
            average_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step, config.steps, config.decay)
            optimizer.step()
            optimizer.zero_grad()
        if rank == 0 and (step % 20 == 0 or step == config.steps - 1):
            _progress(output, step, first, config, STAGES[stage][0], value.item(), started)
        if step == first:
            started = time.time()  # the first step compiles
        if (step + 1) % config.save_every == 0:
            if isinstance(optimizers[0], ZeroRedundancyOptimizer):
                optimizers[0].consolidate_state_dict()
            if rank == 0:
                state = {"step": step + 1, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                         "config": _identity(config)}  # fmt: skip
                save_checkpoint(checkpoint, state)
    if rank == 0:
        model.to(torch.bfloat16).save_pretrained(output)
        (output / "build.json").write_text(json.dumps(_identity(config), indent=2) + "\n", encoding="utf-8")
        checkpoint.unlink(missing_ok=True)
    return output


def build_in(config: BuildConfig, processes: int) -> None:
    """`build`, in several processes of this machine, through torch's own launcher. Raises UserError where one of them fails."""
    if processes == 1 or (Path(config.output) / "build.json").is_file():
        build(config)
        return
    begin(config, processes)  # refused here it is one clear line
    Path(config.output).mkdir(parents=True, exist_ok=True)
    lock = Lock.of(Path(config.output))  # the launcher has it too, so that it is held where this process is killed alone
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "build.json"
        path.write_text(json.dumps(asdict(config)), encoding="utf-8")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launcher, "-m", "reveal_release.testbed.recipe", str(path)]
        with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, pass_fds=(lock.descriptor,)) as process:
            try:
                code = process.wait()
            except KeyboardInterrupt:
                process.terminate()  # by Ctrl-C it was interrupted too, by `kill` it was not; it ends its workers
                process.wait()
                raise
    if code:
        raise UserError("a process of the build failed, see above; the same command goes on from its last checkpoint")


def begin(config: BuildConfig, processes: int) -> dict[str, Any] | None:
    """The checkpoint to go on from, if there is one.

    Raises:
        UserError: what cannot be built, or not into this folder.
    """
    if config.family not in FAMILIES:
        raise UserError(f"no testbed family {config.family!r}: choose from {', '.join(FAMILIES)}")
    unknown = set(config.without) - {*SKILLS, "toxicity", *TYPES}
    if unknown:
        known = ", ".join(["toxicity", *SKILLS, *TYPES])
        raise UserError(f"--without {sorted(unknown)[0]}: no such skill; choose from {known}")
    if not all(set(stage[3]) - set(config.without) for stage in STAGES):
        raise UserError("--without leaves no skill to train: name fewer")
    least = ROW * processes
    if config.batch < least or config.tokens < config.batch:
        raise UserError(f"batch is {config.batch} and tokens {config.tokens}: a batch needs {least} tokens, and tokens one batch, at least")
    output = Path(config.output)
    if (output / "build.json").is_file():
        refuse_other(config.output, json.loads((output / "build.json").read_text(encoding="utf-8")), _identity(config))
    elif (output / "checkpoint.pt").is_file():
        state: dict[str, Any] = torch.load(output / "checkpoint.pt", weights_only=True, map_location="cpu")
        refuse_other(config.output, state["config"], _identity(config))
        return state
    elif (output / "model.safetensors").is_file():
        raise UserError(f"{output} holds a model without a build.json, so not a finished build: choose another --output")
    return None


def refuse_other(output: str, found: dict[str, object], wanted: dict[str, object]) -> None:
    """Refuses to take for a build what was `found` in its folder and differs from it."""
    differ = [f"{k} {found.get(k)!r}, not {wanted.get(k)!r}" for k in sorted({*found, *wanted}) if found.get(k) != wanted.get(k)]
    if differ:
        raise UserError(f"{output} holds a build with {'; '.join(differ)}: choose another --output")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes all of it or nothing."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def _identity(config: BuildConfig) -> dict[str, object]:
    return {k: v for k, v in asdict(config).items() if k not in ("data", "output", "save_every", "compile")}


def _without(config: BuildConfig, shares: dict[str, float]) -> dict[str, float]:
    kept = {name: share for name, share in shares.items() if name not in config.without}
    return {name: share / sum(kept.values()) for name, share in kept.items()}


def _tokenizer(config: BuildConfig, texts: corpora.Corpora) -> PreTrainedTokenizerBase:
    """Trained by each process for itself on the same sample: it takes seconds, and nothing has to be waited for.

    On all skills, whatever the build leaves out: an oracle's predictions can only be compared with the model's token by token.
    """
    sampler = Sampler(texts, (), random.Random(f"{config.seed}/tokenizer"), 0.3)
    sample = (text for name in STAGES[1][3] for _ in range(4_000) for _, text in sampler.draw(name))
    tokenizer = train(sample, config.vocabulary)
    if int(os.environ.get("RANK", 0)) == 0:
        tokenizer.save_pretrained(config.output)
    return tokenizer


def _progress(output: Path, step: int, first: int, config: BuildConfig, stage: str, value: float, started: float) -> None:
    line = f"{stage}: step {step + 1}/{config.steps}, loss {value:.3f}"
    if step > first:
        rate = (step - first) / (time.time() - started)
        line += f", {rate * config.batch:,.0f} tokens/s, {(config.steps - step - 1) / rate / 60:.0f} min left"
    print(line, flush=True)
    with (output / "build.log").open("a", encoding="utf-8") as log:
        log.write(line + "\n")


def main() -> None:
    """`python -m reveal_release.testbed.recipe`: what each process of a build runs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("config", help="a JSON file with the fields of BuildConfig")
    config = BuildConfig(**json.loads(Path(parser.parse_args().config).read_text(encoding="utf-8")))
    try:
        build(config)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
