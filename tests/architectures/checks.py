"""What must hold for every architecture; each check returns what is wrong, or nothing."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel

from rlprm.errors import RlprmError
from rlprm.models.heads.reading import read_sequences
from rlprm.models.heads.value_positions import ValuePosition
from rlprm.models.kv_cache.support import reads_growing
from rlprm.models.loading import head_of, load_lm_reward_model, load_scalar_model
from rlprm.models.lora import with_adapters
from rlprm.models.sampled_tokens import body_states, check_logits, read_tokens
from rlprm.policies.decoding.base import Contexts, Draw
from rlprm.policies.decoding.choice import right_way, way_by_name
from rlprm.policies.decoding.whole import teacher_forced
from rlprm.runtime.tuning import TuningConfig
from tests.architectures.tiny import tiny_model

__all__ = ["CHECKS", "RIGHT", "Row", "row_of"]

VOCABULARY = 300
BOUND = 1e-4
"""Largest difference of log-probabilities, in nats, of two ways to the same tokens in float32."""
RIGHT = "right"
_LENGTHS = (9, 3, 14, 6)


class Row(NamedTuple):
    """What was found for one architecture."""

    model_type: str
    decoding: str
    """Name of the way of decoding; empty if there is none."""
    searching: str
    """``by what is new``, or ``whole``: how a reward model reads the candidates of a search."""
    verdict: str
    """``right``, or the reason why it is refused, wrong, or cannot be made."""
    seconds: float


def row_of(model_type: str) -> Row:
    """Run every check on the tiny random model of an architecture."""
    started = time.perf_counter()
    decoding = searching = ""
    try:
        model = tiny_model(model_type, VOCABULARY)
    except Exception as error:
        return Row(model_type, "", "", f"no tiny model: {_line(error)}", _since(started))
    try:
        decoding = right_way(model)
        for name, check in CHECKS.items():
            if wrong := check(model):
                return Row(model_type, decoding, "", f"{name}: {wrong}", _since(started))
        searching = _searching(model)
        verdict = RIGHT
    except RlprmError as error:
        verdict = f"refused: {_line(error)}"
    except Exception as error:
        verdict = f"{type(error).__name__}: {_line(error)}"
    return Row(model_type, decoding, searching, verdict, _since(started))


def decodes_as_one_whole_forward(model: PreTrainedModel) -> str:
    """Three turns, sampled and greedy: log-probabilities of a whole forward, and the slowest way's tokens."""
    for temperature in (1.0, 0.0):
        contexts = [_words(count, seed) for seed, count in enumerate(_LENGTHS)]
        known: list[list[int] | None] = [None] * len(contexts)
        decoder = way_by_name(right_way(model), -1)
        for turn in range(3):
            batch = Contexts(contexts, range(len(contexts)), known)
            with torch.inference_mode():
                said = decoder.decode(model, batch, _draw(turn, temperature))
                slowest = way_by_name("whole", -1).decode(model, batch, _draw(turn, temperature))
            if said.ids != slowest.ids:
                return f"other tokens than without a cache at temperature {temperature:g}, turn {turn + 1}"
            forced = teacher_forced(model, contexts, said.ids, temperature=temperature)
            largest = _largest(said.logprobs, forced)
            if not largest <= BOUND:
                return f"log-probabilities off by {largest:.1e} at turn {turn + 1}"
            known = [[*context, *ids] for context, ids in zip(contexts, said.ids, strict=True)]
            contexts = [[*row, *_words(1 + (turn + i) % 4, 50 + i)] for i, row in enumerate(known) if row]
        decoder.clear()
    return ""


def probabilities_at_chosen_tokens(model: PreTrainedModel) -> str:
    """RL's reading of sampled tokens gives the model's own log-probabilities and gradients."""
    check_logits(model)
    ids_BL = torch.tensor([_words(12, 7), _words(12, 8)])
    expected_BL = torch.log_softmax(model(input_ids=ids_BL, use_cache=False).logits[:, :-1].float(), -1)
    expected_N = expected_BL.gather(2, ids_BL[:, 1:, None]).flatten()
    hidden_ND = body_states(model, ids_BL)[:, :-1].flatten(0, 1)
    found_N, _ = read_tokens(model, hidden_ND, ids_BL[:, 1:].flatten())
    largest = float((found_N - expected_N).abs().max())
    return "" if largest <= BOUND else f"log-probabilities of chosen tokens off by {largest:.1e}"


