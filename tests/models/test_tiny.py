"""The embedded model: its size, its seed, and what it takes from the tokenizer."""

from __future__ import annotations

import pytest
import torch

from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ConfigError
from rlprm.models.tiny import SIZES, tiny_model


def test_sizes_are_what_the_table_says(renderer: ChatRenderer) -> None:
    about = {"xs": 0.1e6, "s": 0.35e6, "m": 0.8e6, "l": 2e6}
    assert set(about) == set(SIZES)
    for size, parameters in about.items():
        model = tiny_model(renderer.tokenizer, size=size)
        beside_the_embedding = model.num_parameters() - model.get_input_embeddings().weight.numel()
        assert beside_the_embedding == pytest.approx(parameters, rel=0.25)


def test_the_seed_decides_the_weights_and_leaves_other_random_numbers_alone(renderer: ChatRenderer) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    models = [tiny_model(renderer.tokenizer, size="xs", seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    first, twin, other = (model.get_input_embeddings().weight for model in models)
    assert torch.equal(first, twin)
    assert not torch.equal(first, other)


def test_a_new_model_is_close_to_even_odds_for_every_token(renderer: ChatRenderer) -> None:
    model = tiny_model(renderer.tokenizer, size="xs").eval()
    with torch.no_grad():
        loss = model(input_ids=torch.arange(200)[None], labels=torch.arange(200)[None]).loss
    assert loss.item() == pytest.approx(torch.tensor(float(len(renderer.tokenizer))).log().item(), rel=0.2)


def test_tokens_and_positions_are_the_tokenizers_and_the_callers(renderer: ChatRenderer) -> None:
    config = tiny_model(renderer.tokenizer, size="xs", context_length=77).config
    assert config.vocab_size == len(renderer.tokenizer)
    assert config.eos_token_id == renderer.closing_id
    assert config.pad_token_id == renderer.tokenizer.pad_token_id
    assert config.max_position_embeddings == 77


def test_an_unknown_size_lists_the_known_ones(renderer: ChatRenderer) -> None:
    with pytest.raises(ConfigError, match="size 'xxl'; known: xs, s, m, l"):
        tiny_model(renderer.tokenizer, size="xxl")
