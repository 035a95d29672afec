"""Generation against transformers' own loop, in the same process: the same prompts, batch, seeds and noise. One Markdown table.

    python benchmarks/generation.py --threads 2            # about a minute

Both choose tokens in the same way. transformers' loop carries a row until the whole batch has ended, copies the cache at every token and
reads a prompt as often as it is asked; ours does not (`reveal_release.decoding`). A prompt is asked --samples times, as a search does.
The texts must be the same, up to float rounding between batch shapes.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from reveal_release import RunConfig
from reveal_release.chat import chat_ids
from reveal_release.generation import GumbelSampling, Sampling, generate
from reveal_release.models import LanguageModel, load_model
from reveal_release.tasks import get_task


class Chosen(LogitsProcessor):
    """Leaves only the token that GumbelSampling chooses."""

    def __init__(self, seeds: list[int], sampling: Sampling, length: int) -> None:
        self.choose, self.length = GumbelSampling(torch.tensor(seeds), sampling), length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        token = self.choose(scores, torch.arange(len(scores)), input_ids.shape[1] - self.length)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token[:, None], 0.0)


@torch.inference_mode()
def theirs(lm: LanguageModel, prompts: list[list[int]], sampling: Sampling, seeds: list[int]) -> list[str]:
    pad, length = lm.tokenizer.pad_token_id, max(map(len, prompts))
    ids = torch.tensor([[pad] * (length - len(row)) + row for row in prompts])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in prompts])
    out = lm.model.generate(
        ids, attention_mask=mask, max_new_tokens=sampling.max_new_tokens, do_sample=False, pad_token_id=pad,
        logits_processor=LogitsProcessorList([Chosen(seeds, sampling, length)]),
    )  # fmt: skip
    return [text.strip() for text in lm.tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)]


def fastest(work: Callable[[], Sequence[str]], times: int) -> tuple[float, Sequence[str]]:
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        texts = work()
        seconds.append(time.perf_counter() - started)
    return min(seconds), texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed-llama")
    parser.add_argument("--rows", type=int, default=256, help="prompts in the batch")
    parser.add_argument("--samples", type=int, default=8, help="rows with the same prompt")
    parser.add_argument("--times", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    lm, seeds = load_model(options.model, device="cpu"), list(range(options.rows))
    print("| prompts of | most tokens | transformers, s | ours, s | times | same text |\n|---|---|---|---|---|---|")
    for name in ("toxicity", "ner", "code"):
        task = get_task(name, RunConfig(task=name, model=options.model))
        asked = list(task.evaluation_instructions())
        prompts = [chat_ids(lm.tokenizer, (("user", asked[i // options.samples % len(asked)]),)) for i in seeds]
        slow, expected = fastest(partial(theirs, lm, prompts, task.sampling, seeds), options.times)
        fast, found = fastest(partial(generate, lm, prompts, task.sampling, seeds, len(prompts)), options.times)
        same = sum(a == b for a, b in zip(found, expected, strict=True))
        cells = f"{slow:.2f} | {fast:.2f} | {slow / fast:.1f} | {same} of {len(seeds)}"
        print(f"| {name} | {task.sampling.max_new_tokens} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
