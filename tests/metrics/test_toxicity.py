"""Bundled scorers, loading of Hugging Face classifiers, and the metrics over scores."""

import json
import subprocess
import sys
import time
from importlib.resources import files

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from reveal_release.config import UserError
from reveal_release.metrics import toxicity
from reveal_release.metrics.toxicity import (
    BUNDLED,
    HuggingFaceScorer,
    LinearScorer,
    expected_max_toxicity,
    load_scorer,
    normalise,
    toxic_label,
)

MILD = ["you are an idiot", "what a stupid and pathetic excuse", "shut up, you ignorant fool"]
KIND = ["thank you for the kind help", "the library opens at nine on Monday", "I moved the page, as you asked"]


@pytest.fixture(scope="module", params=BUNDLED)
def scorer(request):
    return load_scorer(request.param)


def test_bundled_scorers_tell_mild_insults_from_kind_words(scorer):
    scores = scorer(MILD + KIND)
    assert scores.shape == (6,)
    assert (scores[:3] > 0.5).all() and (scores[3:] < 0.5).all()


def test_bundled_scorers_pass_plain_prose(scorer):
    prose = [
        "The river rises in the hills north of the town and flows east for sixty miles.",
        "She studied chemistry at the university before she joined the company in 1987.",
        "The album was released in March and reached number four in the charts",
        "In 1912 the railway was extended to the coast, where a small harbour had been built.",
    ]
    assert scorer(prose).mean() < 0.1


def test_bundled_scorers_stay_within_bounds(scorer):
    odd = ["", "   ", "...!?", "ünïcödé 漢字 🙂", "a" * 5000, "idiot " * 500, "\x00\n\t", "𝓬𝓾𝓻𝓼𝓲𝓿𝓮"]
    scores = scorer(odd)
    assert np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()
    assert (scores[:3] == 0).all()
    assert scorer([]).shape == (0,)


def test_bundled_scorers_are_deterministic_and_see_texts_alone(scorer):
    together = load_scorer(scorer.name)(MILD + KIND)
    alone = np.concatenate([scorer([text]) for text in MILD + KIND])
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_bundled_scorers_do_not_see_typography(scorer):
    scores = scorer(["You're a FOOL, sir!", "youre a fool sir", '"You’re a fool;  sir ."', "YOU'RE a\nfool... sir"])
    assert np.ptp(scores) < 1e-9


def test_bundled_scorers_are_fast(scorer):
    texts = [f"this is comment number {i}, about as long as the comments that are scored here" for i in range(2000)]
    start = time.process_time()
    scorer(texts)
    assert 2000 / (time.process_time() - start) > 2000


def test_bundled_scorers_use_different_features():
    reward, evaluation = (load_scorer(name) for name in BUNDLED)
    assert (reward.name, evaluation.name) == BUNDLED
    assert (reward.analyzer, evaluation.analyzer) == ("word", "char_wb")


def test_bundled_files_are_small_and_hold_no_pickle():
    folder = files("reveal_release") / "data" / "scorers"
    assert (folder / "README.md").is_file()
    for name in BUNDLED:
        found = {entry.name: len(entry.read_bytes()) for entry in (folder / name).iterdir()}
        assert set(found) == {"weights.safetensors", "scorer.json"}
        assert sum(found.values()) < 3 * 2**20


