"""Settings of an endpoint: what is refused, in one line and before anything is sent, and what is recorded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlprm.data.confidence import action_probabilities
from rlprm.errors import ConfigError, MismatchError
from rlprm.models.hub import download
from rlprm.policies.base import Completion
from rlprm.policies.config import PolicyConfig
from rlprm.rl.batch import Batch
from rlprm.rl.config import RLConfig
from rlprm.runtime.provenance import warn_of_policy
from rlprm.runtime.settings import own_settings
from rlprm.scorers.policy_confidence import PolicyConfidence
from rlprm.scorers.with_confidence import WithConfidence
from rlprm.search import puct
from rlprm.stages.evaluate_parts.settings import EvaluateConfig
from rlprm.types import EpisodeSetting, Split
from tests.policies.openai.endpoints import configured
from tests.toys import agents, corridor
from tests.toys.fake_endpoint import KEY
from tests.toys.trajectories import of_steps

ENDPOINT: dict[str, Any] = {
    "model": "there", "endpoint": "https://host/v1", "endpoint_model": "toy", "context_length": 512,
}  # fmt: skip
EVALUATE: dict[str, Any] = {
    **ENDPOINT, "scorers": {"agentprm": "runs/prm"}, "with_confidence": False, "budgets": [1, 2],
    "chosen_at": 2, "environment": "tests.toys.corridor",
}  # fmt: skip
RL: dict[str, Any] = {"prm": "", "reward": "outcome", "advantage": "leave_one_out"}


def evaluating(**changes: Any) -> Callable[[], Any]:
    return lambda: EvaluateConfig(**{**EVALUATE, **changes})


def acting(**changes: Any) -> Callable[[], Any]:
    return lambda: PolicyConfig(**{**ENDPOINT, **changes})


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no address": (acting(endpoint="host/v1"), "endpoint: got 'host/v1'"),
    "the address of the path": (
        acting(endpoint="https://host/v1/chat/completions"), "without /chat/completions",
    ),
    "an address with a password": (acting(endpoint="https://me:secret@host/v1"), "OPENAI_API_KEY"),
    "an address with a query": (acting(endpoint="https://host/v1?key=secret"), "OPENAI_API_KEY"),
    "no model": (acting(endpoint_model=""), "endpoint_model: nothing given"),
    "a model without an address": (acting(endpoint=""), "endpoint_model: needs the address"),
    "parameters without an address": (
        acting(endpoint="", endpoint_model="", endpoint_kwargs={"top_p": 1}), "endpoint_kwargs: needs",
    ),
    "a server, too": (acting(server=["http://127.0.0.1:1"]), "endpoint: excludes server"),
    "a limit of thoughts": (acting(max_thinking_tokens=8), "max_thinking_tokens: got 8"),
    "the temperature": (acting(endpoint_kwargs={"temperature": 1}), "endpoint_kwargs: got temperature"),
    "the limit": (acting(endpoint_kwargs={"max_tokens": 1}), "endpoint_kwargs: got max_tokens"),
    "a stream": (acting(endpoint_kwargs={"stream": True}), "endpoint_kwargs: got stream"),
    "a key": (acting(endpoint_kwargs={"api_key": "secret"}), "endpoint_kwargs: got api_key"),
    "agent RL": (lambda: RLConfig(**{**ENDPOINT, **RL}), "endpoint: train-rl"),
    "a product": (evaluating(with_confidence=True), "with_confidence: got True"),
    "the policy's confidence": (
        evaluating(search_scorers=["policy_confidence"]), "search_scorers: got 'policy_confidence'",
    ),
    "the policy's confidence as a scorer": (
        evaluating(scorers={"own": {"kind": "policy_confidence"}}), r"scorers.own.kind: got policy_conf",
    ),
    "the policy's confidence in a search": (
        evaluating(searches={"one": {"strategy": "beam", "scorers": ["policy_confidence"]}}),
        r"searches.one.scorers: got 'policy_confidence'",
    ),
    "puct": (evaluating(searches={"one": {"strategy": "puct"}}), r"searches.one.strategy: got puct"),
    "another policy in a search": (
        evaluating(searches={"one": {"strategy": "beam", "policy": "runs/sft"}}), r"searches.one.policy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_endpoint_cannot_give_is_refused_in_one_line(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(ConfigError, match=said) as error:
        make()
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_what_needs_no_probabilities_is_allowed() -> None:
    config = EvaluateConfig(**EVALUATE, search_scorers=["random"])
    assert "policy_confidence" not in config.free_scorers()
    assert config.scorers_of_beams() == ["agentprm", "random"]


NEEDS: dict[str, Callable[[Any], Any]] = {
    "confidence": lambda t: action_probabilities(t, "action"),
    "policy_confidence": lambda t: PolicyConfidence().score([t]),
    "a product": lambda t: WithConfidence(agents.FunctionScorer(lambda *_: 1.0)).score([t]),
    "agent RL": lambda t: Batch.from_trajectories([t]),
}


@pytest.mark.parametrize("name", NEEDS)
def test_tokens_made_from_text_are_refused_where_probabilities_are_needed(name: str) -> None:
    made = of_steps(True, 2)
    NEEDS[name](made)
    with pytest.raises(MismatchError, match="were made from text"):
        NEEDS[name](replace(made, exact=False))


def test_puct_refuses_a_policy_that_gives_text_alone() -> None:
    class Speaker(agents.SeededPolicy):
        def _completion(self, text: str) -> Completion:
            said = {"role": "assistant", "content": text}
            return replace(super()._completion(text), said=said)  # type: ignore[arg-type]

    tasks, scorer = corridor.tasks(Split.TRAIN, 0, 1), agents.FunctionScorer(lambda *_: 0.5)
    puct.search(tasks, agents.SeededPolicy(), scorer, EpisodeSetting(), simulations=30)
    with pytest.raises(ConfigError, match="got puct"):
        puct.search(tasks, Speaker(), scorer, EpisodeSetting(), simulations=30)


def test_of_the_address_only_that_there_is_one_is_recorded() -> None:
    kwargs = {"reasoning_effort": "low"}
    recorded = own_settings(PolicyConfig(**ENDPOINT, endpoint_kwargs=kwargs))
    assert {k: v for k, v in recorded.items() if k.startswith("endpoint")} == {
        "endpoint": True, "endpoint_model": "toy", "endpoint_kwargs": kwargs,
    }  # fmt: skip
    local = own_settings(PolicyConfig(model="there"))
    assert not any(name.startswith("endpoint") for name in local)  # records from before stay valid


def test_the_policy_is_the_endpoint_s_model_with_its_parameters() -> None:
    plain, low, high = (
        PolicyConfig(**ENDPOINT, endpoint_kwargs=kwargs).policy_revision()
        for kwargs in ({}, {"reasoning_effort": "low"}, {"reasoning_effort": "high"})
    )
    assert plain == "endpoint:toy"
    assert len({plain, low, high}) == 3


@pytest.fixture
def tokenizer_alone(tiny_folder: Path, tmp_path: Path) -> Path:
    """A folder without weights and without a configuration."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(
        tiny_folder, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json", "generation*")
    )
    return folder


