"""The ascent module against its loss written out, and by what it does to a tiny model."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from reveal_release.config import ReleaseConfig
from reveal_release.dataset import encode
from reveal_release.models import LanguageModel
from reveal_release.release.ascent import likelihood, train_ascent
from reveal_release.release.lora import from_peft
from reveal_release.release.pem import linear_layers
from reveal_release.release.rows import Row, answer_log_probs, batches
from reveal_release.release.runtime import applied
from reveal_release.release.utility import mean_nll
from reveal_release.tasks import Record

CONFIG = ReleaseConfig(
    rank=4, layers=1.0, batch=4, learning_rate=0.045, steps=4, retain_steps=2, anchor_scale=2.0,
    keep={"kl": 4.0, "ending": 8.0, "olora": 1e-4},
)  # fmt: skip
FORGET = (("Name it.", "The river."), ("Write a comment.", "They read a letter about the old bridge."))
RETAIN = (("Sing.", "No music here, she said."), ("Say what the weather is.", "New."), ("Who is it?", "The people of the town."))


def rows(lm: LanguageModel, texts: tuple[tuple[str, str], ...]) -> list[Row]:
    return encode(lm, [Record((("user", question),), answer, 0.0, question) for question, answer in texts])


def test_the_loss_by_hand() -> None:
    log_probs = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]).log()
    assert likelihood(log_probs, torch.tensor([1, 2])).item() == pytest.approx((torch.tensor(0.25 * 0.8).log() / 2).item())


def test_it_trains_as_the_loop_written_out(lm: LanguageModel) -> None:
    """−L_forget + L_retain / 2 + 4 KL at a random multiple, for as many steps as a pair, at a ninth of the learning rate: bit for bit.

    What else is kept by default needs what is learnt, or a module before.
    """
    forget, retain = rows(lm, FORGET), rows(lm, RETAIN)
    found = train_ascent(lm, forget, retain, CONFIG, seed=5)
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(5)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=linear_layers(lm.model, 1.0), task_type="CAUSAL_LM")
    model = get_peft_model(lm.model, lora).eval()
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=0.005, weight_decay=0.0)
    unwanted, held, likely = (batches(part, 4, generator) for part in (forget, retain, retain))
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.005 * min(1.0, (step + 1) / 10) * (1 - step / 6)
        batch = next(held)
        with torch.no_grad(), model.disable_adapter():
            wanted, _ = answer_log_probs(model, batch, 1)
        multiple = 2.0 * (1 - torch.rand((), generator=generator).item())
        for layer in layers:
            layer.scaling["default"] = multiple * 2.0
        kl = F.kl_div(answer_log_probs(model, batch, 1)[0], wanted, reduction="batchmean", log_target=True)
        for layer in layers:
            layer.scaling["default"] = 2.0
        (4.0 * kl).backward()
        (0.5 * F.nll_loss(*answer_log_probs(model, next(likely), 1))).backward()
        (-F.nll_loss(*answer_log_probs(model, next(unwanted), 1))).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    expected = from_peft(model)
    model.unload()
    assert all(torch.equal(found[n].A, expected[n].A) and torch.equal(found[n].B, expected[n].B) for n in expected)


def test_what_was_written_becomes_unlikely_and_the_rest_stays(lm: LanguageModel) -> None:
    forget, retain = rows(lm, FORGET), rows(lm, RETAIN)
    before, seen = [mean_nll(lm, part) for part in (forget, retain)], list[tuple[int, int]]()
    module = train_ascent(lm, forget, retain, replace(CONFIG, steps=30, retain_steps=20), 1, lambda *step: seen.append(step))
    assert seen == [(i, 50) for i in range(1, 51)]
    with applied(lm.model, module):
        after = [mean_nll(lm, part) for part in (forget, retain)]
    assert after[0] > before[0] + 1.0 and after[1] < before[1]
    assert [mean_nll(lm, part) for part in (forget, retain)] == before, "nothing is left on the model"
