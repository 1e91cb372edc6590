"""Fine-tuning that reads learned tokens only has the loss and the gradients of reading all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from trl import SFTConfig, SFTTrainer

from rlprm.models.tokenizer import train_tokenizer
from rlprm.sft.trainer import IGNORED, LearnedTokensTrainer, learned_tokens
from tests.architectures.tiny import tiny_model

SHAPE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def model(kind: str = "qwen2") -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "gemma2":  # caps its logits
        return Gemma2ForCausalLM(Gemma2Config(**SHAPE, final_logit_softcapping=0.5, sliding_window=64))
    if kind == "mixtral":  # has a balancing loss
        return MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=4, num_experts_per_tok=2))
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE))


def rows(count: int = 6) -> Dataset:
    """Return rows of several lengths, of which a third is learned."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for row in range(count):
        ids = torch.randint(3, 300, (9 + 5 * row,), generator=generator).tolist()
        labels = [token if at % 3 == 0 else IGNORED for at, token in enumerate(ids)]
        found.append({"input_ids": ids, "labels": labels})
    return Dataset.from_list(found)


def trained(
    kind: type[SFTTrainer],
    folder: Path,
    of: str = "qwen2",
    rank: int = 0,
    *,
    data: Dataset | None = None,
    **settings: Any,
) -> SFTTrainer:
    arguments = SFTConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, max_steps=3, per_device_train_batch_size=3,
        gradient_accumulation_steps=2, logging_steps=1, learning_rate=1e-2, lr_scheduler_type="constant",
        save_strategy="no", report_to="none", dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False, dataloader_pin_memory=False, **settings,
    )  # fmt: skip
    policy: Any = model(of)
    if rank:
        torch.manual_seed(1)
        policy = get_peft_model(
            policy, LoraConfig(r=rank, task_type="CAUSAL_LM", target_modules="all-linear")
        )
    trainer = kind(
        model=policy,
        args=arguments,
        train_dataset=data or rows(),
        processing_class=train_tokenizer(["a wall"]),
    )
    trainer.train()
    return trainer


def losses(trainer: SFTTrainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(("of", "rank"), [("qwen2", 0), ("qwen2", 4), ("gemma2", 0), ("mixtral", 0)])
def test_losses_metrics_and_weights_are_those_of_reading_every_token(
    of: str, rank: int, tmp_path: Path
) -> None:
    whole = trained(SFTTrainer, tmp_path / "whole", of, rank)
    ours = trained(LearnedTokensTrainer, tmp_path / "ours", of, rank)
    assert losses(ours) == pytest.approx(losses(whole), rel=1e-4)
    for name in ("mean_token_accuracy", "entropy"):
        ours_all = [entry[name] for entry in ours.state.log_history if name in entry]
        whole_all = [entry[name] for entry in whole.state.log_history if name in entry]
        assert len(ours_all) == 3
        if rank == 0 and of == "qwen2":  # TRL averages micro-batches, we average tokens
            assert ours_all == pytest.approx(whole_all, abs=0.1)
    for (name, a), b in zip(ours.model.named_parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=0, msg=name)
    assert losses(ours)[0] != losses(ours)[2]


def test_the_output_layer_sees_learned_tokens_only(tmp_path: Path) -> None:
    seen = []

    class Counted(LearnedTokensTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.model.lm_head.register_forward_pre_hook(
                lambda _, inputs: seen.append(inputs[0].numel() // 16)
            )

    trained(Counted, tmp_path)
    learned = [sum(label != IGNORED for label in labels[1:]) for labels in rows()["labels"]]
    assert sum(seen) == 3 * sum(learned)  # 3 updates of all rows
    assert len(seen) == 6


def test_values_are_those_of_the_whole_forward_whatever_side_is_padded() -> None:
    policy = model().eval()
    ids = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 10, 11, 12]])
    labels = torch.tensor([[5, IGNORED, 7, 8, 9], [IGNORED, IGNORED, IGNORED, 11, 12]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    found, entropies, is_first = learned_tokens(policy, labels, input_ids=ids, attention_mask=mask)
    logits = policy(input_ids=ids, attention_mask=mask).logits[:, :-1]
    expected = -cross_entropy(logits.reshape(-1, 300), labels[:, 1:].reshape(-1), reduction="none")
    chosen = labels[:, 1:] != IGNORED
    torch.testing.assert_close(found, expected.reshape(2, 4)[chosen])
    probs = logits.softmax(-1)[chosen]
    torch.testing.assert_close(entropies, -(probs * probs.log()).sum(-1))
    assert is_first.tolist() == (logits.argmax(-1)[chosen] == labels[:, 1:][chosen]).float().tolist()
    assert found.requires_grad
    assert not entropies.requires_grad


@pytest.mark.filterwarnings("ignore:`label_smoothing_factor`")
def test_what_goes_beyond_the_likelihood_is_left_to_trl(tmp_path: Path) -> None:
    settings = {"label_smoothing_factor": 0.1, "average_tokens_across_devices": False}
    whole = trained(SFTTrainer, tmp_path / "whole", **settings)
    ours = trained(LearnedTokensTrainer, tmp_path / "ours", **settings)
    assert losses(ours) == losses(whole)
    assert losses(ours) != losses(trained(LearnedTokensTrainer, tmp_path / "plain"))


@pytest.mark.parametrize("kind", ["llama", "llama4_text", "modernbert-decoder", "mamba", "gemma3_text"])
def test_tokens_of_any_decoder_have_its_own_probabilities(kind: str) -> None:
    policy = tiny_model(kind, 300)
    ids = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(12) % 3 == 0, ids, torch.tensor(IGNORED))
    found, _, _ = learned_tokens(policy, labels, input_ids=ids)
    logprobs = policy(input_ids=ids, use_cache=False).logits[:, :-1].log_softmax(-1)
    chosen = labels[:, 1:] != IGNORED
    expected = logprobs.gather(2, ids[:, 1:, None]).squeeze(2)[chosen]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_batch_without_learned_tokens_adds_nothing(tmp_path: Path) -> None:
    silent = [{"input_ids": [5, 6, 7, 8], "labels": [IGNORED] * 4}]
    trainer = trained(LearnedTokensTrainer, tmp_path, data=Dataset.from_list(silent))
    assert losses(trainer) == [0.0] * 3
