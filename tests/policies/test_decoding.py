"""Which way of decoding is right is found on the model itself, in every precision."""

from __future__ import annotations

import logging
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from rlprm.errors import ConfigError, DataError
from rlprm.models.hub.packaged import get_model, missing_packages
from rlprm.models.kv_cache.roomy_layer import RoomyLayer
from rlprm.models.kv_cache.support import has_full_attention, reads_growing
from rlprm.models.loading import load_causal_lm
from rlprm.models.positions import NO_LIMIT, positions_of
from rlprm.policies.decoding import choice
from rlprm.policies.decoding.base import Contexts, Draw
from rlprm.policies.decoding.choice import right_way, shares_rows, way_by_name
from rlprm.policies.decoding.kept import KeptCache, _grid
from rlprm.policies.decoding.rounding import exceeds_rounding
from rlprm.policies.decoding.whole import teacher_forced
from tests.architectures.tiny import tiny_model

VOCABULARY = 300
RIGHT = {"llama": "kept", "qwen3": "kept", "mistral": "turn", "gemma2": "turn", "mpt": "turn"}


def words(count: int, seed: int) -> list[int]:
    return torch.randint(3, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def draw(rows: int, *, ends: list[int], limit: int = 6, temperature: float = 1.0) -> Draw:
    uniforms_BK = torch.rand(rows, limit, generator=torch.Generator().manual_seed(5))
    return Draw(uniforms_BK, temperature, torch.tensor(ends), pad_id=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", RIGHT)
def test_rounding_is_told_from_a_mistake(model_type: str, dtype: torch.dtype) -> None:
    assert right_way(tiny_model(model_type, VOCABULARY).to(dtype)) == RIGHT[model_type]


def test_which_models_may_share_rows_is_found_on_the_model() -> None:
    found = {name: shares_rows(tiny_model(name, VOCABULARY)) for name in (*RIGHT, "bloom", "gpt2")}
    # Bloom reads positions from the mask, which has to be of two dimensions.
    assert found == {name: name in ("llama", "qwen3", "gpt2") for name in found}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_actions_that_share_a_row_are_those_of_rows_of_their_own(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, closing = tiny_model("qwen3", VOCABULARY), 7
    alone, shared = KeptCache(closing), KeptCache(closing, trees=True)
    contexts, known = [words(n, n) for n in (5, 17, 9)], [None] * 3
    row_of = [0, 2, 0, 1, 2, 2, 1, 0]
    for turn in range(3):
        drawn = draw(len(row_of), ends=list(range(closing, VOCABULARY, 4)), temperature=temperature)
        given = Contexts(contexts, row_of, known)
        expected = alone.decode(model, given, drawn)
        with monkeypatch.context() as patch:
            patch.setattr(RoomyLayer, "batch_select_indices", None)  # no row is copied
            found = shared.decode(model, given, drawn)
        assert found._replace(logprobs=[]) == expected._replace(logprobs=[])
        for a, b in zip(found.logprobs, expected.logprobs, strict=True):
            assert a == pytest.approx(b, abs=1e-5)
        assert len(set(map(len, found.ids))) > 1 or temperature == 0
        # The beam goes on with some of them: two of one context, one of another.
        chosen = [(turn, 0), (turn + 2, 1), (7, 2)]
        said = [[*contexts[row_of[i]], *found.ids[i]] for i, _ in chosen]
        known = [ids[:-1] if ids[-1] == closing else ids for ids in said]
        contexts = [[*ids, *words(3 + n, 50 + n)] for ids, (_, n) in zip(known, chosen, strict=True)]


def test_rows_are_not_shared_if_most_of_them_would_be_filling() -> None:
    assert _grid([0, 1, 2]) is None
    assert _grid([0, 0, 1]) == [[0, 1], [2, 2]]
    assert _grid([0, 1, 2, 3, 4, 4, 4]) is None
    assert _grid([1, 0, 1, 0]) == [[1, 3], [0, 2]]


def test_the_noise_of_a_precision_moves_the_bound_of_half_precision_alone() -> None:
    half = torch.bfloat16
    assert not exceeds_rounding([0.04, 0.06], half)
    assert exceeds_rounding([0.06, 0.06], half)
    assert not exceeds_rounding([0.06, 0.06], half, noise=0.03)  # a real model on words that make no text
    assert exceeds_rounding([0.1, 0.1], half, noise=0.03)
    assert exceeds_rounding([0.3, 0.3], half, noise=1.0)  # whatever the noise
    assert exceeds_rounding([2e-3], torch.float32, noise=1.0)


def test_noise_is_that_of_the_precision() -> None:
    model = tiny_model("llama", VOCABULARY)
    in_full, in_half = choice.noise_of(model), choice.noise_of(deepcopy(model).to(torch.bfloat16))
    assert in_full < 1e-5
    assert 1e-5 < in_half < 0.05


@pytest.mark.skipif(bool(missing_packages("smollm2-135m")), reason="SmolLM2 is not installed")
def test_a_real_model_keeps_its_cache_in_half_precision(tmp_path: Path) -> None:
    model = load_causal_lm(str(get_model("smollm2-135m", tmp_path / "model")), dtype="bfloat16")
    assert right_way(model) == "kept"


def test_autocast_has_the_precision_of_its_logits() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert right_way(tiny_model("llama", VOCABULARY)) == "kept"


@pytest.mark.trap("sliding window in a cache with holes")
def test_trap_a_kept_cache_with_holes_is_wrong_under_a_window_and_is_not_used() -> None:
    model = tiny_model("mistral", VOCABULARY)
    assert max(choice.differences_of(model, way_by_name("kept", -1))) > 1
    assert max(choice.differences_of(model, way_by_name("turn", -1))) < 1e-4
    assert right_way(model) == "turn"


def test_a_window_longer_than_what_is_tried_is_read_from_the_configuration() -> None:
    model = tiny_model("mistral", VOCABULARY)
    assert not has_full_attention(model.config)
    model.config.sliding_window = 256  # above all that is tried, below the context of 512
    assert not has_full_attention(model.config)
    model.config.sliding_window = None
    assert has_full_attention(model.config)
    qwen = tiny_model("qwen2", VOCABULARY).config
    assert has_full_attention(qwen), "Qwen2 names a window that it does not use"


@pytest.mark.parametrize(
    ("model_type", "reason"),
    {
        "mistral": r"across turns is not used \(sliding_window 16 is below the context of 512 tokens\)",
        "llama4_text": "attention_chunk_size 16 is below the context",
        "qwen3_5_text": "layers of kind linear_attention keep something else",
        "mpt": r"log-probabilities differed by up to [\d.]+ nats when tried",
        "rwkv": r"; the model's own cache is not used \(log-probabilities differed",
    }.items(),
)
def test_the_slower_way_is_named_once_with_its_reason(
    model_type: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model(model_type, VOCABULARY)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            right_way(model)
    (line,) = [r.message for r in caplog.records if "decode more slowly" in r.message]
    assert line.startswith(f"models of type {model_type} decode more slowly here: every turn is encoded")
    assert re.search(reason, line), line


def test_an_encoder_that_looks_ahead_is_refused() -> None:
    model = tiny_model("bert", VOCABULARY)
    model.config.is_decoder = False
    for module in model.modules():
        for name in ("is_decoder", "is_causal"):
            if hasattr(module, name):
                setattr(module, name, False)
    with pytest.raises(ConfigError, match="models of type bert do not write from left to right"):
        right_way(model)


@pytest.mark.parametrize("name", choice.WAYS)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_all_ways_write_the_same_tokens(name: str, temperature: float) -> None:
    model = tiny_model("llama", VOCABULARY)
    contexts = [words(count, count) for count in (4, 9, 6)]
    batch = Contexts(contexts, [0, 1, 2, 1], [None] * 3)
    how = draw(4, ends=list(range(0, VOCABULARY, 4)), temperature=temperature)
    with torch.inference_mode():
        said = way_by_name(name, -1).decode(model, batch, how)
        whole = way_by_name("whole", -1).decode(model, batch, how)
    assert said.ids == whole.ids
    forced = teacher_forced(model, [contexts[i] for i in batch.row_of], said.ids, temperature=temperature)
    for ours, theirs in zip(said.logprobs, forced, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert all(i not in how.ends.tolist() for row in said.ids for i in row[:-1])


def test_the_models_own_generation_settings_change_nothing() -> None:
    model: Any = tiny_model("llama", VOCABULARY)
    batch = Contexts([words(5, 1), words(8, 2)], [0, 1], [None] * 2)
    plain = way_by_name("turn", -1).decode(model, batch, draw(2, ends=[7]))
    own = model.generation_config
    own.update(
        repetition_penalty=5.0, temperature=0.1, top_k=1, suppress_tokens=list(range(3, 50)), max_length=6,
        do_sample=True, min_new_tokens=4, eos_token_id=[plain.ids[0][0]],
    )  # fmt: skip
    assert way_by_name("turn", -1).decode(model, batch, draw(2, ends=[7])) == plain
    assert model.generation_config is own


def test_one_token_at_most() -> None:
    model = tiny_model("mistral", VOCABULARY)
    batch = Contexts([words(5, 1), words(8, 2)], [0, 1], [None] * 2)
    how = draw(2, ends=[7], limit=1)
    rows = {name: way_by_name(name, -1).decode(model, batch, how) for name in choice.WAYS}
    assert {str(said.ids) for said in rows.values()} == {str(rows["whole"].ids)}
    assert all(len(ids) == 1 for ids in rows["turn"].ids)


@pytest.mark.parametrize("name", choice.WAYS)
def test_logits_that_are_not_finite_are_an_error(name: str) -> None:
    model = tiny_model("llama", VOCABULARY)
    torch.nn.init.constant_(model.get_output_embeddings().weight, float("nan"))
    with pytest.raises(DataError, match="not finite"):
        way_by_name(name, -1).decode(model, Contexts([words(5, 1)], [0], [None]), draw(1, ends=[7]))


def test_values_of_a_windowed_model_are_read_whole() -> None:
    for model_type, growing in {"llama": True, "mistral": False}.items():
        assert reads_growing(_scalar(model_type)) is growing


def _scalar(model_type: str) -> Any:
    from transformers import AutoModelForTokenClassification

    config = tiny_model(model_type, VOCABULARY).config
    config.num_labels = 1
    return AutoModelForTokenClassification.from_config(config).eval()


def test_a_pad_id_in_the_middle_of_a_text_is_read() -> None:
    model = tiny_model("mistral", VOCABULARY)
    contexts = [[1, 5, 1, 7, 8, 9], [1, 15, 1, 17, 1, 19]]
    how = Draw(torch.rand(2, 4, generator=torch.Generator().manual_seed(0)), 1.0, torch.tensor([2]), pad_id=1)
    for name in ("turn", "turn_by_length"):
        said = way_by_name(name, -1).decode(model, Contexts(contexts, [0, 1], [None] * 2), how)
        forced = teacher_forced(model, contexts, said.ids, temperature=1.0)
        for ours, theirs in zip(said.logprobs, forced, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_a_rope_that_depends_on_the_length_bounds_the_conversation() -> None:
    config = tiny_model("phi3", VOCABULARY).config
    assert positions_of(config) == 512
    assert has_full_attention(config)
    config.rope_parameters = {**config.rope_parameters, "rope_type": "longrope"}
    config.original_max_position_embeddings = 64
    assert positions_of(config) == 64
    assert not has_full_attention(config)


def test_a_model_without_positions_has_no_limit() -> None:
    assert positions_of(tiny_model("mamba", VOCABULARY).config) == NO_LIMIT
    assert positions_of(tiny_model("gpt2", VOCABULARY).config) == 512
