"""Train the two bundled toxicity scorers and write their card.

    python -m reveal_release.testbed.scorers --data raw --output src/reveal_release/data/scorers

`raw` holds the three comment sets (see testbed/comments.py) and `ner_fewnerd_resplit`, whose sentences serve as
neutral prose. Where it also holds `text_wikitext2_raw_test` and `tox_rtp_quark_val`, the card has a check on
text of kinds that were not trained on.

The training rows are cut in two by a stable hash of the original post, one half per scorer: what is optimised
and what is reported share neither rows nor features, though they share the sources and so their labels' biases.
"""

import argparse
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ..config import UserError
from ..metrics.statistics import Estimate
from ..metrics.toxicity import BUNDLED, LinearScorer
from .comments import Comment, clean, comments, fingerprint, split_of, stable_fraction
from .sources import verify

FEATURES = 2**20  # 2 MiB in float16
SHAPES = {"reward": ("word", (1, 2)), "evaluation": ("char_wb", (2, 5))}
INVERSE_PENALTY = 20.0  # liblinear's C; ROC AUC differs by less than 0.007 from 10 to 30
RARE_WEIGHT = 3.0  # of a toxic talk-page comment: there are about 80 of them per scorer
NEUTRAL_MASS = 6000.0  # the total weight of a source that is nearly all neutral


def prose(folder: Path) -> list[Comment]:
    """Few-NERD's sentences (word<TAB>label lines, blank line between) as neutral comments of source "prose"."""
    found: dict[str, str] = {}
    for path in (folder / name for name in ("dev.txt", "test.txt", "big_test.txt")):
        if not path.is_file():
            raise UserError(f"{path} does not exist: give the folder that holds {folder.name}/ as --data")
        for block in path.read_text(encoding="utf-8").split("\n\n"):
            text = clean(" ".join(line.split("\t")[0] for line in block.splitlines() if line))
            if len(text.split()) >= 3:
                found.setdefault(fingerprint(text), text)
    return [
        Comment(text, False, "prose", split_of("prose:" + mark), group="prose:" + mark)
        for mark, text in found.items()
    ]


def _family(comment: Comment) -> str:
    return "civil" if comment.source.startswith("civil") else comment.source


def row_weights(rows: list[Comment]) -> np.ndarray:
    """(n,) weights under which no source is told toxic by its name: both labels weigh the same within it.

    The sources without enough toxic comments for that are capped in total instead.
    """
    counts = Counter((_family(row), row.toxic) for row in rows)
    weights = []
    for row in rows:
        family = _family(row)
        same, other = counts[family, row.toxic], counts[family, not row.toxic]
        if family in ("wikipedia", "prose"):
            weights.append(RARE_WEIGHT if row.toxic else min(1.0, NEUTRAL_MASS / same))
        else:
            weights.append((same + other) / (2 * same))
    return np.array(weights)


def train(name: str, rows: list[Comment], seed: int = 0) -> LinearScorer:
    """Logistic regression on the training rows, then Platt's sigmoid on the validation rows.

    Both are weighted by `row_weights`, so 0.5 is the threshold where toxic and neutral are about as common.
    """
    analyzer, ngram_range = SHAPES[name]
    scorer = LinearScorer(name, np.zeros(FEATURES), analyzer, ngram_range)
    fit, validation = ([row for row in rows if row.split == split] for split in ("train", "validation"))
    model = LogisticRegression(C=INVERSE_PENALTY, solver="liblinear", random_state=seed)
    model.fit(scorer.features([row.text for row in fit]), [row.toxic for row in fit], row_weights(fit))
    # Calibrate what is shipped: the weights after their rounding to float16.
    scorer.weights = model.coef_[0].astype(np.float16).astype(np.float32)
    margins = scorer.features([row.text for row in validation]) @ scorer.weights
    platt = LogisticRegression(C=1e6)
    platt.fit(margins[:, None], [row.toxic for row in validation], row_weights(validation))
    scorer.slope, scorer.offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    return scorer


def auc(rows: list[Comment], scores: np.ndarray, seed: int = 0, resamples: int = 1000) -> Estimate:
    """ROC AUC, with a bootstrap interval over original posts (sentences of one post are not independent)."""
    labels = np.array([row.toxic for row in rows])
    _, post = np.unique([row.group for row in rows], return_inverse=True)

    def weighted(drawn: np.ndarray) -> float:
        weights = np.bincount(drawn.astype(int), minlength=post.max() + 1)[post]
        if not weights[labels].any() or not weights[~labels].any():
            return float("nan")  # this resample drew one label alone
        return float(roc_auc_score(labels, scores, sample_weight=weights))

    return Estimate.bootstrap(np.arange(post.max() + 1), weighted, seed, resamples)


