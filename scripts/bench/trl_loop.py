"""TRL's loop over turns of an environment, without training (TRL 1.16, GRPOTrainer, ``environment_factory``).

The loop asks for a chat template with tool calls and for a model that calls tools. So that any model can be
measured on the same tokens as here:

* every message is read as one call of the tool ``say``, whatever its text
* the model's template is kept; an answer of the tool is written as the message of a user
* a message cut by the limit gets its closing token, as here

All else is TRL's: the environments, the order of calls, generation by ``transformers`` on left-padded whole
conversations. Tool schemas do not reach the prompt. TRL does not execute the call of the last message.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlprm.data.rendering import ChatRenderer
from rlprm.errors import ConfigError
from rlprm.types import End, Task

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

TOOL = "say"
_AS_MESSAGES = """\
{%- set flat = namespace(messages=[]) -%}
{%- for m in messages -%}
{%- set flat.text = m.content or '' -%}
{%- for call in m.tool_calls or [] -%}
{%- set flat.text = flat.text + call.function.name + (call.function.arguments | tojson) -%}
{%- endfor -%}
{%- set role = 'user' if m.role == 'tool' else m.role -%}
{%- set flat.messages = flat.messages + [{'role': role, 'content': flat.text}] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""


@dataclass(frozen=True)
class Generated:
    """What the loop wrote, one entry for each episode."""

    token_ids: list[list[int]]
    """Prompt, messages and answers, as ``Trajectory.token_ids``."""
    sampled: list[int]
    """Number of sampled tokens."""


class _Done(Exception):  # noqa: N818 (no error)
    """Ends a call of the trainer after generation, before the log-probabilities and rewards."""


class TrlLoop:
    """TRL's loop around a model.

    Args:
        model: generates; not changed.
        renderer: of the model's tokenizer.
        module: an environment's module (``rlprm.envs.base``); its environments speak with one message at
            reset, and no opening.
        turns: of every episode.
        tokens: longest message.
        context: longest conversation.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        renderer: ChatRenderer,
        tokenizer: PreTrainedTokenizerBase,
        module: Any,
        *,
        turns: int,
        tokens: int,
        context: int,
    ) -> None:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
        from trl.trainer import grpo_trainer

        closing = renderer.closing_id
        if tokenizer.eos_token_id != closing:
            raise ConfigError(
                f"model: got one whose messages end in token {closing}, allowed for TRL: its end of text, "
                f"{tokenizer.eos_token_id}"
            )
        if tokenizer.pad_token_id is None:
            raise ConfigError("model: got one without a padding token, allowed for TRL: one with it")
        tokenizer.chat_template = _AS_MESSAGES + tokenizer.chat_template
        tokenizer.response_template = "read by _call"  # TRL looks only whether there is one
        self._tokenizer, self._trainer_module = tokenizer, grpo_trainer

        class Environment:
            def reset(self, *, task: str, **_: Any) -> str:
                made = module.make(tasks_by_name[task], end=End.DECLARED)
                self._made = made
                return str(made.reset())

            def say(self, text: str) -> str:
                """Say something.

                Args:
                    text: what to say.

                Returns:
                    What comes back.
                """
                return str(self._made.step(text).observation)

        class Trainer(GRPOTrainer):
            def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
                ids, logprobs = super()._generate_single_turn(*args, **kwargs)
                written.extend(map(len, ids))
                return [i if i[-1] == closing else [*i, closing] for i in ids], logprobs

            def _generate(self, prompts: list[Any]) -> Any:
                raise _Done(super()._generate(prompts))

        tasks_by_name: dict[str, Task] = {}
        written: list[int] = []
        self._tasks, self._written = tasks_by_name, written
        with tempfile.TemporaryDirectory() as folder:
            settings = GRPOConfig(
                output_dir=folder, report_to="none", use_cpu=model.device.type == "cpu", bf16=False,
                per_device_train_batch_size=2, num_generations=2, gradient_checkpointing=False,
                max_completion_length=context, max_tool_calling_iterations=turns - 1,
                generation_kwargs={"max_new_tokens": tokens, "do_sample": False},
            )  # fmt: skip
            self._trainer = Trainer(
                model=model,
                reward_funcs=lambda completions, **_: [0.0] * len(completions),
                args=settings,
                train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": ""}], "task": ""}]),
                processing_class=tokenizer,
                environment_factory=Environment,
            )

    def _call(self, tokenizer: Any, ids: Sequence[int], **_: Any) -> dict[str, Any]:
        text = tokenizer.decode(ids, skip_special_tokens=True)
        call = {"type": "function", "function": {"name": TOOL, "arguments": {"text": text}}}
        return {"role": "assistant", "content": text, "tool_calls": [call]}

    def __call__(self, tasks: Sequence[Task]) -> Generated:
        """Generate an episode for each task; the log-probabilities, rewards and updates of TRL do not run."""
        self._tasks.clear()
        self._tasks.update({task.id: task for task in tasks})
        self._written.clear()
        rows = [{"prompt": [{"role": "user", "content": ""}], "task": task.id} for task in tasks]
        with mock.patch.object(self._trainer_module, "parse_response", self._call):
            try:
                self._trainer._generate_and_score_completions(rows)
            except _Done as done:
                prompts, completions = done.args[0][:2]
        per_turn = len(tasks)
        sampled = [sum(self._written[row::per_turn]) for row in range(per_turn)]
        ids = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        return Generated(ids, sampled)
