"""Heads and adapters of architectures whose parts have unusual names: the own weights, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rlprm.errors import ArtifactError
from rlprm.models.causal import body_of, causal_class, text_part
from rlprm.models.loading import load_causal_lm, load_lm_reward_model, load_scalar_model
from rlprm.models.lora import with_adapters
from rlprm.models.sampled_tokens import body_states
from rlprm.runtime.tuning import TuningConfig
from tests.architectures.tiny import tiny_config, tiny_model

VOCABULARY = 300
IDS = torch.arange(3, 15)[None]


def saved(model_type: str, folder: Path) -> tuple[Any, str]:
    model = tiny_model(model_type, VOCABULARY)
    model.save_pretrained(folder)
    return model, str(folder)


def test_a_decoder_cut_out_of_an_encoder_decoder_has_a_scalar_head_on_its_own_body(tmp_path: Path) -> None:
    policy, folder = saved("bart", tmp_path)
    scalar = load_scalar_model(folder, dtype="float32").eval()
    names = {name for name, _ in scalar.named_parameters()}
    assert not [name for name in names if "encoder.layers" in name and "decoder" not in name]
    torch.nn.init.normal_(scalar.score.weight)
    with torch.no_grad():
        expected = body_states(policy, IDS) @ scalar.score.weight[0]
        torch.testing.assert_close(scalar(input_ids=IDS, use_cache=False).logits.squeeze(-1), expected)


@pytest.mark.parametrize("model_type", ["gpt_neox", "hy_v4"])
def test_weights_that_transformers_saves_under_other_names_reach_an_lm_head(
    model_type: str, tmp_path: Path
) -> None:
    policy, folder = saved(model_type, tmp_path)
    made = load_lm_reward_model(folder, scale=0.1, dtype="float32").eval()
    with torch.no_grad():
        torch.testing.assert_close(made.causal_logits(IDS), policy(input_ids=IDS).logits)


def test_the_language_model_of_a_multimodal_model_is_loaded_again_from_its_own_folder(tmp_path: Path) -> None:
    policy, folder = saved("mllama", tmp_path)
    assert policy.config.model_type == "mllama_text_model"
    with torch.no_grad():
        expected = policy(input_ids=IDS).logits
        torch.testing.assert_close(load_causal_lm(folder).eval()(input_ids=IDS).logits, expected)
        lm = load_lm_reward_model(folder, scale=0.1, dtype="float32").eval()
        torch.testing.assert_close(lm.causal_logits(IDS), expected)
    load_scalar_model(folder).save_pretrained(tmp_path / "prm")
    config = load_scalar_model(str(tmp_path / "prm")).config
    assert config.architectures == ["MllamaForTokenClassification"]
    assert causal_class(config) is type(policy), "found in a process that has not made the scalar class, too"


def test_a_multimodal_checkpoint_gives_the_configuration_that_its_language_model_reads() -> None:
    whole = tiny_config("mllama", VOCABULARY)
    assert text_part(whole) is whole.text_config
    other = tiny_config("gemma3", VOCABULARY)
    assert text_part(other) is other, "Gemma 3's causal model reads the whole"


@pytest.mark.parametrize("model_type", ["modernbert-decoder", "llama4_text", "bart", "gemma3", "llama"])
def test_the_body_gives_hidden_states_of_every_token(model_type: str) -> None:
    model = tiny_model(model_type, VOCABULARY)
    with torch.no_grad():
        assert body_of(model)(input_ids=IDS, use_cache=False).last_hidden_state.shape == (1, 12, 64)


@pytest.mark.parametrize(
    ("model_type", "without", "adapted"),
    [
        ("phimoe", "router", "q_proj"),
        ("llama4_text", "router", "q_proj"),
        ("falcon", None, "query_key_value"),
    ],
)
def test_adapters_go_to_products_and_not_to_routers(
    model_type: str, without: str | None, adapted: str
) -> None:
    model = with_adapters(tiny_model(model_type, VOCABULARY), TuningConfig(lora_r=2), seed=0)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert any(adapted in name for name in names)
    assert without is None or not any(without in name for name in names)


def test_hidden_states_that_do_not_fit_a_head_are_refused_in_one_line(tmp_path: Path) -> None:
    _, folder = saved("reformer", tmp_path)
    for load in (load_scalar_model, lambda path: load_lm_reward_model(path, scale=0.1)):
        with pytest.raises(
            ArtifactError, match="models of type reformer cannot be read with a head"
        ) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