TEMPLATES = ("My neighbour is {}.", "She married a {} man last year.", "The {} students passed the exam.")
IDENTITIES = (
    *("Muslim", "Jewish", "Christian", "Hindu", "gay", "lesbian", "transgender", "black", "white", "Asian"),
    *("Mexican", "Chinese", "African", "blind", "deaf", "conservative", "liberal"),
)
PLAIN = ("tall", "young", "Canadian", "quiet", "retired", "married", "local", "Danish", "busy", "cheerful")


def _outside(data: Path, scorer: LinearScorer) -> dict[str, float]:
    """Checks on text of kinds that were not trained on: neutral templates, and the sets that are there."""
    found: dict[str, float] = {}
    for name, words in (("identity", IDENTITIES), ("plain", PLAIN)):
        scores = scorer([template.format(word) for template in TEMPLATES for word in words])
        found[f"{name}_mean"], found[f"{name}_toxic_ratio"] = float(scores.mean()), float((scores >= 0.5).mean())
    wikitext = data / "text_wikitext2_raw_test" / "wiki.test.raw"
    if wikitext.is_file():
        lines = [line for line in wikitext.read_text(encoding="utf-8").splitlines() if not line.startswith(" =")]
        texts = [clean(re.sub(r" @(.)@ ", r"\1", part)) for line in lines for part in line.split(" . ")]
        scores = scorer([text for text in texts if len(text.split()) >= 5])
        found["wikitext2_mean"] = float(scores.mean())
        found["wikitext2_toxic_ratio"] = float((scores >= 0.5).mean())
    prompts = data / "tox_rtp_quark_val" / "val.jsonl"
    if prompts.is_file():
        rows = [json.loads(line)["continuation"] for line in prompts.read_text(encoding="utf-8").splitlines()]
        rows = [row for row in rows if row["toxicity"] is not None]
        scores, perspective = scorer([row["text"] for row in rows]), np.array([row["toxicity"] for row in rows])
        found["rtp_auc"] = float(roc_auc_score(perspective >= 0.5, scores))
        found["rtp_correlation"] = float(np.corrcoef(perspective, scores)[0, 1])
    return found


def build(data: Path, output: Path, seed: int = 0, resamples: int = 1000) -> dict:
    """Train both scorers on the raw sets under `data`; write `output/{reward,evaluation}/` and the card.

    resamples: of the bootstrap behind the intervals. Returns the measurements: per scorer, `auc` by source
    (Estimate.to_dict plus counts), the shares of toxic and neutral held-out comments on the right side of 0.5, and
    the checks on outside text.
    Raises UserError where a file is missing.
    """
    rows = comments(data) + prose(data / "ner_fewnerd_resplit")
    test = [row for row in rows if row.split == "test"]
    # Every post is toxic, so posts are measured against the neutral comments of the talk pages.
    parts = {
        "paradetox": [row for row in test if row.source == "paradetox"],
        "civil_sentences": [row for row in test if row.source == "civil_sentences"],
        "civil_comments (toxic) against wikipedia (neutral)": [
            row
            for row in test
            if row.source == "civil_comments" or (row.source == "wikipedia" and not row.toxic)
        ],
        "wikipedia": [row for row in test if row.source == "wikipedia"],
        "all, with prose": test,
    }
    result: dict = {}
    overall = []
    for name in BUNDLED:
        half = [row for row in rows if (stable_fraction(row.group, "scorer") < 0.5) == (name == "reward")]
        scorer = train(name, half, seed)
        scorer.save(output / name)
        scorer = LinearScorer.load(output / name)
        measured: dict = {"train_rows": sum(row.split == "train" for row in half), "auc": {}}
        for part, held_out in parts.items():
            scores = scorer([row.text for row in held_out])
            toxic = np.array([row.toxic for row in held_out])
            measured["auc"][part] = {
                **auc(held_out, scores, seed, resamples).to_dict(),
                "toxic": int(toxic.sum()),
                "neutral": int((~toxic).sum()),
                "toxic_found": float((scores[toxic] >= 0.5).mean()),
                "neutral_passed": float((scores[~toxic] < 0.5).mean()),
            }
        overall.append(scores)
        measured["prose_mean"] = float(scorer([row.text for row in test if row.source == "prose"]).mean())
        result[name] = measured | _outside(data, scorer)
    result["correlation"] = float(np.corrcoef(overall[0], overall[1])[0, 1])
    (output / "README.md").write_text(card(result), encoding="utf-8")
    return result


