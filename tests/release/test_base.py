"""The fingerprint of a base."""


import torch
from peft import LoraConfig, get_peft_model

from reveal_release.release.base import fingerprint
from reveal_release.release.patch import Patch
from reveal_release.release.runtime import applied, merge_

from .conftest import random_patch, tiny


def test_fingerprint_tells_bases_apart_and_nothing_else():
    model = tiny("llama")
    print_ = fingerprint(model)
    assert print_ == fingerprint(tiny("llama")) and len(print_) == 64
    assert print_ != fingerprint(tiny("llama", seed=1)) and print_ != fingerprint(tiny("gpt2"))
    # float32 and bfloat16 loads of one checkpoint are one base; a wrapper and a hook change nothing.
    assert print_ == fingerprint(tiny("llama").to(torch.bfloat16))
    with applied(model, random_patch(model, "llama", 1)):
        assert fingerprint(model) == print_
    wrapped = get_peft_model(tiny("llama"), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert fingerprint(wrapped) == print_
    # One module merged in one layer is another base.
    one = random_patch(model, "llama", 1)
    name = "model.layers.1.self_attn.v_proj"
    merge_(model, Patch({name: one[name]}).scale(0.01))
    assert fingerprint(model) != print_
