"""Chat templates of the shapes that are met in the wild, and tokenizers that have them."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

from transformers import PreTrainedTokenizerBase

from rlprm.data.rendering import ChatRenderer
from rlprm.models.tokenizer import train_tokenizer
from tests.toys import agents

CHATML_SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face' }}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's: ChatML with a system prompt of its own."""

# Qwen2.5-Instruct's, without its tools.
QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}"
    "{%- else %}"
    "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    '{%- if (message.role == "user") or (message.role == "system" and not loop.first) '
    'or (message.role == "assistant" and not message.tool_calls) %}'
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

# Qwen3's rule for old thoughts: those before the newest question are dropped.
QWEN3 = (
    "{%- set ns = namespace(newest=0) %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' %}{%- set ns.newest = loop.index0 %}{%- endif %}"
    "{%- endfor %}"
    "{%- for message in messages %}"
    "{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.newest %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

# Llama 3's: nothing between the closing token and the next turn.
LLAMA3 = (
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    "{%- endif %}"
)

# Vicuna's shape with a line break for a closing token.
PLAIN = (
    "{%- for message in messages %}{{- message.role + ': ' + message.content + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}"
)


def tokenizer(template: str | None, *specials: str) -> PreTrainedTokenizerBase:
    """The toy tokenizer with another template."""
    made = deepcopy(agents.renderer().tokenizer)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *specials]})
    made.chat_template = template
    return made


@cache
def foreign(template: str = QWEN25) -> ChatRenderer:
    """Another vocabulary than the toy tokenizer's, with another template; never to be changed."""
    tokenizer = train_tokenizer(["a wall, a cell; other words altogether"], vocab_size=290)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|eot_id|>"]})
    tokenizer.chat_template = template
    return ChatRenderer(tokenizer)
