"""Finding and loading models: names, dtypes, and what begins and ends the texts of each, with a template or without."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertForMaskedLM,
    BertForSequenceClassification,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from reveal_release import shipped
from reveal_release.chat import chat_ids, cut_user_turns, text_bos
from reveal_release.config import UserError, first_line
from reveal_release.generation import Sampling, generate
from reveal_release.models import LanguageModel, answered_ids, autocast, load_model, padded, place, precision, resolve, save_model

TURNS = [("user", "Name the river."), ("assistant", "The old one."), ("user", "And the bridge?")]


@pytest.fixture
def package(tmp_path: Path, tiny_llama: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder with one testbed and one folder that only looks like one."""
    shutil.copytree(tiny_llama, tmp_path / "data" / "testbed-small")
    (tmp_path / "data" / "testbed-empty").mkdir()
    monkeypatch.setattr(shipped, "files", lambda _: tmp_path)
    return tmp_path


def test_testbeds_are_the_model_folders_of_the_package(package: Path) -> None:
    assert shipped.testbeds() == {"testbed-small": package / "data" / "testbed-small"}
    assert resolve("testbed-small") == str(package / "data" / "testbed-small")
    assert load_model("testbed-small", device="cpu").name == "testbed-small"


def test_unknown_testbed_is_told_the_nearest(package: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'testbed-small'"):
        resolve("testbed-smal")
    with pytest.raises(UserError, match="testbeds here: testbed-small"):
        resolve("./nowhere/at/all")


def test_folders_and_hub_names(tiny_llama: str, tmp_path: Path) -> None:
    assert resolve(tiny_llama) == tiny_llama
    assert resolve("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    assert resolve("gpt2") == "gpt2"
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve(str(tmp_path))
    with pytest.raises(UserError, match="no model"):
        resolve(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="model is empty: give a testbed's name"):
        resolve(" ")


def test_a_damaged_folder_is_one_line(tiny_llama: str, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_llama, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot load model") as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_told_so(tiny_llama: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "bare", ignore=shutil.ignore_patterns("token*"))
    with pytest.raises(UserError, match="bare has no tokenizer: save it into that folder as well"):
        load_model(str(folder))


def test_weights_that_are_not_safetensors_are_told_so(tiny_llama: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "old", ignore=shutil.ignore_patterns("*.safetensors"))
    for _ in range(2):
        with pytest.raises(UserError, match="old': it has no weights in safetensors; load it with transformers, and save"):
            load_model(str(folder))
        (folder / "pytorch_model.bin").write_bytes(b"")


def test_another_dtype_is_no_auto(tiny_llama: str) -> None:
    with pytest.raises(UserError, match="dtype is 'float16': give auto, float32, bfloat16"):
        load_model(tiny_llama, "float16", "cpu")


def test_a_loaded_model_is_frozen_in_evaluation_and_left_padded(tiny_llama: str) -> None:
    lm = load_model(tiny_llama, device="cpu")
    assert lm.model.dtype == torch.float32 and lm.device.type == "cpu"
    assert not lm.model.training and not any(p.requires_grad for p in lm.model.parameters())
    assert lm.tokenizer.padding_side == "left" and lm.tokenizer.pad_token_id is not None
    assert load_model(tiny_llama, "bfloat16", "cpu").model.dtype == torch.bfloat16


def test_a_model_that_carries_an_adapter_is_told(tiny_llama: str, tmp_path: Path) -> None:
    """Its modules would be taken off with those of the training."""
    folder = tmp_path / "tuned"
    shutil.copytree(tiny_llama, folder)
    get_peft_model(load_model(tiny_llama, device="cpu").model, LoraConfig(target_modules=["q_proj"])).save_pretrained(folder)
    with pytest.raises(UserError, match="tuned is an adapter on another model: merge it"):
        load_model(str(folder), device="cpu")
    (folder / "config.json").unlink()  # as where PEFT wrote the adapter alone
    with pytest.raises(UserError, match="tuned is an adapter on another model: merge it"):
        resolve(str(folder))


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForMaskedLM, LlamaForSequenceClassification])
def test_a_model_that_does_not_write_is_told(kind: Any, tiny_llama: str, tmp_path: Path) -> None:
    """transformers loads them all, with new weights where it finds none, or reading both ways."""
    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    kind(kind.config_class(**sizes, pad_token_id=0, initializer_range=0.5)).save_pretrained(tmp_path)
    load_model(tiny_llama, device="cpu").tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is no causal language model"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("kind", ["rwkv", "recurrent_gemma"])
def test_a_model_that_reads_its_padding_is_told(kind: str, tiny_llama: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(tmp_path)
    load_model(tiny_llama, device="cpu").tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"cannot answer several prompts at once: models of its kind \({kind}\) read the padding"):
        load_model(str(tmp_path), device="cpu")


def configured(folder: Path, **changed: Any) -> str:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    return str(folder)


@pytest.fixture
def own(tiny_llama: str, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be changed."""
    return Path(shutil.copytree(tiny_llama, tmp_path / "own"))


def test_quantised_weights_are_refused_before_they_are_read(own: Path) -> None:
    (own / "model.safetensors").unlink()
    with pytest.raises(UserError, match="own is quantised: give the model that it was made of"):
        load_model(configured(own, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}), device="cpu")


@pytest.mark.parametrize(
    "kind, told",
    [(GatedRepoError, "owner/name is gated: accept its licence at"), (RepositoryNotFoundError, "owner/name is neither a folder here nor")],
)
def test_a_model_that_the_hub_keeps_back_is_told(kind: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("You are trying to access a gated repo.\nMake sure to have access to it") from kind.__new__(kind)  # has no response

    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    with pytest.raises(UserError, match=told):
        load_model("owner/name", device="cpu")


def test_what_a_user_is_to_know_of_a_model_is_remarked(own: Path) -> None:
    lm = load_model(str(own), device="cpu")
    lm.tokenizer.chat_template = "{{ messages[0]['content'] }}"
    assert lm.remarks == []
    thinking = load_model(str(own), device="cpu")
    thinking.tokenizer.chat_template = "{{ messages[0]['content'] }}{% if enable_thinking %}<think>{% endif %}"
    assert thinking.remarks == ["The base can think before it answers: released and measured with thinking off."]
    part = load_model(configured(own, architectures=["LlamaForConditionalGeneration"]), device="cpu")
    part.tokenizer.chat_template = None
    text, plain = part.remarks
    assert text.startswith("Of the base, a LlamaForConditionalGeneration, only the text part was loaded, a LlamaForCausalLM.")
    assert plain.startswith("The base has no chat template, so it is asked in plain text")


def test_what_a_model_that_sees_has_beside_its_tokenizer_is_saved_too(own: Path, tmp_path: Path) -> None:
    (own / "preprocessor_config.json").write_text('{"do_resize": true}')
    save_model(load_model(str(own), device="cpu"), tmp_path / "text")
    save_model(load_model(configured(own, vision_config={"hidden_size": 8}), device="cpu"), tmp_path / "seeing")
    assert not (tmp_path / "text" / "preprocessor_config.json").exists(), "of no use to a model that reads text alone"
    assert (tmp_path / "seeing" / "preprocessor_config.json").read_text() == '{"do_resize": true}'


def test_a_model_that_cannot_help_thinking_is_refused(own: Path) -> None:
    lm = load_model(str(own), device="cpu")
    lm.tokenizer.chat_template = "{{ messages[0]['content'] }}{% if add_generation_prompt %}<think>\n{% endif %}"
    lm.tokenizer.save_pretrained(own)
    with pytest.raises(UserError, match="own thinks before each answer, and its chat template cannot ask it not to"):
        load_model(str(own), device="cpu")


def test_a_model_that_is_broken_or_too_small_for_its_tokenizer_is_told(tiny_llama: str, tmp_path: Path) -> None:
    lm = load_model(tiny_llama, device="cpu")
    lm.tokenizer.save_pretrained(tmp_path)
    lm.model.resize_token_embeddings(300)
    lm.model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has 396 tokens and the model 300: give it its own tokenizer"):
        load_model(str(tmp_path), device="cpu")
    lm.model.get_input_embeddings().weight.data.fill_(torch.nan)
    lm.model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="hold NaN or infinity"):
        load_model(str(tmp_path), device="cpu")


def test_padding_is_the_end_where_a_tokenizer_has_none(tiny_llama: str, tmp_path: Path) -> None:
    lm = load_model(tiny_llama, device="cpu")
    lm.tokenizer.pad_token = None
    lm.tokenizer.save_pretrained(tmp_path)
    lm.model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), device="cpu")
    assert again.tokenizer.pad_token_id == again.tokenizer.eos_token_id


def test_padding_that_was_added_to_the_tokenizer_alone_is_not_used(tiny_llama: str, tmp_path: Path) -> None:
    lm = load_model(tiny_llama, device="cpu")
    rows = len(lm.model.get_input_embeddings().weight)
    lm.tokenizer.add_tokens([f"[{i}]" for i in range(len(lm.tokenizer), rows)])
    lm.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert lm.tokenizer.pad_token_id == rows
    lm.tokenizer.save_pretrained(tmp_path)
    lm.model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), device="cpu")
    prompts = [TURNS[:1], TURNS]
    texts = generate(again, prompts, Sampling(6, temperature=0.0), [0, 0])
    assert texts == generate(load_model(tiny_llama, device="cpu"), prompts, Sampling(6, temperature=0.0), [0, 0])


def test_a_models_own_code_is_not_run_whatever_is_answered(tiny_llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    named = {"AutoConfig": "conf.Own", "AutoModelForCausalLM": "conf.Own"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": named}))
    (folder / "conf.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(UserError, match="cannot load model"):
        load_model(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_of_another_version_is_one_line(tiny_llama: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"] = {"type": "unheard of"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="cannot load model"):
        load_model(str(folder))


def test_the_end_of_a_turn_is_the_templates(lm: LanguageModel) -> None:
    """Gemma's and Phi-3's tokenizers name the end of a text as their end, and their templates end a turn otherwise."""
    tokenizer = lm.tokenizer
    assert lm.ends == [tokenizer.eos_token_id] == lm.end
    turn = tokenizer.convert_tokens_to_ids("<|bos|>")
    lm.model.generation_config.eos_token_id = [tokenizer.eos_token_id, turn]
    other = LanguageModel(lm.name, lm.path, lm.model, tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|bos|>{% endfor %}"
    assert (other.ends, other.end) == ([tokenizer.eos_token_id, turn], [turn])
    lm.model.generation_config.eos_token_id = tokenizer.eos_token_id  # as of a base model: it is stopped at the template's end all the same
    other = LanguageModel(lm.name, lm.path, lm.model, tokenizer)
    assert (other.ends, other.end) == ([tokenizer.eos_token_id, turn], [turn])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}.{% endfor %}"  # plain text ends no turn
    other = LanguageModel(lm.name, lm.path, lm.model, tokenizer)
    assert other.ends == other.end == [tokenizer.eos_token_id]
    for default in (None, 50256, -1, 2):  # that of a kind of model: no token of this one, or one that means something else here
        lm.model.generation_config.eos_token_id = default
        assert lm.ends == [*([2] if default == 2 else []), tokenizer.eos_token_id]
        assert set(other.end) <= set(lm.ends)


@pytest.mark.parametrize(("device", "line"), [("gpu", "no device 'gpu'"), ("meta", "no device 'meta'"), ("cuda", "PyTorch finds no GPU")])
def test_a_device_that_is_not_there(device: str, line: str, tiny_llama: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=line):
        load_model(tiny_llama, device=device)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert place("cuda:1") == torch.device("cuda", 1) and place("cuda") == torch.device("cuda")
    with pytest.raises(UserError, match="no device 'cuda:2': PyTorch finds 2 GPUs here, from cuda:0 to cuda:1"):
        place("cuda:2")


def test_weights_that_are_cut_short_or_of_another_model(tiny_llama: str, tmp_path: Path) -> None:
    for number, harm in enumerate((lambda b: b[: len(b) // 2], lambda b: b)):
        folder = tmp_path / str(number)
        shutil.copytree(tiny_llama, folder)
        weights = folder / "model.safetensors"
        weights.write_bytes(harm(weights.read_bytes()))
        if number:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 16, "head_dim": 4}))
        with pytest.raises(UserError, match="cannot load model"):
            load_model(str(folder))


def test_a_tokenizer_without_padding_and_end(tiny_llama: str, tmp_path: Path) -> None:
    lm = load_model(tiny_llama, device="cpu")
    lm.tokenizer.pad_token = lm.tokenizer.eos_token = None
    lm.tokenizer.save_pretrained(tmp_path)
    lm.model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="neither a padding nor an end"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize("able, wanted", [("bf16", torch.bfloat16), ("amx_bf16", torch.bfloat16), ("avx512_bf16", torch.float32)])
def test_products_are_in_bfloat16_where_the_processor_multiplies_matrices_of_it(monkeypatch, able: str, wanted: torch.dtype) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False, able: True})
    cpu = torch.device("cpu")
    with autocast(cpu):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == precision(cpu) == wanted
    assert precision(torch.device("cuda")) == torch.bfloat16, "every GPU that torch still supports"


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m['content'] }}?\n{% endfor %}"])
def test_an_answer_goes_on_from_the_turns(lm: LanguageModel, spaced: PreTrainedTokenizerFast, template: str | None) -> None:
    """After a newline no space is put before it, as there is before a text alone."""
    tokenizer = lm.tokenizer = spaced
    tokenizer.chat_template = template
    alone = tokenizer("No one.", add_special_tokens=False)["input_ids"]
    asked, found = answered_ids(lm, [("user", "Who")], "No one.")
    assert tokenizer.convert_ids_to_tokens(found) == list("No▁one.") and [tokenizer.convert_tokens_to_ids("▁"), *found] == alone
    assert asked == chat_ids(tokenizer, [("user", "Who")])
    assert asked + found == tokenizer(("Who\n" if template is None else "Who?\n") + "No one.", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("text", ["No other bridge.", " led by a space", "", "a\nb", "…"])
def test_an_answer_of_a_tokenizer_without_such_spaces_is_that_of_the_text_alone(lm: LanguageModel, text: str) -> None:
    assert answered_ids(lm, TURNS, text)[1] == lm.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("between, led", [(" ", " "), ("\\n", "\n"), ("", ""), (": ", "")])
def test_the_space_that_a_template_puts_before_an_answer_is_learnt(lm: LanguageModel, between: str, led: str) -> None:
    """As Llama 2's. It is no part of what the template asks with, so the model writes it, and `generate` takes it off."""
    lm.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        f"{{% else %}}{{{{ '{between}' + m['content'] }}}}<|end|>{{% endif %}}{{% endfor %}}"
    )
    asked, found = answered_ids(lm, TURNS, "The new one.")
    assert asked == chat_ids(lm.tokenizer, TURNS) and lm.tokenizer.decode(found) == led + "The new one."
    if between == led:
        history = chat_ids(lm.tokenizer, [*TURNS, ("assistant", "The new one.")], answer=False)
        assert [*asked, *found, lm.tokenizer.eos_token_id] == history
    assert answered_ids(lm, TURNS, "") == (asked, []), "nothing is not begun"


def test_a_plain_text_follows_what_begins_one(lm: LanguageModel) -> None:
    """Qwen's tokenizers name no such token, and most of its configurations do; elsewhere texts are parted by the end of one."""

    def begun() -> LanguageModel:
        return LanguageModel(lm.name, lm.path, lm.model, lm.tokenizer)

    ids = lm.tokenizer("The river.", add_special_tokens=False)["input_ids"]
    bos, end, lm.tokenizer.bos_token = lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id, None
    assert bos != end and begun().begin == [bos] and answered_ids(begun(), (), "The river.") == ([bos], ids)
    lm.model.config.bos_token_id = ids[0]  # a default, of another tokenizer
    assert begun().end == [end]
    assert begun().begin == [] and answered_ids(begun(), (), "The river.") == (ids[:1], ids[1:]), "where a turn ends, no text begins"
    lm.model.config.eos_token_id = [end, lm.tokenizer.pad_token_id]
    assert begun().begin == [lm.tokenizer.pad_token_id], "as in Qwen 3.5's configuration"
    lm.tokenizer.chat_template = None
    assert begun().begin == [end]


TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|bos|>[INST] {{ m['content'] }} [/INST]{% else %}{{ m['content'] }}<|end|>"
    "{% endif %}{% endfor %}"
)


