"""Tokenizers of small chat models, made here: every byte is a token, and so is each special one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from tasks.format.template import Template

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Mistral 7B Instruct v0.3 has it: the system turn goes into the user's if that is the very last,
# tools stand before the last question, and calls need ids of nine characters.
MISTRAL = (
    "{{ bos_token }}{% set system = '' %}"
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% set asked = messages | selectattr('role', 'equalto', 'user') | list %}"
    "{% for m in messages %}"
    "{% if m.role == 'user' %}"
    "{% if tools is defined and tools is not none and m == asked[-1] %}"
    "{{ '[AVAILABLE_TOOLS] ' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}{% endif %}"
    "{% if loop.last and system %}{{ '[INST] ' + system + '\n\n' + m.content + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + m.content + '[/INST]' }}{% endif %}"
    "{% elif m.role == 'assistant' and m.tool_calls is defined %}"
    "{{ '[TOOL_CALLS] [' }}{% for c in m.tool_calls %}"
    "{% if c.id is not defined or c.id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}"
    "{% endif %}{{ c.function | tojson }}{% endfor %}{{ ']' + eos_token }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}"
    "{% elif m.role == 'tool' %}{{ '[TOOL_RESULTS] ' + m.content + '[/TOOL_RESULTS]' }}"
    "{% endif %}{% endfor %}"
)
# A template that forgets whoever it does not know.
FORGETFUL = (
    "{% for m in messages %}{% if m.role != 'system' %}"
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A template, its special tokens, and the tokens that end a turn beside EOS."""

    template: str
    special: dict[str, str]
    added: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()


def _trl(name: str) -> str:
    """A template of a well-known model, as TRL ships it."""
    spec = find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")


_IM = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
_QWEN = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_QWEN_ADDED = ("<|im_start|>",)
_LLAMA = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
_LLAMA_ADDED = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_PHI = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}
_PHI_ADDED = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_GEMMA = {"bos_token": "<bos>", "eos_token": "<eos>"}
_MISTRAL_ADDED = (
    *("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
FAMILIES = {
    "chatml": Family(CHATML, _IM),
    "llama3": Family(_trl("llama3"), _LLAMA, _LLAMA_ADDED, ("<|eot_id|>",)),
    "mistral": Family(MISTRAL, {"bos_token": "<s>", "eos_token": "</s>"}, _MISTRAL_ADDED),
    "gemma": Family(
        _trl("gemma"), _GEMMA, ("<start_of_turn>", "<end_of_turn>"), ("<end_of_turn>",)
    ),
    "phi3": Family(_trl("phi3"), _PHI, _PHI_ADDED, ("<|end|>",)),
    "qwen2.5": Family(_trl("qwen2_5"), _QWEN, _QWEN_ADDED),
    "qwen3": Family(_trl("qwen3"), _QWEN, _QWEN_ADDED),
    "forgetful": Family(FORGETFUL, _IM),
}


def make_tokenizer(
    template: str | None = CHATML, added: tuple[str, ...] = (), **special: str
) -> Any:
    """Bytes as tokens, with ChatML's special tokens unless others are given."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=backend, **(special or {**_IM, "pad_token": "<|im_end|>"}))
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in added])
    tokenizer.chat_template = template
    tokenizer.name_or_path = "acme/tiny"
    return tokenizer


def make_template(template: str | None = CHATML, **special: str) -> Template:
    return Template(make_tokenizer(template, **special))


def family(name: str) -> Template:
    """The template of a family with a tokenizer that knows its special tokens."""
    made = FAMILIES[name]
    tokenizer = make_tokenizer(made.template, made.added, **made.special)
    tokenizer.name_or_path = f"acme/{name}"
    return Template(tokenizer, tokenizer.convert_tokens_to_ids(list(made.stops)))


@pytest.fixture(scope="session")
def template() -> Template:
    return make_template()