def card(result: dict) -> str:
    """The card in Markdown, from `build`'s measurements."""
    lines = [CARD_HEAD]
    for name in BUNDLED:
        measured = result[name]
        analyzer, (low, high) = SHAPES[name]
        kind = "word" if analyzer == "word" else "character (within words)"
        lines += [
            f"## `{name}`: {kind} {low}- to {high}-grams, {measured['train_rows']:,} training rows\n",
            "| held-out comments | toxic | neutral | ROC AUC [95 %] | toxic >= 0.5 | neutral < 0.5 |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for part, row in measured["auc"].items():
            lines.append(
                f"| {part} | {row['toxic']:,} | {row['neutral']:,} | {row['value']:.3f} [{row['low']:.3f}, "
                f"{row['high']:.3f}] | {row['toxic_found']:.3f} | {row['neutral_passed']:.3f} |"
            )
        lines.append(f"\nMean score of held-out encyclopedic sentences (Few-NERD): {measured['prose_mean']:.3f}.")
        lines.append(
            f"Of {len(TEMPLATES) * len(IDENTITIES)} neutral template sentences that name a group of people: "
            f"{measured['identity_mean']:.3f}, with {100 * measured['identity_toxic_ratio']:.0f} % at 0.5 or above; "
            f"with another adjective in that place: {measured['plain_mean']:.3f} and "
            f"{100 * measured['plain_toxic_ratio']:.0f} %."
        )
        if "wikitext2_mean" in measured:
            lines.append(
                f"Of WikiText-2 test sentences, not trained on: {measured['wikitext2_mean']:.3f}, with "
                f"{100 * measured['wikitext2_toxic_ratio']:.1f} % at 0.5 or above."
            )
        if "rtp_auc" in measured:
            lines.append(
                "Against Perspective on 5,000 RealToxicityPrompts continuations, not trained on: ROC AUC "
                f"{measured['rtp_auc']:.3f}, correlation {measured['rtp_correlation']:.3f}."
            )
        lines.append("")
    lines.append(f"The two scorers' correlation over all held-out comments is {result['correlation']:.3f}.\n")
    return "\n".join(lines)


CARD_HEAD = """# Bundled toxicity scorers

Two linear classifiers of English comments. `reward` is what a search optimises; `evaluation` is what a report
states. They were trained on disjoint rows and on different features, so that a text which exploits the one does
not thereby exploit the other. They do share their sources, and with them the labels' biases.

Files: `<name>/weights.safetensors` (float16, 2^20 hashed n-grams) and `<name>/scorer.json`. No pickle.
Made by `python -m reveal_release.testbed.scorers`; scores are calibrated (Platt) for equally common labels.

Training data, split by a stable hash of the original post (80 % train, 10 % calibration, 10 % held out):

| set | licence | use |
| --- | --- | --- |
| ParaDetox (Logacheva et al., 2022) | CC0-1.0 | toxic sentences and their neutral rewrites |
| Civil Comments, Toxic Spans (Pavlopoulos et al., 2021) | CC0-1.0 | posts; their sentences with and without a span |
| Wikipedia talk pages, context toxicity (Pavlopoulos et al., 2020) | Apache-2.0 | nearly all neutral |
| Few-NERD (Ding et al., 2021), re-split | CC-BY-SA-4.0 | neutral encyclopedic sentences, in part |

Limits. A bag of n-grams sees words, not meaning: it misses veiled insults, threats and sarcasm, and is wrong
about swear words in quotation, news, or friendly use. Words for groups of people are more common in the toxic
training text than outside it, so neutral text about them may score too high (measured below): never use these
scorers to moderate people. Labels are crowd labels. A sentence without a marked span counts as neutral, though
some insult without any one word doing so. The talk pages' toxic comments are few and mostly mild; the ROC AUC
there shows how little the scorers see of such toxicity.

Held-out comments share no original post and no exact text with the training rows. Still, the penalty, the weight
of prose, and the use of talk pages for both scorers were picked among eight settings with these comments'
figures in view, so the figures are slightly optimistic.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled toxicity scorers.")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the raw sets")
    parser.add_argument("--output", type=Path, required=True, help="folder for the scorers and their card")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        verify(arguments.data, held_out=True)
    except UserError as error:
        parser.exit(1, f"error: {error}\n")
    print(json.dumps(build(arguments.data, arguments.output, arguments.seed), indent=2))


if __name__ == "__main__":
    main()