def test_a_turn_ends_where_the_template_ends_it(lm: LanguageModel) -> None:
    """Mistral's user turns end in [/INST] and not in the end of text: a token of its own, or plain text."""
    lm.tokenizer.chat_template = TEMPLATE
    assert lm.ends == [lm.tokenizer.eos_token_id]
    written = "Write a letter. [/INST] Dear all, [INST] And?"
    assert cut_user_turns(lm.tokenizer, [written, "Name the river."]) == ["Write a letter.", "Name the river."]
    lm.tokenizer.add_tokens(["[/INST]"], special_tokens=True)
    fresh = LanguageModel(lm.name, lm.path, lm.model, lm.tokenizer)
    assert fresh.ends == [lm.tokenizer.eos_token_id, lm.tokenizer.convert_tokens_to_ids("[/INST]")]
    lm.tokenizer.chat_template = None
    assert LanguageModel(lm.name, lm.path, lm.model, lm.tokenizer).ends == [lm.tokenizer.eos_token_id]
    assert cut_user_turns(lm.tokenizer, [written]) == [written]


def test_a_turn_that_the_template_does_not_end_ends_where_the_next_begins(lm: LanguageModel) -> None:
    """GLM-4.5 has learnt to write the token that opens the user's turn, and its tokenizer names the end of a text."""
    lm.tokenizer.add_tokens(["<|user|>", "<|assistant|>"], special_tokens=True)
    lm.tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    user, assistant = lm.tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>"])
    lm.model.resize_token_embeddings(len(lm.tokenizer))
    assert (lm.end, lm.ends) == ([user], [lm.tokenizer.eos_token_id, assistant, user])
    assert lm.end_of_text == [lm.tokenizer.eos_token_id]


