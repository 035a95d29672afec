"""What figures depend on, as results tell it."""

import pytest
import torch

from reveal_release.models import LanguageModel
from reveal_release.provenance import environment, model_identity


@pytest.mark.parametrize(("able", "training"), [({"amx_bf16": True}, "bfloat16"), ({"amx_bf16": False, "avx512_bf16": True}, "float32")])
def test_the_precision_of_training_is_that_of_the_processor(
    able: dict[str, bool], training: str, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    told = environment(lm)
    assert (told["dtype"], told["training"]) == ("float32", training)


def test_a_models_identity_is_also_of_its_configuration(lm: LanguageModel) -> None:
    """The same weights compute something else with other positions or another norm, so no earlier phase may go on with them."""
    before, config = model_identity(lm), lm.model.config
    assert model_identity(lm) == before
    config.rms_norm_eps *= 10
    changed = model_identity(lm)
    config.rope_parameters = {**config.rope_parameters, "rope_theta": 5e5}
    assert len({before, changed, model_identity(lm)}) == 3
