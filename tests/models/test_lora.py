"""Adapters: what they leave alone, what they change, and what of it is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlprm.errors import ConfigError
from rlprm.models.loading import head_of, load_causal_lm, load_scalar_model
from rlprm.models.lora import trainable_parameters, with_adapters, without_unused
from rlprm.runtime.tuning import TuningConfig

IDS = torch.arange(1, 41)[None]


def test_no_rank_no_adapters(tiny_folder: Path) -> None:
    model = load_scalar_model(str(tiny_folder))
    assert with_adapters(model, TuningConfig(), seed=0) is model


@pytest.mark.parametrize("load", [load_causal_lm, load_scalar_model])
def test_fresh_adapters_change_nothing(load: Any, tiny_folder: Path) -> None:
    plain = load(str(tiny_folder)).eval()
    adapted = with_adapters(load(str(tiny_folder)), TuningConfig(lora_r=4), seed=0).eval()
    with torch.no_grad():
        assert torch.equal(
            adapted(input_ids=IDS, use_cache=False).logits, plain(input_ids=IDS, use_cache=False).logits
        )


def test_only_adapters_and_the_scalar_head_are_trained(tiny_folder: Path) -> None:
    policy = with_adapters(load_causal_lm(str(tiny_folder)), TuningConfig(lora_r=4), seed=0)
    scalar = with_adapters(load_scalar_model(str(tiny_folder)), TuningConfig(lora_r=4), seed=0)
    for model, head in ((policy, 0), (scalar, 2)):
        trained = {n for n, p in model.named_parameters() if p.requires_grad}
        assert all("lora_" in name or "score.modules_to_save" in name for name in trained)
        # A and B of seven layers in each of two blocks; the head is trained as a whole, without an adapter.
        assert len(trained) == 2 * 7 * 2 + head
    assert not any("score" in name and "lora_" in name for name, _ in scalar.named_parameters())
    assert trainable_parameters(scalar) == trainable_parameters(policy) + 64 + 1


@pytest.mark.trap("copy of the head")
def test_trap_the_trained_copy_of_the_head_starts_at_zero_as_the_head_does(tiny_folder: Path) -> None:
    scalar = with_adapters(load_scalar_model(str(tiny_folder)), TuningConfig(lora_r=4), seed=0)
    copies = [p for n, p in scalar.named_parameters() if "score.modules_to_save" in n]
    assert len(copies) == 2
    assert not any(copy.any() for copy in copies)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")  # GPT-2 stores its weights transposed
def test_the_head_goes_by_whatever_name_it_has(tmp_path: Path, tiny_folder: Path) -> None:
    GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    ).save_pretrained(tmp_path)
    assert head_of(load_causal_lm(str(tmp_path))) == head_of(load_causal_lm(str(tiny_folder))) == []
    assert head_of(load_scalar_model(str(tiny_folder))) == ["score"]
    other = load_scalar_model(str(tmp_path))
    assert head_of(other) == ["classifier"]
    adapted = with_adapters(other, TuningConfig(lora_r=2), seed=0)
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    assert {n for n in trained if "lora_" not in n} == {
        "base_model.model.classifier.modules_to_save.default.weight",
        "base_model.model.classifier.modules_to_save.default.bias",
    }


def test_frozen_weights_may_be_coarse_but_what_is_trained_is_not(tiny_folder: Path) -> None:
    coarse = load_scalar_model(str(tiny_folder), dtype="bfloat16", device=torch.device("cpu"))
    adapted = with_adapters(coarse, TuningConfig(lora_r=4), seed=0)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    frozen = {p.dtype for n, p in adapted.named_parameters() if not p.requires_grad and "score" not in n}
    assert frozen == {torch.bfloat16}


def test_initial_adapters_depend_on_the_seed_and_leave_the_global_generator_alone(tiny_folder: Path) -> None:
    def adapter(seed: int) -> torch.Tensor:
        made = with_adapters(load_causal_lm(str(tiny_folder)), TuningConfig(lora_r=4), seed=seed)
        return torch.cat([p.flatten() for n, p in made.named_parameters() if "lora_A" in n])

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = adapter(1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(adapter(1), first)
    assert not torch.equal(adapter(2), first)


def test_layers_are_chosen_by_the_ends_of_their_names(tiny_folder: Path) -> None:
    config = TuningConfig(lora_r=4, lora_target_modules=["q_proj", "v_proj"])
    adapted = with_adapters(load_causal_lm(str(tiny_folder)), config, seed=0)
    assert {n.split(".")[-4] for n, p in adapted.named_parameters() if p.requires_grad} == {
        "q_proj",
        "v_proj",
    }
    unknown = TuningConfig(lora_r=4, lora_target_modules=["query"])
    with pytest.raises(ConfigError, match=r"lora_target_modules: .*query") as caught:
        with_adapters(load_causal_lm(str(tiny_folder)), unknown, seed=0)
    assert "\n" not in str(caught.value)


def test_the_scale_follows_the_rank_unless_it_is_given(tiny_folder: Path) -> None:
    for alpha, expected in ((None, 2.0), (4, 0.5)):
        config = TuningConfig(lora_r=8, lora_alpha=alpha)
        adapted = with_adapters(load_causal_lm(str(tiny_folder)), config, seed=0)
        assert adapted.base_model.model.model.layers[0].mlp.up_proj.scaling == {"default": expected}


@pytest.mark.parametrize(
    ("r", "dtype", "bf16", "expected"),
    [
        (0, "auto", True, "float32"),  # masters of what is trained
        (0, "auto", False, "float32"),
        (8, "auto", True, "bfloat16"),
        (8, "auto", False, "float32"),
        (8, "float32", True, "float32"),
        (0, "bfloat16", True, "bfloat16"),
    ],
)
def test_weights_that_are_trained_are_float32_unless_asked_otherwise(
    r: int, dtype: str, bf16: bool, expected: str
) -> None:
    assert TuningConfig(lora_r=r, dtype=dtype).weights_dtype(bf16=bf16) == expected


def test_training_all_weights_in_bfloat16_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        TuningConfig(lora_r=8, dtype="bfloat16")
        assert not caplog.text
        TuningConfig(dtype="bfloat16")
    assert "all weights are trained in bfloat16" in caplog.text


def test_a_record_holds_what_has_an_effect() -> None:
    record = {"lora_r": 0, "lora_alpha": 8, "lora_dropout": 0.0, "dtype": "auto", "beta": 1.0}
    assert without_unused(record) == {"beta": 1.0}
    assert without_unused({**record, "dtype": "bfloat16"}) == {"beta": 1.0, "dtype": "bfloat16"}
    adapters = {**record, "lora_r": 4}
    assert without_unused(adapters) == {k: v for k, v in adapters.items() if k != "dtype"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_r": -1}, "lora_r: got -1, allowed: 0 or more"),
        ({"lora_alpha": 0}, "lora_alpha: got 0"),
        ({"lora_dropout": 1.0}, r"lora_dropout: got 1\.0"),
        ({"lora_dropout": -0.1}, r"lora_dropout: got -0\.1"),
        ({"lora_target_modules": []}, "lora_target_modules: nothing given"),
        ({"dtype": "float16"}, "dtype: got 'float16', allowed: auto, float32, bfloat16"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TuningConfig(**settings)