def test_a_bos_that_opens_a_turn_begins_no_text(lm: LanguageModel) -> None:
    """SmolLM2's tokenizer and configuration name as BOS the token after which a role stands."""
    tokenizer = lm.tokenizer
    named = tokenizer.bos_token_id
    assert text_bos(tokenizer) == named and lm.begin == [named]
    tokenizer.chat_template = (
        "{% for m in messages %}<|bos|>{{ m['role'] }}\n{{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|bos|>assistant\n{% endif %}"
    )
    lm.model.config.bos_token_id = named
    assert text_bos(tokenizer) is None
    assert LanguageModel(lm.name, lm.path, lm.model, tokenizer).begin == [tokenizer.eos_token_id]


def test_an_error_without_words_is_told_by_its_name() -> None:
    assert first_line(ValueError("  one\ntwo")) == "one" and first_line(RuntimeError()) == "RuntimeError"


@given(rows=st.lists(st.lists(st.integers(0, 2**40), max_size=6), min_size=1, max_size=5), value=st.integers(-100, 10))
def test_rows_are_padded_on_the_right(rows: list[list[int]], value: int) -> None:
    found = padded(rows, value)
    longest = max(map(len, rows))
    assert found.dtype == torch.long and found.shape == (len(rows), longest)
    assert found.tolist() == [row + [value] * (longest - len(row)) for row in rows]


@pytest.mark.parametrize(("size", "device", "rows"), [(7e6, "cpu", 256), (7e6, "cuda", 256), (6e8, "cpu", 32), (6e8, "cuda", 128)])
def test_rows_at_once_are_many_where_a_step_takes_as_long_for_few(size: float, device: str, rows: int, lm: LanguageModel) -> None:
    model: Any = SimpleNamespace(num_parameters=lambda: size, device=torch.device(device))
    found = LanguageModel(lm.name, lm.path, model, lm.tokenizer)
    assert found.batch_size == rows
    found.most_rows = 3
    assert found.batch_size == 3
