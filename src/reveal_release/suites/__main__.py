"""Measures a model on a public suite from the command line.

    python -m reveal_release.suites Qwen/Qwen3-0.6B --suite humaneval --path HumanEval.jsonl.gz
    python -m reveal_release.suites out/toxicity/model --suite mbpp --limit 100 --k 1,10 --samples 20 --temperature 0.8

Exit codes: 0; 2 for a mistake the user can mend, told in one line; 130 when stopped.
"""

import argparse
import os
import sys

from ..config import UserError
from . import SUITES, CodeSuite, load_suite


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reveal_release.suites", description="Measure a model on HumanEval, MBPP or GSM8K.")
    parser.add_argument("model", help="a folder, or a model's name on the hub")
    parser.add_argument("--suite", required=True, choices=SUITES)
    parser.add_argument("--path", metavar="FILE", help="the suite's file, .jsonl or .jsonl.gz (default: from the hub)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N problems")
    parser.add_argument("--k", type=_numbers, default=(1,), metavar="K,K", help="code: the k of pass@k (default: 1)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="code: completions per problem (default: 1)")
    parser.add_argument("--temperature", type=float, default=0.0, metavar="X", help="0 is greedy (default)")
    parser.add_argument("--max-new-tokens", type=int, default=512, metavar="N", help="length of a completion (default: 512)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--device", default="auto", metavar="NAME")
    parser.add_argument("--allow-unsafe-code", action="store_true", help="run programs even where this machine cannot isolate them")
    options = parser.parse_args(argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its warning about forks, which the sandbox makes
    try:
        _measure(options)
    except UserError as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def _measure(options: argparse.Namespace) -> None:
    suite = load_suite(options.suite, options.path)
    if not isinstance(suite, CodeSuite) and (options.k != (1,) or options.samples != 1):
        raise UserError(f"--k and --samples are for code, and {suite.name} is scored by one answer a problem: leave them out")
    from ..models import load_model
    from .evaluate import code_suite, maths_suite

    lm = load_model(options.model, options.dtype, options.device)
    common = {name: getattr(options, name) for name in ("temperature", "max_new_tokens", "limit", "seed")}
    if isinstance(suite, CodeSuite):
        more = {"k": options.k, "samples": options.samples, "unsafe": options.allow_unsafe_code}
        estimates = code_suite(lm, suite, **common, **more, progress=_show)
    else:
        estimates = {"exact_match": maths_suite(lm, suite, **common, progress=_show)}
    print(f"{'suite':10}  {'metric':12}  {'value':>6}  {'95 % interval':16}  problems")
    for metric, e in estimates.items():
        print(f"{suite.name:10}  {metric:12}  {e.value:6.3f}  [{e.low:.3f}, {e.high:.3f}]    {e.n}")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give whole numbers such as 1,10") from None


def _show(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total}", end="" if done < total else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
