"""Two processes under DeepSpeed are one process, and hold half of what ZeRO says they hold half of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from rlprm.models.heads.reading import read_sequences
from rlprm.models.heads.value_positions import chain_positions
from rlprm.models.loading import load_lm_reward_model, load_scalar_model
from rlprm.models.lora import save_trained
from rlprm.prm.trainer import PRMTrainer
from tests.deepspeed import jobs
from tests.deepspeed.conftest import needs_deepspeed
from tests.deepspeed.launches import Launched, Launches
from tests.prm import toy

pytestmark = [pytest.mark.slow, pytest.mark.deepspeed, needs_deepspeed]

CASES = [(1, "plain"), (2, "plain"), (3, "plain"), (3, "likelihood"), (3, "adapters")]
Case = tuple[Launched, PRMTrainer]


@pytest.fixture(scope="module")
def alone(launches: Launches, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PRMTrainer]:
    """Train in this process, without DeepSpeed; once for each kind."""
    trained: dict[str, PRMTrainer] = {}

    def train(kind: str) -> PRMTrainer:
        if kind not in trained:
            build = toy.builder(launches.models / "prm", tmp_path_factory.mktemp("alone"))
            settings = {**jobs.KINDS[kind], "save_strategy": "no", "per_device_train_batch_size": 8}
            trained[kind] = build(jobs.DATA, jobs.HELD_OUT, head_seed=None, folder=kind, **settings)
            trained[kind].train()
        return trained[kind]

    return train


def launched(launches: Launches, stage: int) -> Launched:
    job = "split" if stage == 3 else "plain"
    return launches.job(f"zero{stage}", job, "--config_file", f"ds_configs/cpu_zero{stage}.yaml")


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize(("stage", "kind"), CASES)
def test_deepspeed_two_processes_equal_one_without(
    launches: Launches, alone: Callable[[str], PRMTrainer], stage: int, kind: str
) -> None:
    seen, one = launched(launches, stage), alone(kind)
    losses = jobs.losses(one)
    assert len(losses) == 4 * jobs.EPOCHS
    assert seen.numbers[f"{kind} losses"] == pytest.approx(losses, abs=1e-5)
    ours, theirs = dict(one.model.state_dict()), seen.named(f"{kind} weights")
    assert largest_difference(theirs, ours) < 1e-5
    start = load_scalar_model(str(launches.models / "prm")).state_dict()
    if kind == "plain":
        assert largest_difference(theirs, start) > 1e-3
    torch.testing.assert_close(
        seen.tensors[f"{kind} values"], one.predict_logits(jobs.DATA[:5]), atol=1e-5, rtol=0
    )
    expected = one.evaluate()
    for metrics in seen.numbers[f"{kind} metrics"]:
        assert metrics == pytest.approx({name: expected[name] for name in metrics}, abs=1e-5)


@pytest.mark.parametrize(("stage", "kind"), CASES)
def test_deepspeed_a_killed_run_goes_on_to_the_same_weights(
    launches: Launches, stage: int, kind: str
) -> None:
    seen = launched(launches, stage)
    assert len(list((seen.folder / f"{kind}-killed").glob("checkpoint-*/global_step*"))) > 1
    assert largest_difference(seen.named(f"{kind} resumed"), seen.named(f"{kind} weights")) < 1e-6


@pytest.mark.parametrize(("stage", "kind"), CASES)
def test_deepspeed_every_process_holds_its_part_only(launches: Launches, stage: int, kind: str) -> None:
    numbers = launched(launches, stage).numbers
    (size, _), (trained, _) = numbers[f"{kind} sizes"], numbers[f"{kind} trained"]
    weights = launched(launches, stage).named(f"{kind} weights")
    # An output layer is the embedding by another name.
    whole = sum(tensor.numel() for name, tensor in weights.items() if name != "lm_head.weight")
    assert trained < size / 10 if kind == "adapters" else size == whole
    for part in numbers[f"{kind} optimizer"]:  # padded, so that all parts are of one size
        assert trained / 2 <= part <= trained / 2 + 30
    for moment in ("held before", "held"):  # from the moment it is loaded
        for part in numbers[f"{kind} {moment}"]:
            if stage < 3:
                assert part == size
            elif kind != "adapters" or moment == "held":
                assert size / 2 <= part <= size / 2 + 60


@pytest.mark.parametrize(("stage", "kind"), CASES)
def test_deepspeed_what_is_saved_loads_with_stock_transformers(
    launches: Launches, alone: Callable[[str], PRMTrainer], tmp_path: Path, stage: int, kind: str
) -> None:
    seen, one = launched(launches, stage), alone(kind)
    saved = seen.folder / f"{kind}-saved"
    stock = AutoModelForTokenClassification.from_pretrained(saved).eval()
    assert type(stock.score) is nn.Linear
    assert {p.dtype for p in stock.parameters()} == {torch.float32}
    save_trained(one, str(tmp_path), lambda: load_scalar_model(str(launches.models / "prm")))
    expected = AutoModelForTokenClassification.from_pretrained(tmp_path).state_dict()
    assert largest_difference(dict(stock.state_dict()), dict(expected)) < 1e-5
    assert sorted(path.name for path in saved.iterdir()) == sorted(
        path.name for path in tmp_path.iterdir() if path.name != "training_args.bin"
    )
    assert (saved / "model.safetensors").stat().st_size == (tmp_path / "model.safetensors").stat().st_size
    t = jobs.DATA[0]
    if kind == "likelihood":
        model, positions = load_lm_reward_model(str(saved)), [chain_positions(t, head=kind)]
        logits = torch.tensor(read_sequences(model, [t.token_ids], positions, [[0]])[0])
    else:
        with torch.no_grad():
            logits = stock(input_ids=torch.tensor([t.token_ids])).logits[0, list(t.value_positions), 0]
    values = seen.tensors[f"{kind} values"][0, : len(logits)]
    torch.testing.assert_close(logits, values, atol=1e-5, rtol=0)
    if kind == "adapters":
        base = load_scalar_model(str(launches.models / "prm"))
        again = PeftModel.from_pretrained(base, str(saved / "adapter")).eval()
        with torch.no_grad():
            same = again(input_ids=torch.tensor([t.token_ids])).logits[0, list(t.value_positions), 0]
        torch.testing.assert_close(same, values, atol=1e-5, rtol=0)


def test_deepspeed_other_models_beside_the_one_that_is_trained(launches: Launches) -> None:
    seen = launched(launches, 3)
    policy = AutoModelForCausalLM.from_pretrained(launches.models / "policy").eval()
    with torch.no_grad():
        expected = policy(input_ids=jobs.IDS).logits
    whole = torch.tensor(seen.numbers["whole logits"][1])
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_processes_meet_without_a_trainer_too(launches: Launches, stage: int) -> None:
    numbers = launched(launches, stage).numbers
    assert numbers["joined"] == 2 * [[2, "cpu", "DEEPSPEED", stage, stage]]
    (size, _) = numbers["plain sizes"]
    expected = size if stage < 3 else (size + 1) / 2
    assert all(expected <= part <= expected + 60 for part in numbers["joined held"])


def test_deepspeed_a_new_head_is_zero_in_every_process(launches: Launches) -> None:
    seen = launched(launches, 3)
    size = AutoModelForCausalLM.from_pretrained(launches.models / "policy").num_parameters() + 65
    assert all(part < 0.6 * size for part in seen.numbers["fresh held"])
    assert seen.numbers["fresh head"] == [[0.0, 0.0], [0.0, 0.0]]


def test_deepspeed_models_with_another_head_are_refused_in_every_process(launches: Launches) -> None:
    found = launched(launches, 3).numbers["refused"]
    assert found[0] == found[1]
    no_policy, several = found[0]
    assert "holds a model with a scalar head (a PRM), not a policy" in no_policy
    assert "does not fit a model with one label: it has 3" in several


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_processes_that_do_not_know_of_each_other_are_refused(
    launches: Launches, stage: int
) -> None:
    said = launched(launches, stage).numbers["plain miscounted"]
    assert said[0].startswith("4 processes were launched, but the trainer sees 2")
    assert said[0] == said[1]


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_deepspeed_in_bfloat16_values_and_saved_weights_keep_their_digits(
    launches: Launches, alone: Callable[[str], PRMTrainer], name: str
) -> None:
    """The configurations of GPUs, on CPUs."""
    options = ("--config_file", f"ds_configs/{name}.yaml", "--num_processes", "2", "--main_process_port", "0")
    seen = launches.job(f"coarse-{name}", "coarse", *options)
    assert seen.numbers["dtypes"] == ["torch.bfloat16"]
    coarse, exact = seen.numbers["losses"], jobs.losses(alone("plain"))
    # Adam's first steps have the size of the rate whatever the gradient, so that rounding soon shows.
    assert coarse[:2] == pytest.approx(exact[:2], rel=0.1)
    assert sum(coarse) == pytest.approx(sum(exact), rel=0.3)
    values = seen.tensors["values"]
    values = values[values != 0]
    assert (values != values.bfloat16().float()).float().mean() > 0.9
    saved = AutoModelForTokenClassification.from_pretrained(seen.folder / "saved")
    assert saved.dtype == torch.float32
    for layer in saved.model.layers.parameters():  # embeddings of words that do not occur have not moved
        assert (layer != layer.bfloat16().float()).float().mean() > 0.9