def trains_with_adapters(model: PreTrainedModel) -> str:
    """LoRA on all linear layers: a step changes what the model says."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = type(model).from_pretrained(folder)
    adapted: Any = with_adapters(loaded, TuningConfig(lora_r=2), seed=0)
    return _learns(adapted, lambda: -_chosen(adapted).mean())


def heads_load_and_save(model: PreTrainedModel) -> str:
    """An lm head and a scalar head: load from the policy, save with weights of their own, and load again.

    Both read the policy's own hidden states.
    """
    positions = [[ValuePosition.at(3), ValuePosition(3, 4, 9), ValuePosition.at(8)]]
    ids = _words(12, 9)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "policy")
        load: Mapping[str, Callable[[str], PreTrainedModel]] = {
            "lm": lambda path: load_lm_reward_model(path, scale=0.1, dtype="float32"),
            "scalar": lambda path: load_scalar_model(path, dtype="float32"),
        }
        for head, of_folder in load.items():
            made = of_folder(str(Path(folder) / "policy"))
            if not (largest := _differ_in_states(made, model, ids)) <= BOUND:
                return f"{head} head: reads other hidden states than the policy's, by {largest:.1e}"
            for parameter in made.parameters():
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
            before = read_sequences(made, [ids], positions, [[0]])
            made.save_pretrained(Path(folder) / head)
            again = read_sequences(of_folder(str(Path(folder) / head)), [ids], positions, [[0]])
            if not _largest(before, again) <= BOUND:
                return f"{head} head: other values after saving and loading"
    return ""


CHECKS: Mapping[str, Callable[[PreTrainedModel], str]] = {
    "decoding": decodes_as_one_whole_forward,
    "probabilities": probabilities_at_chosen_tokens,
    "heads": heads_load_and_save,
    "LoRA": trains_with_adapters,
}


@torch.no_grad()
def _differ_in_states(made: PreTrainedModel, policy: PreTrainedModel, ids: list[int]) -> float:
    """Return the largest difference of what a reward model's head is given and the policy's hidden states."""
    given: list[torch.Tensor] = []
    layer = made.get_submodule(head_of(made)[-1])
    hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    read_sequences(made, [ids], [[ValuePosition.at(i) for i in range(len(ids))]], [[0]])
    hook.remove()
    return float((given[0] - body_states(policy, torch.tensor([ids]))).abs().max())


def _searching(model: PreTrainedModel) -> str:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return "by what is new" if reads_growing(load_lm_reward_model(folder, scale=0.1)) else "whole"


def _chosen(model: Any) -> torch.Tensor:
    ids_BL = torch.tensor([_words(12, 7)])
    hidden_ND = body_states(model, ids_BL)[0, :-1]
    return read_tokens(model, hidden_ND, ids_BL[0, 1:])[0]


def _learns(model: Any, loss_of: Callable[[], torch.Tensor]) -> str:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(3):
        loss = loss_of()
        losses.append(float(loss))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return "" if losses[-1] < losses[0] else f"losses of three steps: {losses}"


def _draw(turn: int, temperature: float) -> Draw:
    uniforms_BK = torch.rand(len(_LENGTHS), 7, generator=torch.Generator().manual_seed(90 + turn))
    return Draw(uniforms_BK, temperature, torch.arange(0, VOCABULARY, 3), pad_id=0)


def _words(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()


def _largest(ours: list[list[float]], theirs: list[list[float]]) -> float:
    return max(abs(a - b) for x, y in zip(ours, theirs, strict=True) for a, b in zip(x, y, strict=True))


def _line(error: Exception) -> str:
    text = re.sub(r"'/[^']*'", "the checkpoint", str(error).strip() or type(error).__name__)
    return " ".join(text.split())[:200]


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 1)
