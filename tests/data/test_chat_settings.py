"""Settings of a chat template: kept with the tokenizer, part of the template's hash, never silently other."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlprm.data.rendering import ChatRenderer, bounded
from rlprm.data.rendering.settings import ChatSettings, apply_settings, shipped_templates
from rlprm.errors import ChatTemplateError, ConfigError, MismatchError
from rlprm.models.loading import load_tokenizer
from rlprm.models.tiny import tiny_model
from rlprm.models.tokenizer import CHAT_TEMPLATE
from rlprm.runtime.settings import own_settings
from rlprm.stages.settings import CollectConfig, SFTStageConfig
from rlprm.types import Message
from tests.data import hub_templates as hub
from tests.data import templates

START: list[Message] = [{"role": "user", "content": "hi"}]
# Qwen3's switch: without thoughts, an empty one is written for the model.
SWITCH = templates.QWEN25.replace(
    "assistant\\n' }}{%- endif %}",
    "assistant\\n' }}{%- if enable_thinking is defined and not enable_thinking %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
)
DATED = "{{- '<|im_start|>system\\n' + strftime_now('%d %b %Y, %A %j') + '<|im_end|>\\n' }}" + CHAT_TEMPLATE
TRIMS = templates.LLAMA3.replace("message.content", "message.content | trim")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def text(renderer: ChatRenderer, ids: list[int]) -> str:
    return str(renderer.tokenizer.decode(ids, skip_special_tokens=False))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A saved policy whose template has a switch."""
    folder = tmp_path / "policy"
    tokenizer = templates.tokenizer(SWITCH)
    tiny_model(tokenizer, size="xs", context_length=512).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def collecting(model: Path, **settings: object) -> CollectConfig:
    return CollectConfig(model=str(model), environment="math", **settings)  # type: ignore[arg-type]


def test_variables_are_the_templates_and_part_of_its_hash(model: Path) -> None:
    plain = collecting(model).load_policy().renderer
    off = collecting(model, chat_template_kwargs={"enable_thinking": False}).load_policy().renderer
    on = collecting(model, chat_template_kwargs={"enable_thinking": True}).load_policy().renderer
    assert text(off, off.prompt_ids(START)).endswith("assistant\n<think>\n\n</think>\n\n")
    assert text(off, off.observation_ids("x")).endswith("assistant\n<think>\n\n</think>\n\n")
    assert on.prompt_ids(START) == plain.prompt_ids(START)
    assert len({plain.template_hash, on.template_hash, off.template_hash}) == 3


def test_settings_are_saved_with_the_tokenizer_and_found_by_later_stages(model: Path, tmp_path: Path) -> None:
    learned = SFTStageConfig(model=str(model), chat_template_kwargs={"enable_thinking": False})
    tokenizer = learned.load_tokenizer(str(model), replace=True)
    saved = tmp_path / "sft"
    tiny_model(tokenizer, size="xs", context_length=512).save_pretrained(saved)
    tokenizer.save_pretrained(saved)
    later = collecting(saved).load_policy().renderer
    assert later.template_hash == ChatRenderer(tokenizer).template_hash
    assert later.prompt_ids(START) == ChatRenderer(tokenizer).prompt_ids(START)
    collecting(saved, chat_template_kwargs={"enable_thinking": False}).load_policy()  # the same, repeated
    with pytest.raises(MismatchError, match=r"chat_template_kwargs: got .*True.* was saved with .*False"):
        collecting(saved, chat_template_kwargs={"enable_thinking": True}).load_policy()
    learned_again = SFTStageConfig(model=str(saved), chat_template_kwargs={"enable_thinking": True})
    again = ChatRenderer(learned_again.load_tokenizer(str(saved), replace=True))
    assert again.template_hash != later.template_hash


def test_without_settings_nothing_is_stored(model: Path) -> None:
    tokenizer = collecting(model).load_tokenizer(str(model))
    assert tokenizer.init_kwargs == load_tokenizer(str(model)).init_kwargs


