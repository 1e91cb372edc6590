"""Operations from sizes by hand, what a row computed, and parts that are measured over several runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForTokenClassification

from rlprm.evaluation.compute import Meter, ModelSize, flops, mean_context, row_compute, size_of
from rlprm.evaluation.records import Costs, EvaluationRecord, measure
from rlprm.types import End
from tests.toys.trajectories import trajectory

SIZES = {
    "vocab_size": 10, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1,
}  # fmt: skip
# One block: queries 8·8 + 8, keys and values 2 (8·4 + 4), output 8·8, three MLP matrices 8·12, two norms.
BLOCK = 72 + 2 * 36 + 64 + 3 * 96 + 2 * 8
BODY = 2 * BLOCK + 8  # and the last norm


@pytest.mark.parametrize("tied", [True, False])
def test_the_sizes_of_a_decoder_by_hand(tied: bool) -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=tied))
    assert size_of(model) == ModelSize(body=BODY, layers=2, width=8, head=80)


def test_a_scalar_head_belongs_to_the_body() -> None:
    model = Qwen2ForTokenClassification(Qwen2Config(**SIZES, num_labels=1))
    assert size_of(model) == ModelSize(body=BODY + 8 + 1, layers=2, width=8, head=0)


def test_operations_by_hand() -> None:
    size = ModelSize(body=100, layers=2, width=8, head=50)
    # Each of 3 tokens: 2·100 for the blocks, 4·2·8·5 for a context of 5. Two tokens have logits: 2·2·50.
    assert flops(size, tokens=3, context=5, logits=2) == 3 * (200 + 320) + 200


def test_the_mean_context_of_causal_reading() -> None:
    # Contexts 1, 2, 3 and 1: seven over four tokens.
    assert mean_context([trajectory("..c"), trajectory(".")]) == 7 / 4
    assert mean_context([]) == 0


def record(strategy: str, scorer: str | None = None, n: int = 1, prm_tokens: float = 0) -> EvaluationRecord:
    return measure(
        {"a": 1.0}, [1.0], strategy=strategy, end=End.DECLARED, scorer=scorer, n=n, m=2 if n == 2 else 1,
        costs=Costs(30, 20, prm_tokens, 5), search="again" if strategy == "search" else None,
    ).record  # fmt: skip


def test_a_row_has_the_operations_of_both_models_and_its_share_of_the_pool() -> None:
    meter = Meter()
    meter.seconds = {"pool": 8.0, "scoring prm": 4.0, "greedy": 1.0, "beam 2x2 prm": 6.0, "again prm": 7.0}
    meter.peak_memory = {"pool": 100, "scoring prm": 300, "beam 2x2 prm": 200}
    policy, scorer = ModelSize(100, 1, 10, 50), ModelSize(200, 1, 10, 0)

    def of(row: EvaluationRecord) -> dict[str, float | None]:
        return row_compute(
            row, meter, policy=policy, scorers={"prm": scorer, "mine": None}, pool_size=4, context=10
        )

    acting = 30 * (200 + 400) + 20 * 2 * 50
    assert of(record("best_of_n", "prm", 2, prm_tokens=40)) == {
        "policy_flops": acting, "scorer_flops": 40 * (400 + 400), "seconds": 6.0, "peak_memory": 300,
    }  # fmt: skip
    assert of(record("greedy")) == {
        "policy_flops": acting, "scorer_flops": 0, "seconds": 1.0, "peak_memory": 0,
    }  # fmt: skip
    assert of(record("beam", "prm", 2, 40))["seconds"] == 6.0
    assert of(record("search", "prm", 1, 40))["seconds"] == 7.0
    assert of(record("sample_mean"))["seconds"] == 2.0
    assert of(record("best_of_n", "prm_x_policy", 4))["seconds"] == 12.0
    assert of(record("best_of_n", "mine", 2, 40))["scorer_flops"] is None  # tokens of a model of unknown size
    assert of(record("best_of_n", "mine", 2, 0))["scorer_flops"] == 0


def interrupted_after(seconds: float) -> None:
    time.sleep(seconds)
    raise KeyboardInterrupt


def test_a_part_that_resumes_adds_up_over_runs_even_if_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "compute.json"
    meter = Meter(path)
    with meter.measure("pool", resumes=True):
        pass
    meter.seconds["pool"] = 2.0
    with pytest.raises(KeyboardInterrupt), meter.measure("pool", resumes=True):
        interrupted_after(0.02)
    assert json.loads(path.read_text())["seconds"] == meter.seconds
    assert 2.02 <= meter.seconds["pool"] < 2.5
    again = Meter(path)
    assert again.seconds == meter.seconds
    assert again.peak_memory["pool"] > 10_000_000  # bytes of a process with torch


def test_of_a_part_that_every_run_does_anew_the_last_complete_run_counts(tmp_path: Path) -> None:
    path = tmp_path / "compute.json"
    meter = Meter(path)
    meter.seconds["greedy"] = 7.0
    with pytest.raises(KeyboardInterrupt), meter.measure("greedy"):
        raise KeyboardInterrupt
    assert meter.seconds["greedy"] == 7.0
    with meter.measure("greedy"):
        pass
    assert Meter(path).seconds["greedy"] < 0.5
