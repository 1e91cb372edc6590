"""Reading values: one forward for all positions of a row, whatever stands beside or behind it."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from rlprm.data.batching import budget_batches, sized_batches
from rlprm.models.heads.reading import read_logits, read_sequences, stack_positions
from rlprm.models.heads.value_positions import ValuePosition
from rlprm.models.loading import load_scalar_model


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> PreTrainedModel:
    made = load_scalar_model(str(tiny_folder))
    torch.nn.init.normal_(made.score.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return made.eval()


def at(*places: int) -> list[ValuePosition]:
    return [ValuePosition.at(place) for place in places]


def ragged(count: int = 9) -> tuple[list[list[int]], list[list[ValuePosition]]]:
    """Sequences of different lengths, read at different numbers of positions, ends included."""
    generator = torch.Generator().manual_seed(1)
    sequences, positions = [], []
    for row in range(count):
        length = 5 + 7 * ((row * 5) % count)
        sequences.append(torch.randint(0, 300, (length,), generator=generator).tolist())
        inner = torch.randperm(length - 1, generator=generator)[: row % 4].sort().values.tolist()
        positions.append(at(*inner, length - 1))
    return sequences, positions


def one_prefix_at_a_time(
    model: PreTrainedModel, ids: list[int], positions: list[ValuePosition]
) -> list[float]:
    """The plain definition: the value at position p is the last output for the tokens up to p."""
    with torch.no_grad():
        return [
            model(input_ids=torch.tensor([ids[: r.place + 1]])).logits[0, -1, 0].item() for r in positions
        ]


def test_one_padded_forward_reads_what_a_forward_for_each_prefix_reads(model: PreTrainedModel) -> None:
    sequences, positions = ragged()
    lengths = list(map(len, sequences))
    for batches in (budget_batches(lengths, 200), sized_batches(lengths, 4), [range(9)]):
        read = read_sequences(model, sequences, positions, batches)
        for row in range(9):
            expected = one_prefix_at_a_time(model, sequences[row], positions[row])
            assert read[row] == pytest.approx(expected, abs=1e-5)
            assert len(read[row]) == len(positions[row])


def test_what_stands_in_the_padding_changes_nothing(model: PreTrainedModel) -> None:
    ids = torch.randint(0, 300, (2, 30), generator=torch.Generator().manual_seed(2))
    positions = stack_positions([at(3, 9), at(0, 29)])
    with torch.no_grad():
        before = read_logits(model, ids, positions)
        ids[0, 10:] = 7
        after = read_logits(model, ids, positions)
    assert torch.equal(before, after)
    assert len(set(before.flatten().tolist())) == 4


def test_results_stand_in_the_order_of_the_sequences(model: PreTrainedModel) -> None:
    sequences, positions = ragged()
    done: list[int] = []
    together = read_sequences(model, sequences, positions, [[8, 0, 3], [1, 2], [7, 6, 5, 4]])
    alone = read_sequences(model, sequences, positions, [[i] for i in range(9)], on_batch=done.append)
    assert together == [pytest.approx(row, abs=1e-5) for row in alone]
    assert done == [1] * 9


def test_the_models_mode_is_restored_even_after_a_failure(model: PreTrainedModel) -> None:
    for training in (True, False):
        model.train(training)
        read_sequences(model, [[1, 2]], [at(1)], [[0]])
        assert model.training is training
        with pytest.raises(RuntimeError):
            read_sequences(model, [[1, 2]], [at(5)], [[0]])
        assert model.training is training


def test_reading_is_done_without_dropout_in_whatever_mode_the_model_is(tiny_folder: Path) -> None:
    noisy = load_scalar_model(str(tiny_folder), dropout=0.5)
    torch.nn.init.normal_(noisy.score.weight)
    sequences, positions = ragged()
    quiet = read_sequences(noisy.eval(), sequences, positions, [range(9)])
    assert read_sequences(noisy.train(), sequences, positions, [range(9)]) == quiet


def test_gradients_flow_into_head_and_body_but_not_into_plain_reading(model: PreTrainedModel) -> None:
    ids, positions = torch.tensor([[5, 6, 7]]), stack_positions([at(0, 2)])
    read_logits(model, ids, positions).sum().backward()
    assert model.score.weight.grad.abs().sum() > 0
    embedding = model.get_input_embeddings().weight.grad
    assert embedding[5].abs().sum() > 0
    model.zero_grad()
    assert all(isinstance(v, float) for v in read_sequences(model, [[1, 2]], [at(0, 1)], [[0]])[0])
    assert model.score.weight.grad is None


@pytest.mark.parametrize("how", ["bfloat16 weights", "autocast", "a copy, autocast"])
@pytest.mark.trap("rounded values")
def test_trap_values_of_a_bfloat16_body_are_not_rounded_to_bfloat16(tiny_folder: Path, how: str) -> None:
    """Between 0.5 and 1 bfloat16 knows 128 numbers; the steps of a trajectory differ by less than that."""
    dtype = "bfloat16" if how == "bfloat16 weights" else "float32"
    model = load_scalar_model(str(tiny_folder), dtype=dtype, device=torch.device("cpu"))
    torch.nn.init.normal_(model.score.weight, std=0.005, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(model.score.bias, 0.75)
    if how == "a copy, autocast":
        model = deepcopy(model)
    ids = torch.randint(0, 300, (2, 30), generator=torch.Generator().manual_seed(3))
    positions = stack_positions([at(*range(30))] * 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "float32"):
        values = read_logits(model, ids, positions)
    assert values.dtype == torch.float32
    assert ((values > 0.5) & (values < 1)).all()
    rounded = values.to(torch.bfloat16).float()
    assert (values != rounded).float().mean() > 0.9


def test_a_copy_of_a_head_is_not_the_head(tiny_folder: Path) -> None:
    model = load_scalar_model(str(tiny_folder))
    copy = deepcopy(model)
    torch.nn.init.constant_(copy.score.bias, 3.0)
    ids = torch.tensor([[1, 2]])
    assert not model(input_ids=ids).logits.any()
    assert (copy(input_ids=ids).logits == 3.0).all()