def test_bundled_scorers_need_no_torch():
    program = (
        "import sys; from reveal_release.metrics.toxicity import load_scorer; load_scorer('reward')(['hello there']);"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_normalise():
    assert normalise("Don’t GO to http://x.org/y?z , it's  baaaaad!!! in 1999") == "dont go to its baad in 0"
    assert normalise("f*ck $tupid 5 * 3 #1") == "f*ck $tupid 0 0 0"


def test_linear_scorer_round_trip(tmp_path):
    weights = np.random.default_rng(0).normal(size=64).astype(np.float16)
    scorer = LinearScorer("mine", weights, "word", (1, 2), slope=2.0, offset=-0.5)
    scorer.save(tmp_path / "mine")
    again = load_scorer(str(tmp_path / "mine"))
    np.testing.assert_array_equal(scorer(KIND), again(KIND))
    assert again.name == "mine"


def test_linear_scorer_is_the_calibrated_dot_product():
    scorer = LinearScorer("mine", np.arange(32.0), "word", (1, 1), slope=0.1, offset=-1.0)
    x = scorer.features(KIND).toarray()
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(scorer(KIND), 1 / (1 + np.exp(1 - 0.1 * x @ np.arange(32.0))), rtol=1e-6)


@pytest.mark.parametrize("damage", ["format", "json", "weights"])
def test_damaged_linear_scorers_are_user_errors(tmp_path, damage):
    LinearScorer("mine", np.ones(8), "word", (1, 1)).save(tmp_path)
    settings = tmp_path / "scorer.json"
    if damage == "format":
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"format": 99}))
    elif damage == "json":
        settings.write_text("{")
    else:
        (tmp_path / "weights.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UserError, match="scorer"):
        load_scorer(str(tmp_path))


def tiny_classifier(folder, labels, problem_type=None):
    """A random two-layer BERT, saved in `folder`."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "you", "are", "an", "idiot", "thank", "the", "kind"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type=problem_type,
        initializer_range=0.5,
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "labels, problem_type, column, activation",
    [
        (["neutral", "toxic"], None, 1, "softmax"),
        (["hate", "nothate"], "single_label_classification", 0, "softmax"),
        (["severe_toxic", "toxic", "insult"], "multi_label_classification", 1, "sigmoid"),
        (["toxicity"], None, 0, "sigmoid"),
    ],
)
def test_hugging_face_classifiers(tmp_path, monkeypatch, labels, problem_type, column, activation):
    model = tiny_classifier(tmp_path / "classifier", labels, problem_type)
    scorer = load_scorer(str(tmp_path / "classifier"))
    assert isinstance(scorer, HuggingFaceScorer)
    monkeypatch.setattr(toxicity, "BATCH", 2)  # so that batches are padded and put back in order
    texts = ["thank you", "you are an idiot", "", "the kind idiot " * 30, "kind"]
    scores = scorer(texts)
    assert scores.shape == (5,) and scores[2] == 0 and (scores >= 0).all() and (scores <= 1).all()
    for i in (0, 1, 3, 4):
        one = scorer.tokenizer([texts[i]], truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**one).logits[0]
        chances = logits.sigmoid() if activation == "sigmoid" else logits.softmax(-1)
        assert scores[i] == pytest.approx(chances[column].item(), abs=1e-5)
    assert scorer([]).shape == (0,)


def test_a_classifier_goes_where_the_model_goes(tmp_path, monkeypatch):
    tiny_classifier(tmp_path / "classifier", ["neutral", "toxic"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_scorer(str(tmp_path / "classifier"), "cpu").device == torch.device("cpu"), "although there is a GPU"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="finds no GPU here"):
        load_scorer(str(tmp_path / "classifier"), "cuda")


def test_a_label_by_name(tmp_path):
    model = tiny_classifier(tmp_path / "classifier", ["joy", "anger", "fear"])
    scorer = HuggingFaceScorer(str(tmp_path / "classifier"), "fear")
    with torch.inference_mode():
        chance = model(**scorer.tokenizer(["kind idiot"], return_tensors="pt")).logits[0].softmax(-1)[2]
    assert scorer(["kind idiot"]) == pytest.approx([chance.item()], abs=1e-5)
    with pytest.raises(UserError, match="no label 'grief': choose from joy, anger, fear"):
        HuggingFaceScorer(str(tmp_path / "classifier"), "grief")


def test_a_decoders_classifier_without_a_padding_token(tmp_path):
    """It reads a text's last token, which padding must not be taken for."""
    words = {word: i for i, word in enumerate(["<end>", "<unk>", "thank", "you", "idiot", "kind"])}
    backend = Tokenizer(WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    config = GPT2Config(vocab_size=6, n_embd=16, n_layer=1, n_head=2, n_positions=32, num_labels=2, initializer_range=0.5,
                        id2label={0: "neutral", 1: "toxic"}, label2id={"neutral": 0, "toxic": 1})  # fmt: skip
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", unk_token="<unk>").save_pretrained(tmp_path)
    texts = ["thank you", "kind idiot thank you kind", "idiot"]
    expected = []
    for text in texts:
        with torch.inference_mode():
            expected.append(model(torch.tensor([[words[word] for word in text.split()]])).logits[0].softmax(-1)[1].item())
    assert load_scorer(str(tmp_path))(texts) == pytest.approx(expected, abs=1e-5)

    for known in (None, 3):  # to the model, of what the tokenizer pads with
        model.config.pad_token_id = known
        model.save_pretrained(tmp_path)
        PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<end>", unk_token="<unk>").save_pretrained(tmp_path)
        assert load_scorer(str(tmp_path))(texts) == pytest.approx(expected, abs=1e-5)

    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="neither a padding nor an end token"):
        load_scorer(str(tmp_path))


def test_a_configuration_that_names_no_longest_text(tmp_path):
    """XLNet's says -1, and its tokenizers mostly nothing."""
    backend = Tokenizer(WordLevel({"<end>": 0, "<unk>": 1, "kind": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    config = XLNetConfig(vocab_size=3, d_model=16, n_layer=1, n_head=2, d_inner=16, num_labels=1, id2label={0: "toxic"})
    XLNetForSequenceClassification(config).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<end>", unk_token="<unk>").save_pretrained(tmp_path)
    assert 0 < load_scorer(str(tmp_path))(["kind " * 600])[0] < 1


def test_a_model_without_the_head_is_no_classifier(tmp_path):
    """It would be random, and another one in each process."""
    model = tiny_classifier(tmp_path / "classifier", ["neutral", "toxic"])
    model.bert.save_pretrained(tmp_path / "classifier")
    with pytest.raises(UserError, match=r"is no classifier, or not all of one: it has no classifier\."):
        load_scorer(str(tmp_path / "classifier"))


def test_classifiers_that_cannot_be_loaded_are_user_errors(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot load the classifier .*: the folder has no config.json"):
        load_scorer(str(tmp_path / "empty"))


def test_a_classifier_with_pickled_weights_is_refused(tmp_path):
    folder = tmp_path / "classifier"
    model = tiny_classifier(folder, ["neutral", "toxic"])
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        load_scorer(str(folder))


def test_a_classifier_without_a_toxic_label_is_refused(tmp_path):
    tiny_classifier(tmp_path / "classifier", ["positive", "negative"])
    with pytest.raises(UserError, match="positive, negative"):
        load_scorer(str(tmp_path / "classifier"))


@pytest.mark.parametrize(
    "labels, expected",
    [
        (["non-toxic", "toxic"], 1),
        (["toxic", "severe_toxic", "identity_hate"], 0),
        (["non-offensive", "offensive"], 1),
        (["not_hate", "hate"], 1),
        (["NOT OFFENSIVE", "OFFENSIVE"], 1),
        (["normal", "hate speech", "offensive"], 2),
        (["LABEL_0", "LABEL_1"], 1),
    ],
)
def test_toxic_label(labels, expected):
    assert toxic_label(dict(enumerate(labels)), "any") == expected


@pytest.mark.parametrize("labels", [["LABEL_0", "LABEL_1", "LABEL_2"], ["non-toxic", "fine"]])
def test_toxic_label_does_not_guess(labels):
    with pytest.raises(UserError, match="looks toxic"):
        toxic_label(dict(enumerate(labels)), "any")


def test_expected_max_toxicity():
    scores = np.array([[0.1, 0.5, 0.2], [0.9, 0.3, 0.8]])
    worst = expected_max_toxicity(scores)
    assert (worst.value, worst.n) == (pytest.approx(0.7), 2)


def test_expected_max_toxicity_needs_two_axes():
    with pytest.raises(UserError, match="prompts, k"):
        expected_max_toxicity([0.1, 0.2])
