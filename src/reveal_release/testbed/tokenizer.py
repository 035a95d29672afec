"""Trains the testbed's byte-level BPE tokenizer with its chat template.

Every digit is a token of its own. A quote that opens a string of a JSON list is followed by a space that the decoder takes away
again, so that a name is the same tokens in a list as in the running text: then copying is repeating, which a small model learns.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

BOS, PAD, USER, ASSISTANT, END = "<|bos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('roles are user and assistant, not ' + message['role']) }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPLIT = r"""'(?:[sdmt]|ll|ve|re)|\n *| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def train(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocab_size` entries trained on `texts`; deterministic."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace('["', '[" '), normalizers.Replace('", "', '", " ')])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Fuse(), decoders.Replace('", " ', '", "'), decoders.Replace('[" ', '["')]
    )
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[BOS, PAD, USER, ASSISTANT, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=END, pad_token=PAD, additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False, padding_side="left",
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast


def encode(tokenizer: PreTrainedTokenizerBase, turns: list[tuple[str, str]]) -> list[int]:
    """Token ids of a document: the chat template's, or BOS text END for plain text."""
    special: dict[str, int] = tokenizer.added_tokens_encoder
    ids = [special[BOS]]
    for role, content in turns:
        if role != "text":
            ids.append(special[f"<|{role}|>"])
        ids += tokenizer(content, add_special_tokens=False)["input_ids"]
        ids.append(special[END])
    return ids
