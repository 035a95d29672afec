"""A step of our Muon against torch's, on a testbed's matrices, in the same process. One Markdown table; seconds.

    python benchmarks/muon.py --threads 1

Both orthogonalise by the same iteration. torch's multiplies in bfloat16 everywhere, ours in `models.precision`. Where that is bfloat16
too, the weights after a step are the same to the bit; in float32 the steps that were taken have a cosine below 1.
"""

import argparse
import time

import torch

from reveal_release.models import load_model, precision
from reveal_release.testbed.muon import Muon
from reveal_release.testbed.recipe import optimisers


def stepped(optimiser: type, weights: list[torch.Tensor], times: int, **settings: object) -> tuple[float, torch.Tensor]:
    """Seconds of the fastest step, and all that the steps have changed."""
    moved = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    torch.manual_seed(0)
    for weight in moved:
        weight.grad = torch.randn_like(weight)
    steps, seconds = optimiser(moved, lr=1e-3, **settings), []
    for _ in range(times):
        started = time.perf_counter()
        steps.step()
        seconds.append(time.perf_counter() - started)
    return min(seconds), torch.cat([(new - old).detach().flatten() for new, old in zip(moved, weights, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed-llama")
    parser.add_argument("--times", type=int, default=3, help="steps, of which the fastest counts")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves torch's default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(options.model, device="cpu").model
    weights = optimisers(model, 1e-3)[0].param_groups[0]["params"]
    slow, expected = stepped(torch.optim.Muon, weights, options.times, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    fast, found = stepped(Muon, weights, options.times)
    same = torch.nn.functional.cosine_similarity(found.double(), expected.double(), dim=0).item()
    print("| matrices | products | torch, s | ours, s | times | cosine |\n|---|---|---|---|---|---|")
    kind = str(precision(torch.device("cpu"))).removeprefix("torch.")
    print(f"| {len(weights)} | {kind} | {slow:.2f} | {fast:.2f} | {slow / fast:.1f} | {same:.5f} |")


if __name__ == "__main__":
    main()
