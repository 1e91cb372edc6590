"""A real vLLM server: the tokens and log-probabilities of this process, new weights, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from rlprm.errors import ConfigError, MismatchError
from rlprm.models.loading import load_causal_lm
from rlprm.models.tiny import tiny_model
from rlprm.policies.config import PolicyConfig
from rlprm.policies.decoding.whole import read_places
from rlprm.policies.hf import HFPolicy
from rlprm.policies.self_check import compare_stored
from rlprm.policies.server.check import out_of_step
from rlprm.policies.server.client import Servers
from rlprm.policies.server.policy import ServerPolicy
from rlprm.policies.server.sync import push_adapter, push_weights, write_weights
from rlprm.rollouts.waves import rollout
from rlprm.types import EpisodeSetting, Split, Task
from tests.toys import agents, corridor
from tests.vllm_server import CONTEXT, RealServer

CHAT = EpisodeSetting(round_limit=5, prompt="short")
BOUND = 1e-3


def config(at: RealServer, **changes: Any) -> PolicyConfig:
    settings: dict[str, Any] = {"model": str(at.model), "max_new_tokens": 8, "server": [at.url]}
    return PolicyConfig(**{**settings, **changes})


def remote(server: RealServer, **changes: Any) -> ServerPolicy:
    return config(server, **changes).connect()


def local(server: RealServer, **changes: Any) -> HFPolicy:
    found = config(server, server=[], **changes).load_policy()
    assert isinstance(found, HFPolicy)
    return found


def jobs(count: int = 5, samples: int = 3) -> list[tuple[Task, int]]:
    listed = corridor.tasks(Split.TRAIN, 0, count)
    tasks = [replace(t, spec={**t.spec, "budget": 1 + i}) for i, t in enumerate(listed)]
    return [(task, sample) for task in tasks for sample in range(samples)]


def others(server: RealServer, folder: Path) -> tuple[PreTrainedModel, Path]:
    """Other weights of the same shape, in a folder that the server can read."""
    model = load_causal_lm(str(server.model), dtype="float32")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter))
    write_weights(model.state_dict(keep_vars=True), folder)
    return model, folder


def reader(model: PreTrainedModel, temperature: float = 1.0) -> Any:
    def read(ids: Sequence[int], places: Sequence[int]) -> list[float]:
        return read_places(model, ids, places, temperature=temperature)[0]

    return read


PROMPT = agents.renderer().prompt_ids([{"role": "user", "content": "left right " * 40}])


def test_greedy_messages_are_the_same(vllm: RealServer) -> None:
    ours, theirs = (rollout(jobs(), of(vllm, temperature=0.0), CHAT) for of in (local, remote))
    for a, b in zip(ours, theirs, strict=True):
        assert a.token_ids == b.token_ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
        assert (a.stop, a.outcome, a.messages) == (b.stop, b.outcome, b.messages)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_stored_log_probabilities_are_those_of_one_forward(vllm: RealServer, temperature: float) -> None:
    theirs = rollout(jobs(), remote(vllm, temperature=temperature), CHAT)
    for policy in (local(vllm, temperature=temperature), remote(vllm, temperature=temperature)):
        agreement = compare_stored(policy, theirs)
        assert agreement is not None
        assert agreement.tokens > 50
        assert agreement.largest < 1e-4
    ends = {t.action_mask[step.end] for t in theirs for step in t.steps}
    assert ends == {0, 1}  # some messages were cut, others ended themselves


def test_seeds_repeat_in_another_batch(vllm: RealServer) -> None:
    policy = remote(vllm)
    everyone = rollout(jobs(), policy, CHAT)
    for number in (0, 7):
        assert rollout([jobs()[number]], policy, CHAT)[0].token_ids == everyone[number].token_ids
    assert len({t.token_ids for t in everyone}) > 5


def test_another_model_is_refused(vllm: RealServer, tmp_path: Path) -> None:
    other = tiny_model(agents.renderer().tokenizer, size="xs", context_length=CONTEXT, seed=5)
    with torch.no_grad():
        other.model.norm.weight += 0.1
    other.save_pretrained(tmp_path)
    agents.renderer().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(MismatchError, match=r"has the weights of .*, not those of"):
        remote(vllm, model=str(tmp_path))


def test_new_weights_arrive_under_a_version(vllm: RealServer, tmp_path: Path) -> None:
    before = remote(vllm)
    prompts = [PROMPT]
    model, folder = others(vllm, tmp_path / "weights")
    assert out_of_step(before, prompts, reader(model), bound=BOUND) is not None
    before.servers.run(push_weights(before.servers, folder, "v7"))
    assert out_of_step(before, prompts, reader(model), bound=BOUND) is None
    with pytest.raises(MismatchError, match="version v7, expected: default"):
        rollout(jobs(1, 1), before, CHAT)
    after = before.with_weights(revision="r7", versions=frozenset({"v7"}))
    assert {t.policy for t in rollout(jobs(1, 1), after, CHAT)} == {"r7"}


@pytest.mark.trap("a prefix cache that outlives the weights")
def test_trap_a_reload_that_keeps_the_prefix_cache_is_noticed(vllm: RealServer, tmp_path: Path) -> None:
    policy = remote(vllm)
    model, folder = others(vllm, tmp_path / "weights")
    out_of_step(policy, [PROMPT], reader(model), bound=BOUND)  # the server reads the prompt under old weights
    policy.servers.run(_reload(policy.servers, folder, repack=True))
    found = out_of_step(policy, [PROMPT], reader(model), bound=BOUND)
    assert found is not None
    assert "prefix cache" in found
    policy.servers.run(push_weights(policy.servers, folder, "v8"))
    assert out_of_step(policy, [PROMPT], reader(model), bound=BOUND) is None


@pytest.mark.trap("a tied output layer that stays old after a reload")
def test_trap_a_tied_output_layer_that_stays_old_is_noticed(vllm: RealServer, tmp_path: Path) -> None:
    policy = remote(vllm)
    model, folder = others(vllm, tmp_path / "weights")
    fresh = agents.renderer().prompt_ids([{"role": "user", "content": "never read before"}])
    policy.servers.run(_reload(policy.servers, folder, repack=False))
    found = out_of_step(policy, [fresh], reader(model), bound=BOUND)
    assert found is not None
    assert "weights, adapter or temperature" in found


async def _reload(servers: Servers, folder: Path, *, repack: bool) -> None:
    """What a careless client would do: weights without the rest."""
    for method, arguments in [("reload_weights", {"weights_path": str(folder)}), ("rlprm_repack", {})][
        : 1 + repack
    ]:
        body = {"method": method, "kwargs": arguments}
        await servers.ask("/collective_rpc", body, str, server=servers.all[0], as_text=True)


def test_an_adapter_is_loaded_under_its_own_name(vllm: RealServer, tmp_path: Path) -> None:
    policy = remote(vllm)
    base = load_causal_lm(str(vllm.model), dtype="float32")
    torch.manual_seed(2)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(tmp_path / "a1")
    policy.servers.run(push_adapter(policy.servers, tmp_path / "a1", "a1", before=None))
    acting = policy.with_weights(revision="a1", versions=None, name="a1")
    assert out_of_step(acting, [PROMPT], reader(adapted), bound=BOUND) is None  # type: ignore[arg-type]
    assert out_of_step(policy, [PROMPT], reader(adapted), bound=BOUND) is not None  # type: ignore[arg-type]
    policy.servers.run(push_adapter(policy.servers, tmp_path / "a1", "a2", before="a1"))
    with pytest.raises(MismatchError, match=r"has lost the adapter a1 .*does not exist"):
        rollout(jobs(1, 1), acting, CHAT)


def test_a_rank_that_the_server_has_no_room_for_is_refused(vllm: RealServer, tmp_path: Path) -> None:
    policy = remote(vllm)
    base = load_causal_lm(str(vllm.model), dtype="float32")
    get_peft_model(base, LoraConfig(r=64, target_modules=["q_proj"])).save_pretrained(tmp_path / "big")
    with pytest.raises(ConfigError, match="max-lora-rank"):
        policy.servers.run(push_adapter(policy.servers, tmp_path / "big", "big", before=None))