def test_records_hold_the_settings_only_if_they_are_set(model: Path) -> None:
    names = {"chat_template", "chat_template_kwargs", "history", "chat_date"}
    assert not names & set(own_settings(collecting(model, history="append")))
    changed = own_settings(collecting(model, history="strict", chat_date="2026-01-01"))
    assert names & set(changed) == {"history", "chat_date"}


def test_a_template_is_a_file_or_a_shipped_name(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(templates.QWEN25, encoding="utf-8")
    named = ChatRenderer(collecting(model, chat_template=str(file)).load_tokenizer(str(model)))
    assert named.default_system.startswith("You are Qwen")
    for name in shipped_templates():
        shipped = ChatRenderer(collecting(model, chat_template=name).load_tokenizer(str(model)))
        assert shipped.template_hash != named.template_hash
    with pytest.raises(ConfigError, match=r"chat_template: got 'absent', allowed: .*chatml"):
        collecting(model, chat_template="absent").load_tokenizer(str(model))


def test_the_shipped_chatml_writes_what_the_embedded_template_writes() -> None:
    tokenizer = templates.tokenizer(None)
    shipped = ChatRenderer(apply_settings(tokenizer, ChatSettings(template="chatml")))
    embedded = ChatRenderer(templates.tokenizer(CHAT_TEMPLATE))
    messages: list[Message] = [{"role": "system", "content": "s"}, *START]
    messages += [{"role": "assistant", "content": " a\n"}, {"role": "user", "content": "b"}]
    assert shipped.prompt_ids(messages) == embedded.prompt_ids(messages)
    assert shipped.pieces == embedded.pieces


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"history": "turns"}, "history: got turns, allowed: append, strict; .*several token sequences"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs: got messages, allowed"),
        ({"chat_date": "yesterday"}, "chat_date: got 'yesterday', allowed: YYYY-MM-DD"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        CollectConfig(model="m", **settings)  # type: ignore[arg-type]


@pytest.mark.trap("date in the prompt")
def test_trap_a_template_with_todays_date_renders_the_same_on_every_day() -> None:
    today = ChatRenderer(templates.tokenizer(DATED))
    prompt = today.prompt_ids(START)
    assert text(today, prompt).startswith("<|im_start|>system\n26 Jul 2024, Friday 208<|im_end|>\n")
    other = ChatRenderer(apply_settings(templates.tokenizer(DATED), ChatSettings(date="2026-11-30")))
    assert "30 Nov 2026, Monday 334" in text(other, other.prompt_ids(START))
    assert other.template_hash != today.template_hash
    assert today.date == "2024-07-26"
    assert ChatRenderer(templates.tokenizer(CHAT_TEMPLATE)).date is None


@pytest.mark.parametrize("name", ["llama3_2", "gptoss", "muse_glimmer"])
def test_the_clock_of_the_hubs_templates_stands_still(name: str) -> None:
    renderer = ChatRenderer(hub.tokenizer_of(name))
    prompt = text(renderer, renderer.prompt_ids(START))
    assert "2024-07-26" in prompt or "26 Jul 2024" in prompt


def test_a_template_that_trims_is_followed_in_every_observation() -> None:
    renderer = ChatRenderer(templates.tokenizer(TRIMS, *HEADERS))
    assert renderer.observation_ids(" a wall \n") == renderer.observation_ids("a wall")
    padded: list[Message] = [{"role": "user", "content": " a wall \n"}]
    assert renderer.prompt_ids(padded) == renderer.prompt_ids([{"role": "user", "content": "a wall"}])
    untrimmed = ChatRenderer(templates.tokenizer(templates.LLAMA3, *HEADERS))
    assert " a wall \n" in text(untrimmed, untrimmed.observation_ids(" a wall \n"))


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("qwen2_5", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
        ("qwen3", ""),
        ("gemma3", ""),
        ("llama3", ""),
        ("llama3_2", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"),
        ("glm4moe", ""),
        ("nemotron_3_nano", ""),
    ],
)
def test_the_system_prompt_of_a_template_is_found(name: str, system: str) -> None:
    renderer = ChatRenderer(hub.tokenizer_of(name))
    assert renderer.default_system == renderer.record().get("default_system", "") == system


@pytest.mark.parametrize(
    ("name", "action", "generation"),
    [
        ("qwen3", "go", "assistant\n"),
        ("qwen3_5_nothink", "go", "<think>\n\n</think>\n\n"),
        ("qwen3_5_think", "\n</think>\n\ngo", "assistant\n<think>\n"),
        ("deepseekv3", "\n</think>\n\ngo", "<think>\n"),
        ("glm4moe", "\n<think></think>\ngo", "<|assistant|>"),
        ("gptoss", "go", "<|channel|>final<|message|>"),
        ("llava_next", " go", "[/INST]"),
    ],
)
def test_an_action_given_as_text_stands_where_the_template_has_the_message(
    name: str, action: str, generation: str
) -> None:
    renderer = ChatRenderer(hub.tokenizer_of(name))
    assert text(renderer, renderer.prompt_ids(START)).endswith(generation)
    assert text(renderer, renderer.observation_ids("x")).endswith(generation)
    assert renderer.action_text(renderer.action_ids("go")) == action
    assert renderer.without_thought(renderer.action_text(renderer.action_ids("go"))).strip() == "go"


def test_a_thought_that_the_prompt_opened_and_nothing_closed_has_no_action() -> None:
    renderer = ChatRenderer(hub.tokenizer_of("qwen3_5_think"))
    assert renderer.without_thought("left is near, go left") == ""
    assert renderer.without_thought("left is near\n</think>\n\ngo left") == "go left"
    plain = ChatRenderer(templates.tokenizer(templates.QWEN25))
    assert not plain.thinks
    assert plain.without_thought("write </think> here") == "write </think> here"
    assert plain.without_thought("<think>why</think>go") == "go"


def test_a_prompt_that_loses_a_message_is_refused() -> None:
    silent = templates.QWEN25.replace("messages[0]['content'] +", "'' +")
    renderer = ChatRenderer(templates.tokenizer(silent))
    assert renderer.prompt_ids(START)
    with pytest.raises(ChatTemplateError, match="drops, repeats or moves the content of a system message"):
        renderer.prompt_ids([{"role": "system", "content": "be brief"}, *START])


def test_what_the_template_refuses_is_one_line() -> None:
    renderer = ChatRenderer(hub.tokenizer_of("gemma"))
    with pytest.raises(
        ChatTemplateError, match=r"^[^\n]*fails on messages of system, user: System role[^\n]*$"
    ):
        renderer.prompt_ids([{"role": "system", "content": "be brief"}, *START])


@pytest.mark.parametrize(
    ("endless", "limit"),
    [
        (
            "{%- for i in range(99999) %}{%- for j in range(99999) %}{%- for k in range(99999) %}"
            "{%- endfor %}{%- endfor %}{%- endfor %}",
            "more than 1 seconds of a processor",
        ),
        (
            "{%- set ns = namespace(s='aaaaaaaa') %}{%- for i in range(60) %}"
            "{%- set ns.s = ns.s ~ ns.s %}{%- endfor %}",
            "MiB of memory",
        ),
        ("{{- 'a' * 100000000000 }}", "MiB of memory"),
    ],
)
def test_a_template_without_an_end_is_refused(
    endless: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "SECONDS", 1)
    monkeypatch.setattr(bounded, "BYTES", 512 << 20)
    with pytest.raises(ChatTemplateError, match=f"does not come to an end: it takes {'.*'}{limit}"):
        ChatRenderer(templates.tokenizer(endless + CHAT_TEMPLATE))


def test_a_template_that_calls_itself_is_refused() -> None:
    with pytest.raises(ChatTemplateError, match="the chat template fails"):
        ChatRenderer(
            templates.tokenizer("{%- macro f() %}{{- f() }}{%- endmacro %}{{- f() }}" + CHAT_TEMPLATE)
        )
