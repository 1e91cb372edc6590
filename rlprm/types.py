"""The plain values that flow between stages: task, step, trajectory, labels, scores.

Everything here is immutable and free of torch, so that an environment, a label
estimator or a plot can use it without loading a model.

Index conventions, used everywhere (paper: arXiv 2511.08325):
    A trajectory has ``T`` steps; step ``t = 1 ... T`` is one assistant message.
    ``v_t`` is the predicted promise after action ``t``; ``v_0`` that of the
    prompt, before any action. A list of values with the prompt in front has
    ``T + 1`` entries, ``[v_0, v_1, ..., v_T]``. With ``value_reads: state_and_action``
    there is also ``x_t``, the predicted value of the state before action ``t``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

from rlprm.errors import ConfigError

__all__ = [
    "End",
    "EpisodeSetting",
    "Message",
    "Outcome",
    "Split",
    "Step",
    "StepLabels",
    "StepScores",
    "StopReason",
    "Task",
    "Tool",
    "ToolCall",
    "Trajectory",
    "Turn",
]


class Split(StrEnum):
    """The disjoint task lists of an environment."""

    TRAIN = "train"
    DEV = "dev"
    TEST = "test"


class End(StrEnum):
    """Who ends an episode.

    ``ON_SUCCESS``: the environment ends the episode as soon as the goal is met (AgentGym's
    rule). The length of such an episode reveals the outcome.
    ``DECLARED``: the agent ends the episode with an action of its own (``finish``, a purchase, an
    answer). The environment does not announce success before.
    """

    ON_SUCCESS = "on_success"
    DECLARED = "declared"


class StopReason(StrEnum):
    """Why a trajectory ended. Only the first three are terminations; the limits are truncations."""

    SUCCESS = "success"
    """The environment ended the episode because the goal was met."""
    FAILURE = "failure"
    """The environment ended the episode because the goal became unreachable."""
    DECLARED = "declared"
    """The agent ended the episode."""
    ENV_LIMIT = "env_limit"
    """The environment's own budget (for instance primitive actions) ran out."""
    ROUND_LIMIT = "round_limit"
    """The agent used all its turns."""
    CONTEXT_LIMIT = "context_limit"
    """The next prompt would not fit into the model's context."""
    SEARCH_LIMIT = "search_limit"
    """The budget of the search that the episode was a part of ran out."""
    ERROR = "error"
    """The environment or the policy failed; ``Trajectory.error`` says how."""

    @property
    def is_truncation(self) -> bool:
        """Whether the episode was cut off rather than ended by the agent or the environment."""
        return self in (
            StopReason.ENV_LIMIT,
            StopReason.ROUND_LIMIT,
            StopReason.CONTEXT_LIMIT,
            StopReason.SEARCH_LIMIT,
        )


class ToolCall(TypedDict):
    """A call of a tool in a message of the agent."""

    name: str
    arguments: dict[str, Any]


class Message(TypedDict):
    """One chat message.

    With ``thought`` or ``tool_calls`` the content is the rest of the message. Without them the content is the
    whole message, in which markers of thoughts and calls are plain text.
    """

    role: str
    """``system``, ``user``, ``assistant`` (the agent) or ``tool`` (the answer to a call)."""
    content: str
    thought: NotRequired[str]
    """What the agent thought before the rest, without markers; empty for a thought without words."""
    tool_calls: NotRequired[list[ToolCall]]
    """Calls that end the message."""


