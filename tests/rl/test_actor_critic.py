"""One forward for policy, critic and reference, against plain forwards of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

from rlprm.errors import ConfigError
from rlprm.models import sampled_tokens
from rlprm.models.loading import load_causal_lm
from rlprm.models.sampled_tokens import check_logits
from rlprm.rl.actor_critic import ActorCritic, Reading, without_dropout
from rlprm.rl.batch import Batch
from tests.rl import toy

TEMPERATURE = 1.7


def read(model: ActorCritic, batch: Batch, ids_BL: Tensor | None = None, **options: bool) -> Reading:
    rows_N, positions_N = batch.layout.sampled.nonzero(as_tuple=True)
    reading: Reading = model(batch.token_ids_BL if ids_BL is None else ids_BL, rows_N, positions_N, **options)
    return reading


@pytest.fixture
def batch() -> Batch:
    return toy.batch(6)


@torch.no_grad()
@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("lora_r", [0, 4])
def test_numbers_are_those_of_plain_forwards_at_the_temperature(
    tiny_folder: Path, batch: Batch, critic: str, lora_r: int
) -> None:
    model = toy.actor_critic(tiny_folder, critic=critic, lora_r=lora_r, temperature=TEMPERATURE).eval()
    reading = read(model, batch, with_entropy=True)
    logprobs_NV = torch.log_softmax(toy.plain_logits(model.policy, batch) / TEMPERATURE, dim=1)
    expected = logprobs_NV.gather(1, toy.sampled_ids(batch)[:, None])[:, 0]
    torch.testing.assert_close(reading.logprobs, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(reading.entropy, -(logprobs_NV.exp() * logprobs_NV).sum(1), atol=1e-5, rtol=0)
    if model.critic is not None:
        values_N = toy.plain_logits(model.critic, batch).squeeze(1)
    else:
        assert model.value_head is not None
        output = model.policy(input_ids=batch.token_ids_BL, output_hidden_states=True, use_cache=False)
        sampled = batch.layout.sampled
        values_N = model.value_head(output.hidden_states[-1][:, :-1][sampled[:, 1:]]).squeeze(1)
    assert values_N.std() > 1e-3
    torch.testing.assert_close(reading.values, values_N, atol=1e-5, rtol=0)


@pytest.mark.parametrize("with_entropy", [True, False])
def test_reading_part_by_part_changes_neither_numbers_nor_gradients(
    tiny_folder: Path, batch: Batch, monkeypatch: pytest.MonkeyPatch, with_entropy: bool
) -> None:
    found = []
    for at_once in (10_000, 7):
        monkeypatch.setattr(sampled_tokens, "_TOKENS_AT_ONCE", at_once)
        model = toy.actor_critic(tiny_folder, critic="separate", kl_coef=0.1)
        reading = read(model, batch, with_entropy=with_entropy, with_reference=True)
        assert len(reading.logprobs) > 20
        (reading.logprobs.sum() + 3 * reading.entropy.sum()).backward()
        gradients = [p.grad.flatten() for p in model.policy.parameters() if p.grad is not None]
        found.append([*reading, torch.cat(gradients)])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_and_other_rows_do_not_matter(tiny_folder: Path, batch: Batch) -> None:
    model = toy.actor_critic(tiny_folder, critic="separate", kl_coef=0.1).eval()
    options = {"with_entropy": True, "with_reference": True}
    together = read(model, batch, **options)
    padded = torch.arange(batch.token_ids_BL.shape[1]) >= torch.tensor(batch.widths_B)[:, None]
    assert padded.any()
    dirty = read(model, batch, batch.token_ids_BL.masked_fill(padded, 7), **options)
    # The first row's numbers, when all the others say something else.
    others = batch.token_ids_BL.clone()
    others[1:] = others[1:].flip(1)
    count = int(batch.layout.sampled[0].sum())
    alone = read(model, batch, others, **options)
    for name, clean, same, own in zip(Reading._fields, together, dirty, alone, strict=True):
        torch.testing.assert_close(same, clean, atol=1e-6, rtol=0, msg=name)
        torch.testing.assert_close(own[:count], clean[:count], atol=1e-6, rtol=0, msg=name)


def test_what_is_not_asked_for_is_zero(tiny_folder: Path, batch: Batch) -> None:
    model = ActorCritic(load_causal_lm(str(tiny_folder), dtype="float32"))
    assert not model.has_critic
    assert not model.critic_parameters()
    reading = read(model, batch)
    assert reading.logprobs.lt(0).all()
    assert not any(part.any() for part in (reading.entropy, reading.values, reading.ref_logprobs))


def test_a_shared_head_starts_at_zero_and_learns_in_float32(tiny_folder: Path, batch: Batch) -> None:
    policy = load_causal_lm(str(tiny_folder), dtype="bfloat16")
    model = ActorCritic(policy, critic="shared")
    reading = read(model, batch)
    assert not reading.values.any()
    assert reading.values.dtype == torch.float32
    assert model.value_head is not None
    assert {p.dtype for p in model.value_head.parameters()} == {torch.float32}
    assert len(model.critic_parameters()) == 2
    assert not set(model.critic_parameters()) & set(model.policy_parameters())


def test_every_trained_parameter_belongs_to_policy_or_critic(tiny_folder: Path) -> None:
    for settings in ({}, {"lora_r": 4}, {"critic": "shared"}, {"kl_coef": 0.1}):
        model = toy.actor_critic(tiny_folder, **settings)
        trained = {p for p in model.parameters() if p.requires_grad}
        policy, critic = set(model.policy_parameters()), set(model.critic_parameters())
        assert policy
        assert critic
        assert not policy & critic
        assert policy | critic == trained


@torch.no_grad()
def test_the_reference_is_the_policy_before_rl(tiny_folder: Path, batch: Batch) -> None:
    model = toy.actor_critic(tiny_folder, kl_coef=0.1).eval()
    assert model.reference is not None
    assert not any(p.requires_grad for p in model.reference.parameters())
    before = read(model, batch, with_reference=True)
    assert torch.equal(before.ref_logprobs, before.logprobs)
    for parameter in model.policy_parameters():
        parameter.mul_(1.1)
    after = read(model, batch, with_reference=True)
    assert (after.logprobs - before.logprobs).abs().max() > 1e-2
    assert torch.equal(after.ref_logprobs, before.logprobs)


@torch.no_grad()
def test_with_adapters_the_reference_is_the_policy_without_them(tiny_folder: Path, batch: Batch) -> None:
    model = toy.actor_critic(tiny_folder, kl_coef=0.1, lora_r=4).eval()
    assert model.reference is None
    plain = read(ActorCritic(load_causal_lm(str(tiny_folder), dtype="float32")), batch)
    before = read(model, batch, with_reference=True)
    torch.testing.assert_close(before.ref_logprobs, plain.logprobs, atol=1e-6, rtol=0)
    for parameter in model.policy_parameters():
        parameter.add_(0.05)
    after = read(model, batch, with_reference=True)
    assert (after.logprobs - before.logprobs).abs().max() > 1e-2
    torch.testing.assert_close(after.ref_logprobs, plain.logprobs, atol=1e-6, rtol=0)
    # and the adapters are back on
    assert torch.equal(read(model, batch).logprobs, after.logprobs)


def test_a_reference_that_is_not_there_is_not_made_up(tiny_folder: Path, batch: Batch) -> None:
    model = ActorCritic(load_causal_lm(str(tiny_folder), dtype="float32"))
    with pytest.raises(ConfigError, match="needs a frozen copy as its reference"):
        read(model, batch, with_reference=True)


@torch.no_grad()
@pytest.mark.trap("rounded logits")
def test_trap_quotients_of_half_precision_logits_are_not_rounded(tiny_folder: Path, batch: Batch) -> None:
    # The sampler divides float32 logits. Rounded to bfloat16 afterwards, they are another distribution.
    policy = load_causal_lm(str(tiny_folder), dtype="bfloat16")
    with torch.no_grad():
        policy.get_output_embeddings().weight.mul_(4)
    reading = read(ActorCritic(policy, temperature=TEMPERATURE), batch)
    hidden = policy.get_decoder()(input_ids=batch.token_ids_BL, use_cache=False).last_hidden_state
    logits_NV = policy.lm_head(hidden[:, :-1][batch.layout.sampled[:, 1:]]).float() / TEMPERATURE
    ids_N1 = toy.sampled_ids(batch)[:, None]
    expected = torch.log_softmax(logits_NV, 1).gather(1, ids_N1)[:, 0]
    torch.testing.assert_close(reading.logprobs, expected, atol=1e-5, rtol=0)
    rounded = torch.log_softmax(logits_NV.bfloat16().float(), 1).gather(1, ids_N1)[:, 0]
    assert (rounded - expected).abs().max() > 1e-3


def granite(logits_scaling: float) -> PreTrainedModel:
    return GraniteForCausalLM(
        GraniteConfig(
            vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=32, logits_scaling=logits_scaling,
            initializer_range=0.5,
        )
    )  # fmt: skip


class SoftCapped(GraniteForCausalLM):
    """Bends large logits behind its output layer."""

    def forward(self, *args: object, **kwargs: object) -> object:
        output = super().forward(*args, **kwargs)
        output.logits = 5 * torch.tanh(output.logits / 5)
        return output


class Favouring(GraniteForCausalLM):
    """Raises the logit of each token that it reads, which hidden states do not tell."""

    def forward(self, input_ids: torch.Tensor, **kwargs: object) -> object:
        output = super().forward(input_ids=input_ids, **kwargs)
        output.logits = output.logits.scatter_add(2, input_ids[..., None], torch.ones(*input_ids.shape, 1))
        return output


def test_logits_that_are_changed_behind_the_output_layer_are_the_models_own(tiny_folder: Path) -> None:
    check_logits(toy.actor_critic(tiny_folder, lora_r=4).policy)
    check_logits(load_causal_lm(str(tiny_folder), dtype="bfloat16"))
    ids_BL = torch.randint(3, 50, (2, 9), generator=torch.Generator().manual_seed(0))
    for model in (granite(1.0), granite(2.0), SoftCapped(granite(1.0).config)):
        expected = torch.log_softmax(model(ids_BL).logits[:, :-1], -1).gather(2, ids_BL[:, 1:, None])
        hidden_ND = sampled_tokens.body_states(model, ids_BL)[:, :-1].flatten(0, 1)
        found_N, _ = sampled_tokens.read_tokens(model, hidden_ND, ids_BL[:, 1:].flatten())
        torch.testing.assert_close(found_N, expected.flatten())
        found_N.sum().backward()
        assert model.get_output_embeddings().weight.grad.abs().sum() > 0


def test_logits_that_hidden_states_do_not_determine_are_refused() -> None:
    with pytest.raises(ConfigError, match="models of type granite change logits behind their output"):
        check_logits(Favouring(granite(1.0).config))


def with_dropout(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    if kind == "opt":
        return OPTForCausalLM(OPTConfig(**shape, ffn_dim=16, word_embed_proj_dim=16, dropout=0.3))
    return GraniteForCausalLM(GraniteConfig(**shape, num_key_value_heads=2, attention_dropout=0.5))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["gpt2", "opt", "granite"])
def test_dropout_is_off_also_in_training(kind: str) -> None:
    model = with_dropout(kind).train()
    ids = torch.arange(4, 24)[None]
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    without_dropout(model)
    learning = model(input_ids=ids).logits
    assert torch.equal(learning, model(input_ids=ids).logits)
    torch.testing.assert_close(learning, model.eval()(input_ids=ids).logits, atol=1e-5, rtol=0)
