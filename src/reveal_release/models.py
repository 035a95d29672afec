"""A causal language model with its tokenizer: loading it, what ends and begins its texts, dtype and device.

A model is named by a testbed's name, a folder, or its name on the hub, and is treated alike whichever it is. Weights are read
from safetensors only, and a repository's own code is never run.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from .chat import MARK, QUESTION, Turns, asking_ids, begun, chat_text, cut_ids, cut_text, text_bos
from .config import UserError, first_line
from .located import ADAPTER, pinned, refused, snapshot
from .registry import nearest
from .shipped import testbeds

THOUGHT = "<think>"
PROCESSOR = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
"""What a model that sees or hears has beside its tokenizer."""
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.tiktoken", "*.jinja")
"""Of a model on the hub, what is fetched: weights in safetensors, the tokenizer and all configurations."""


@dataclass
class LanguageModel:
    """A model and its tokenizer, ready to generate.

    `path` is what plain `from_pretrained` takes; `stored_as` the class that the model was saved as there, where that is
    known; `most_rows` what memory was found to hold, where that is fewer than `batch_size` takes it for.
    """

    name: str
    path: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    stored_as: str = ""
    most_rows: int | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def arithmetic(self) -> str:
        """What figures of this model depend on besides its weights: `float32 on cpu`."""
        return f"{dtype_name(self.model.dtype)} on {self.device.type}"

    @property
    def ends(self) -> list[int]:
        """The tokens at which generation stops; a chat model has more than one as a rule.

        Those that the model has: a configuration may name the default of its kind, which is none of a smaller vocabulary.
        """
        given = self.model.generation_config.eos_token_id if self.model.generation_config else None
        named = [*(given if isinstance(given, list) else [given]), self.tokenizer.eos_token_id, *self._turn_ends]
        size = len(cast(torch.nn.Embedding, self.model.get_input_embeddings()).weight)
        return [token for token in dict.fromkeys(named) if token is not None and 0 <= token < size]

    @cached_property
    def _turn_ends(self) -> list[int]:
        """The added tokens that end a turn in the template, the user's or the model's: what is written after them is another's turn."""
        if self.tokenizer.chat_template is None:
            return []
        asked = cut_ids(self.tokenizer, (("user", MARK),))
        after = [asked[1] if asked else [], self._after_answer]
        first = [next((token for token in ids if str(self.tokenizer.decode([token])).strip()), None) for ids in after]
        return [token for token in dict.fromkeys(first) if token in self.tokenizer.added_tokens_decoder]

    @cached_property
    def _after_answer(self) -> list[int]:
        """What the template writes after an answer; where that is nothing, what begins the next turn, as GLM-4.5 has learnt to write."""
        if self.tokenizer.chat_template is None:
            return []
        turns: Turns = (*QUESTION, ("assistant", MARK))
        for conversation in (turns, (*turns, *QUESTION)):
            cut = cut_ids(self.tokenizer, conversation, answer=False)
            if cut and str(self.tokenizer.decode(cut[1])).strip():
                return cut[1]
        return []

    @cached_property
    def end(self) -> list[int]:
        """The token that ends the model's turn, which in Gemma's template and Phi-3's is not the tokenizer's end of text; none in some."""
        token = next((one for one in self._after_answer[:1] if one in self.ends), self.tokenizer.eos_token_id)
        return [] if token is None else [token]

    @property
    def end_of_text(self) -> list[int]:
        """The token that ends a plain text: one that ends no turn, where the model has such; none in some."""
        named = [self.tokenizer.eos_token_id, *self.ends]
        return [token for token in named if token in self.ends and token not in self._turn_ends][:1] or self.end

    @cached_property
    def begin(self) -> list[int]:
        """The token that begins a text: where the tokenizer names none, the configuration's, or what ends a text and no turn; else none."""
        if (named_bos := text_bos(self.tokenizer)) is not None:
            return [named_bos]
        config = self.model.config.get_text_config()
        bos, eos = (getattr(config, name, None) for name in ("bos_token_id", "eos_token_id"))
        named = [bos, *(eos if isinstance(eos, list) else [eos]), *self.ends]  # a configuration's default may be any token
        known = self.tokenizer.added_tokens_decoder.keys() - {*self._turn_ends, *asking_ids(self.tokenizer)}
        return [token for token in named if token in known][:1]

    @cached_property
    def lead(self) -> str:
        """The space that the template puts before an answer without asking with it: the model writes it, and `generate` takes it off."""
        asked, cut = chat_text(self.tokenizer, QUESTION), cut_text(self.tokenizer, (*QUESTION, ("assistant", MARK)), answer=False)
        lead = cut[0].removeprefix(asked) if cut and cut[0].startswith(asked) else ""
        return lead if lead.isspace() else ""

    @property
    def part(self) -> str:
        """Where only the text part of the base was loaded, that sentence."""
        kind = type(self.model).__name__
        if not self.stored_as.endswith("ForConditionalGeneration") or self.stored_as == kind:
            return ""
        return (
            f"Of the base, a {self.stored_as}, only the text part was loaded, a {kind}. The patch has that one's names: on the whole "
            "model a server may apply nothing of it without a word, so serve the text part, merged, and look at what it answers."
        )

    @cached_property
    def remarks(self) -> list[str]:
        """What whoever uses a release of this model is to know of how it was loaded and asked: whole sentences, as a rule none."""
        told = [self.part] if self.part else []
        if self.tokenizer.chat_template is None:
            told.append("The base has no chat template, so it is asked in plain text: save that of a chat model with its tokenizer.")
        elif chat_text(self.tokenizer, QUESTION) != chat_text(self.tokenizer, QUESTION, think=True):
            told.append("The base can think before it answers: released and measured with thinking off.")
        return told

    @property
    def context(self) -> int | None:
        """Most tokens that the model reads at once; None where its configuration names no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    @property
    def batch_size(self) -> int:
        """Rows generated at once: many for a small model, whose step is mostly overhead, fewer where the cache is large.

        On a GPU a step of a large one, too, takes about as long for many rows as for few: its weights are read once for all.
        """
        small = self.model.num_parameters() < 200e6
        return self.most_rows or (256 if small else 128 if self.device.type == "cuda" else 32)


def resolve(name: str, wanted: tuple[str, ...] = FILES) -> str:
    """What `from_pretrained` takes for a testbed's name, a folder, or a hub name.

    Of one with a revision (`owner/name@v1`) the files that are `wanted` are fetched.

    Raises:
        UserError: a folder that holds no model, a name that can be neither, or a revision that cannot be fetched.
    """
    if not name.strip():
        raise UserError("model is empty: give a testbed's name, a folder, or a hub name such as Qwen/Qwen3-0.6B")
    bundled = testbeds()
    if name in bundled:
        return str(bundled[name])
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            if (path / ADAPTER).is_file():
                raise of_adapter(name)
            raise UserError(f"{name} is a folder but no model: it has no config.json; give a folder that save_pretrained wrote")
        return name
    repository, revision = pinned(name)
    if name.startswith(("testbed-", ".", "/")) or repository.count("/") > 1 or path.exists():
        hint = nearest(name, bundled, f"testbeds here: {', '.join(bundled) or 'none'}")
        raise UserError(f"no model {name!r}{hint} (or give a folder, or a hub name such as Qwen/Qwen3-0.6B)")
    try:
        return str(snapshot(name, wanted)) if revision else name
    except Exception as error:  # the hub, its network library and the disk each raise their own kinds
        raise refused(name, error, "model") or UserError(f"cannot fetch model {name!r} from the hub: {first_line(error)}") from None


def of_adapter(name: str) -> UserError:
    """What to tell where an adapter is named as a model."""
    return UserError(f"{name} is an adapter on another model: merge it into that (`reveal-release patch merge`; another tool's: PEFT's "
                     "merge_and_unload), and give the result")


def load_model(name: str, dtype: str = "auto", device: str = "auto") -> LanguageModel:
    """Loads a model for inference and adapter training.

    Args:
        dtype: `auto` is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        UserError: it cannot be found or loaded; names the cause and the cure.
    """
    path, where = resolve(name), place(device)
    kinds = {"auto": torch.bfloat16 if where.type == "cuda" else torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in kinds:
        raise UserError(f"dtype is {dtype!r}: give {', '.join(kinds)}")
    try:
        stored = AutoConfig.from_pretrained(path, trust_remote_code=False)
        if getattr(stored, "quantization_config", None):  # a patch would fit these weights alone, and could not be merged
            raise UserError(f"{name} is quantised: give the model that it was made of, in bfloat16 or float32")
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        found: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=kinds[dtype], use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        model, told = cast(tuple[PreTrainedModel, dict[str, Any]], found)
        model.to(where)  # type: ignore[arg-type]  # transformers' decorator hides the signature
    except (UserError, torch.OutOfMemoryError):  # of the latter the command line tells what to do
        raise
    except Exception as error:  # the hub, the tokenizer and the weights each raise their own kinds
        if Path(name).is_dir() and not any(Path(name).glob("token*")):
            raise UserError(f"{name} has no tokenizer: save it into that folder as well (its save_pretrained)") from None
        if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
            cure = "load it with transformers, and save_pretrained it anew"
            raise UserError(f"cannot load model {name!r}: it has no weights in safetensors; {cure}") from None
        if told_off := refused(name, error, "model"):
            raise told_off from None
        cure = f"give {', '.join(testbeds()) or 'a testbed'}, a folder, or a hub name with safetensors"
        if Path(name).is_dir():
            cure = "a file of it is damaged, or its kind is none that transformers knows: save or fetch it again"
        hub = isinstance(error, OSError) and not Path(path).exists()
        where_not = "there is no such folder here, and from the hub: " if hub else ""
        raise UserError(f"cannot load model {name!r}: {where_not}{first_line(error)} ({cure})") from None
    if getattr(model, "_hf_peft_config_loaded", False):  # training would put its modules on those of the adapter, and take both off
        raise of_adapter(name)
    if told["missing_keys"]:  # they would be random
        raise UserError(f"{name} is no causal language model, or not all of one: it has no {min(told['missing_keys'])}; give another")
    known = len(cast(torch.nn.Embedding, model.get_input_embeddings()).weight)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= known:  # the tokenizer has it, the model not
        if tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer of {name!r} has neither a padding nor an end-of-text token: set its eos_token")
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    _try_out(name, model, known)
    if tokenizer.vocab_size > known:  # which does not count what was added to it
        raise UserError(f"the tokenizer of {name!r} has {tokenizer.vocab_size} tokens and the model {known}: give it its own tokenizer")
    lm = LanguageModel(name, path, model, tokenizer, next(iter(stored.architectures or ()), ""))
    if chat_text(tokenizer, QUESTION).rstrip().endswith(THOUGHT):
        raise UserError(
            f"{name} thinks before each answer, and its chat template cannot ask it not to: its thoughts would be measured and forgotten "
            "in place of what it answers; give a model whose template reads enable_thinking"
        )
    return lm


@torch.no_grad()
def _try_out(name: str, model: PreTrainedModel, known: int) -> None:
    """Raises UserError where what the model predicts is no number, or depends on the tokens after it or on padding before it."""
    ids = (torch.arange(32).reshape(4, 8) % 7 % known).to(model.device)
    ids[1, :-1], ids[3, 2:] = ids[0, :-1], ids[2, 2:]  # the first two differ in their last token, the others in their padding
    mask = torch.ones_like(ids)
    mask[2:, :2] = 0
    one, other, padded, otherwise = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    if not torch.isfinite(one).all() or not torch.isfinite(padded[-1]).all():
        raise UserError(f"the weights of {name} hold NaN or infinity, or overflow: give another model or --dtype")
    if not _alike(one[:-1], other[:-1]):
        raise UserError(f"{name} is no causal language model: it reads the tokens that it shall predict, as an encoder does; give another")
    if not _alike(padded[-1], otherwise[-1]):
        kind = model.config.model_type
        raise UserError(f"{name} cannot answer several prompts at once: models of its kind ({kind}) read the padding; give another")


def _alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-2, atol=1e-2 * float(one.abs().max()))


def save_model(lm: LanguageModel, folder: Path) -> None:
    """Writes what `from_pretrained` takes, with the tokenizer as it came: loading sets the padding of ours."""
    lm.model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(lm.path, trust_remote_code=False).save_pretrained(folder)
    for name in PROCESSOR if hasattr(lm.model.config, "vision_config") or hasattr(lm.model.config, "audio_config") else ():
        try:
            found = cached_file(lm.path, name)
        except OSError:  # the base has none
            continue
        shutil.copy(str(found), folder)
    for weights in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", weights)  # safetensors lets nobody else read


def dtype_name(dtype: torch.dtype) -> str:
    """As settings and files have it: bfloat16."""
    return str(dtype).removeprefix("torch.")


def place(device: str) -> torch.device:
    """The device of that name: auto (the GPU where there is one), cpu or cuda. Raises UserError where there is no such device."""
    try:
        found = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise UserError(f"no device {device!r}: give auto, cpu or cuda")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but PyTorch finds no GPU here: give cpu, or install a PyTorch that was built for the GPU")
    if found.type == "cuda" and (found.index or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"no device {device!r}: PyTorch finds {count} GPUs here, from cuda:0 to cuda:{count - 1}")
    return found


def precision(device: torch.device) -> torch.dtype:
    """What training computes products in: bfloat16 where the hardware multiplies matrices of it; other CPUs are faster in float32."""
    # Not avx512_bf16, which multiplies vectors: on a Xeon with that and no AMX a step of training took 1.6 times as long as in float32.
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {"bf16": True}
    return torch.bfloat16 if any(able.get(name) for name in ("bf16", "amx_bf16")) else torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """Products in `precision`, the rest as torch does it under bfloat16 autocast; nothing where that is float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision(device) == torch.bfloat16)


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """(rows, longest) int64, with `value` on the right where a row is shorter."""
    return pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=value)


def answered_ids(lm: LanguageModel, turns: Turns, text: str) -> tuple[list[int], list[int]]:
    """`chat_ids` of the turns, and the token ids of an answer after them, as the model would write it.

    Some tokenizers begin a text with a space of their own, but go on without one after a template's last newline: so the whole is
    tokenised and the turns' ids are taken off. Where the whole does not begin with these, the answer is tokenised alone. An
    answer begins with the template's `lead`.

    Without turns it is a plain text, which follows the token that begins one; in a model without such its own first token is given.
    """
    tokenizer = lm.tokenizer
    if not turns:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return (lm.begin, ids) if lm.begin else (ids[:1], ids[1:])
    before, text = chat_text(tokenizer, turns), lm.lead + text if text else text
    asked, whole = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in (before, before + text))
    fits = whole[: len(asked)] == asked
    return begun(tokenizer, before), whole[len(asked) :] if fits else tokenizer(text, add_special_tokens=False)["input_ids"]