@dataclass(frozen=True)
class Tool:
    """A function that an environment offers to models that call tools."""

    name: str
    description: str
    """What the model is told about the tool."""
    parameters: Mapping[str, str]
    """Name → description. All of them are texts, and required."""
    action: str
    """The action that a call stands for, with each parameter in braces: ``"search[{keywords}]"``."""

    def schema(self) -> dict[str, Any]:
        """Return the tool as chat templates take one: a function with a JSON schema of its parameters."""
        properties = {name: {"type": "string", "description": text} for name, text in self.parameters.items()}
        parameters = {"type": "object", "properties": properties, "required": list(properties)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class Task:
    """One problem instance of one environment."""

    environment: str
    """Module name under ``rlprm.envs`` or a dotted path of the user's own."""
    id: str
    """Unique within the environment, stable across runs."""
    split: Split
    spec: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What the environment needs to build the instance; JSON values only."""


@dataclass(frozen=True)
class EpisodeSetting:
    """How episodes are run. Collections can be compared only if these settings agree."""

    end: End = End.DECLARED
    round_limit: int | None = None
    """Most agent turns of an episode; the environment's default if None."""
    prompt: str = "none"
    """Style of the opening instructions, see ``EnvironmentModule.opening``."""
    action_format: str = "action_only"


@dataclass(frozen=True)
class Turn:
    """What an environment answers to one action."""

    observation: str
    """Text shown to the agent next; also given when the episode is over, but never scored."""
    reward: float = 0.0
    """Intermediate reward of this action (most environments: 0 until the end)."""
    stop: StopReason | None = None
    """Set when this action ended the episode."""
    valid: bool = True
    """False if the action could not be parsed or carried out. Reported, never rewarded."""
    more: tuple[str, ...] = ()
    """Further observations of the same turn; each is a message of its own."""


@dataclass(frozen=True)
class Outcome:
    """The judgement of a finished episode, kept raw and as success."""

    score: float
    """The environment's own score in [0, 1]."""
    success: bool
    definition: str
    """The rule behind ``success``, for instance ``"textcraft: goal crafted"``."""

    def value(self, name: str) -> float:
        """Return the outcome as a number: ``"success"`` (0 or 1) or the graded ``"score"``.

        Raises:
            ConfigError: for another name.
        """
        if name == "success":
            return float(self.success)
        if name == "score":
            return float(self.score)
        raise ConfigError(f"outcome: got {name!r}, allowed: success, score")


@dataclass(frozen=True)
class Step:
    """One agent turn of a trajectory, as positions in its token ids."""

    start: int
    """Index of the first action token."""
    end: int
    """Index of the action's closing token (inclusive). A scalar head reads ``v_t`` here."""
    action: str
    """The action text as parsed from the message and handed to the environment."""
    reward: float = 0.0
    """Intermediate reward the environment gave for it."""
    valid: bool = True
    """Whether the environment could carry it out; see ``Turn.valid``."""


@dataclass(frozen=True)
class Trajectory:
    """One episode, with the exact token ids that were sampled.

    ``token_ids``, ``action_mask`` and ``logprobs`` have one entry per token of
    the whole conversation up to and including the last action. No later stage
    encodes text again, except for a model with another tokenizer (``rlprm.data.rerender``).

    If ``exact`` is False, the tokens of actions were made from their text. All log-probabilities are then 0.0
    and mean nothing. The mask is 1 on all tokens of an action, except the closing token of a message that was
    cut. Steps start and end as in any trajectory. Such a trajectory can be scored and learned from as text.
    Whatever needs the policy's probabilities refuses it (``rlprm.data.failures``).
    """

    task: Task
    sample: int
    """Which of the task's rollouts this is, from 0."""
    seed: int
    """Seed of the episode's random numbers; with the policy it determines the trajectory."""
    messages: tuple[Message, ...]
    """The conversation as text, for people and for models with another tokenizer."""
    token_ids: tuple[int, ...]
    action_mask: tuple[int, ...]
    """1 for sampled tokens; 0 for the prompt, observations, and forced tokens, which are closing tokens and
    the ends of thoughts (``max_thinking_tokens``)."""
    logprobs: tuple[float, ...]
    """Log-probability of each sampled token under the sampling distribution; 0.0 for the other tokens."""
    steps: tuple[Step, ...]
    outcome: Outcome
    stop: StopReason | None
    """None while the episode goes on (a beam's candidates are scored unfinished)."""
    end: End
    temperature: float
    policy: str
    """Revision of the policy that acted (a hash of its weights, or ``"expert"``)."""
    template: str
    """Hash of the chat template and tokenizer the token ids belong to."""
    error: str | None = None
    """Cause of the failure if ``stop`` is ``ERROR``."""
    exact: bool = True
    """Whether the tokens of the actions are those that were sampled; False if they were made from text."""
    fed_tokens: int | None = None
    """Tokens read and written for the episode, as an endpoint counts them; None where the number follows from
    the token ids (``rlprm.data.fed_tokens``)."""

    @property
    def prompt_length(self) -> int:
        """Number of tokens before the first action; ``v_0`` is read at the last one."""
        return self.steps[0].start if self.steps else len(self.token_ids)

    @property
    def value_positions(self) -> tuple[int, ...]:
        """Token indices at which a scalar head reads ``[v_0, v_1, ..., v_T]``, the paper's chain.

        Other chains and heads: ``rlprm.models.heads.value_positions.chain_positions``.
        """
        return (self.prompt_length - 1, *(step.end for step in self.steps))

    def message_end(self, step: Step) -> int:
        """Return one past the last token of a message; a closing token that was forced is left out."""
        return step.end + self.action_mask[step.end]

    def forced_end(self, step: Step) -> range:
        """Return where the end of a step's thought was forced; empty if it was not."""
        places = range(step.start, self.message_end(step))
        forced = [i for i in places if not self.action_mask[i]]
        return range(forced[0], forced[-1] + 1) if forced else range(0)

    @property
    def action_tokens(self) -> int:
        """Number of tokens the policy sampled."""
        return sum(self.action_mask)


@dataclass(frozen=True)
class StepLabels:
    """Training targets of one trajectory."""

    promise: tuple[float, ...]
    """Targets of ``[v_0, ..., v_T]`` (``T + 1`` entries)."""
    progress: tuple[float, ...]
    """Targets of ``v_t - v_{t-1}`` for ``t = 1 ... T`` (``T`` entries), or empty without targets."""
    weight: tuple[float, ...]
    """Weight of each promise target (``T + 1`` entries); 0 leaves the target out of the loss."""


@dataclass(frozen=True)
class StepScores:
    """Scores of the steps of one (possibly unfinished) trajectory."""

    initial: float
    """``v_0``."""
    values: tuple[float, ...]
    """``v_1 ... v_T``; never empty for a trajectory with at least one step."""
    tokens: int = 0
    """Model tokens that were processed to obtain these scores (0 for model-free scorers)."""
    states: tuple[float, ...] = ()
    """``x_1 ... x_T``, the value before each action; empty unless the model reads states, too."""

    @property
    def progress(self) -> tuple[float, ...]:
        """What action t = 1 ... T changed: ``v_t - x_t``, or ``v_t - v_{t-1}`` if states are not read."""
        before = self.states or (self.initial, *self.values[:-1])
        return tuple(b - a for a, b in zip(before, self.values, strict=True))
