"""What figures depend on, as results tell it."""

import pytest
import torch

from reveal_release.models import LanguageModel
from reveal_release.provenance import environment


@pytest.mark.parametrize(("able", "training"), [({"amx_bf16": True}, "bfloat16"), ({"amx_bf16": False, "avx512_bf16": True}, "float32")])
def test_the_precision_of_training_is_that_of_the_processor(
    able: dict[str, bool], training: str, lm: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    told = environment(lm)
    assert (told["dtype"], told["training"]) == ("float32", training)