def test_a_tokenizer_is_all_that_is_needed(
    tokenizer_alone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    config = configured(tokenizer_alone)
    policy = config.load_policy()
    assert (policy.context_length, policy.revision, policy.model) == (512, "endpoint:toy", None)
    assert config.collection_meta(policy)["exact"] is False
    assert KEY not in str(config) + str(config.collection_meta(policy)) + repr(vars(policy))
    warn_of_policy(config)
    assert not caplog.text
    with pytest.raises(ConfigError, match="context_length: nothing given"):
        configured(tokenizer_alone, context_length=None).load_policy()


def test_the_context_of_a_model_is_its_own(tiny_folder: Path) -> None:
    assert configured(tiny_folder, context_length=None).load_policy().context_length == 512


@pytest.mark.parametrize("key", ["a b", "sk-\u00e9", "a\nb"])
def test_what_is_no_key_is_refused_and_not_shown(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as error:
        configured(tiny_folder).load_policy()
    assert key not in str(error.value)


def test_of_a_model_of_the_hub_the_weights_are_not_downloaded(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def snapshot(repository: str, **arguments: Any) -> str:
        asked.append([repository, *arguments["allow_patterns"]])
        return str(tiny_folder)

    monkeypatch.setattr(download, "snapshot_download", snapshot)
    download._small_files.cache_clear()
    config = configured(Path("organisation/some-tokenizer"))
    assert config.load_policy().renderer.template_hash == agents.renderer().template_hash
    download._small_files.cache_clear()
    assert [call[0] for call in asked] == ["organisation/some-tokenizer"]
    assert not any("safetensors" in pattern or ".bin" in pattern for pattern in asked[0])
