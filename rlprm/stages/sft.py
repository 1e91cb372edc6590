"""Stage 1: supervised fine-tuning of a policy on demonstrations, AgentGym's data or its own trajectories.

Demonstrations are rendered by the same :class:`Conversation` that records
rollouts, so a policy is trained on exactly the token layout it will act in. Of its own
trajectories, the very tokens that were sampled are learned.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig

from rlprm import envs
from rlprm.data.conversation import Conversation
from rlprm.data.demonstrations import Demonstration, demonstrate_all
from rlprm.data.importers.agentgym import (
    digest,
    read_demonstrations,
    require_end,
    require_format,
    with_opening,
    without,
)
from rlprm.data.rendering import ChatRenderer
from rlprm.data.store import TrajectoryStore
from rlprm.envs.agentgym import environment_of, held_out
from rlprm.errors import ConfigError, DataError
from rlprm.models.hub.four_bits import require_4bit
from rlprm.models.hub.identity import model_files
from rlprm.models.hub.options import with_loading_options
from rlprm.models.loading import load_causal_lm, revision_of
from rlprm.models.lora import (
    FULL_PRECISION,
    save_trained,
    trainable_parameters,
    with_adapters,
    without_unused,
)
from rlprm.models.tiny import tiny_model
from rlprm.models.tokenizer import train_tokenizer
from rlprm.models.zero import size_of
from rlprm.runtime.processes import local_count
from rlprm.runtime.provenance import episode_settings, warn_of_differences
from rlprm.runtime.record import is_finished, recorded
from rlprm.sft.trainer import IGNORED, LearnedTokensTrainer
from rlprm.stages.cloning import choose_trajectories, steps_over
from rlprm.stages.settings import SFTStageConfig
from rlprm.training import (
    LogSettings,
    StopOnNonFiniteLoss,
    check_world_size,
    last_checkpoint,
    stage_record,
    trainer_arguments,
)
from rlprm.types import End, Split, Step, Trajectory

log = logging.getLogger(__name__)
_TASKS_OF_A_WORKER = 16
"""To be worth the start of a process: it imports all libraries first."""


@with_loading_options
def run(config: SFTStageConfig) -> None:
    """Demonstrate tasks, train the policy, save it."""
    arguments = trainer_arguments(
        # Rows already hold token ids and labels, so the trainer must not prepare them.
        SFTConfig,
        config,
        None if config.model == "tiny" else config.model,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    base = None if config.model == "tiny" else revision_of(config.model)
    record = {
        **without_unused(stage_record(config, arguments)),
        "max_length": config.max_length,
        "base": base,
    }
    record.update(config.environment_sources())
    record.update({} if base is None else model_files(base=config.model))
    del record["workers"]  # how fast, not what
    if not config.expert_thoughts:  # records from before this setting do not have it
        del record["expert_thoughts"]
    given = import_demonstrations(config) if config.demonstrations is not None else []
    if given:
        record["data"] = digest(given)
    store = TrajectoryStore.open(config.trajectories) if config.trajectories else None
    if store is not None:
        record["data"] = dict(store.meta)
    else:  # records from before these settings do not have them
        del record["trajectories"], record["only_successes"], record["held_out_fraction"], record["epochs_of"]
    if is_finished(config.output_dir, "sft", record):
        log.info("%s holds the finished policy of these settings; reusing it", config.output_dir)
        return
    if store is not None:
        warn_of_differences(str(store.folder), store.meta, episode_settings(config))
    if config.load_in_4bit:
        require_4bit()
    with recorded(config.output_dir, "sft", record) as results:
        if store is not None:
            tokenizer, model = _own_tokenizer_and_model(config, bf16=arguments.bf16)
            renderer = ChatRenderer(tokenizer)
            chosen = choose_trajectories(store, config, renderer)
            dataset = trajectories_to_dataset(chosen.learned, config.learn_observations, config.seed)
            dropped, missed = chosen.too_long, 0
            if config.epochs_of == "given" and arguments.max_steps <= 0:
                arguments.max_steps = steps_over(chosen.given, arguments)
        else:
            demonstrations = given or collect_demonstrations(config)
            missed = 0 if given else config.num_demonstrations - len(demonstrations)
            tokenizer, model = _tokenizer_and_model(config, demonstrations, bf16=arguments.bf16)
            renderer = ChatRenderer(tokenizer)
            dataset, dropped = to_dataset(
                demonstrations,
                renderer,
                max_length=config.max_length,
                learn_observations=config.learn_observations,
                seed=config.seed,
            )
        parameters = sum(map(size_of, model.parameters()))
        trainer = LearnedTokensTrainer(
            model=with_adapters(model, config, seed=config.seed),
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            callbacks=[StopOnNonFiniteLoss(), LogSettings(config)],
        )
        check_world_size(arguments)
        trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir, record))
        model.config.use_cache = True  # switched off for training; the policy is to write
        save_trained(trainer, config.output_dir, lambda: load_causal_lm(config.model, **FULL_PRECISION))
        results.update(
            chat=renderer.record(),
            demonstrations=len(dataset),
            expert_failures=missed,
            too_long=dropped,
            parameters=parameters,
            trained_parameters=trainable_parameters(model),
            tokens=sum(map(len, dataset["input_ids"])) * trainer.state.epoch,
            steps=trainer.state.global_step,
            **{k: v for k, v in trainer.state.log_history[-1].items() if k == "train_loss"},
        )


def collect_demonstrations(config: SFTStageConfig) -> list[Demonstration]:
    """Let the expert solve the configured tasks; tasks it fails are left out and counted.

    Raises:
        DataError: if it solves none.
    """
    environment = envs.load(config.environment)
    if not hasattr(environment, "demonstrate"):
        raise ConfigError(
            f"the environment {config.environment} does not define demonstrate, the expert that sft learns "
            "from; name trajectories to learn from with --demonstrations"
        )
    if config.expert_thoughts and not hasattr(environment, "explain"):
        raise ConfigError(
            f"expert_thoughts: got true, allowed: false, because the environment {config.environment} does "
            "not define explain"
        )
    episode = config.episode_setting()
    tasks = envs.tasks(
        config.environment, Split.TRAIN, config.first_task, config.num_demonstrations, config.env_kwargs
    )
    solved = demonstrate_all(
        tasks,
        end=episode.end,
        prompt=episode.prompt,
        action_format=episode.action_format,
        workers=config.workers or _useful_workers(len(tasks)),
        thoughts=config.expert_thoughts,
    )
    found = [d for d in tqdm(solved, total=len(tasks), desc="demonstrations", unit="task") if d is not None]
    if not found:
        raise DataError(f"the expert solved none of the {len(tasks)} tasks of {config.environment}")
    return found


def _useful_workers(tasks: int) -> int:
    """Return how many processes of the expert find work and a core; every process of a launch starts them."""
    cores = (os.cpu_count() or 1) // local_count()
    return max(1, min(cores, math.ceil(tasks / _TASKS_OF_A_WORKER)))


def import_demonstrations(config: SFTStageConfig) -> list[Demonstration]:
    """Read the configured trajectories, with the instructions of the configured prompt.

    Trajectories of dev and test tasks (by a server's ``data_indices``) are left out.

    Raises:
        ArtifactError: if they are missing.
        ConfigError: if their actions are written in another format, or their episodes end in another way.
        DataError: if they are damaged, or none is of this environment and to be learned.
    """
    environment, source = config.environment, str(config.demonstrations)
    if environment == "agentgym":
        environment = environment_of(config.env_kwargs.get("protocol", ""))
    module, end = envs.load(environment), config.episode_setting().end
    opening = module.opening(end=end, style=config.prompt)
    given = read_demonstrations(source, environment, environment.rpartition(".")[2])
    found = without(given, held_out(environment, config.env_kwargs))
    if len(found) < len(given):
        count = len(given) - len(found)
        log.info("%d of the %d trajectories in %s are left out: dev or test tasks", count, len(given), source)
    if not found:
        raise DataError(f"all {len(given)} trajectories in {source} are of dev or test tasks")
    chosen = found[config.first_task : config.first_task + config.num_demonstrations]
    if not chosen:
        raise DataError(f"{source} has {len(found)} trajectories; first_task is {config.first_task}")
    log.info("%d of the %d trajectories in %s are learned", len(chosen), len(found), source)
    require_format(chosen, config.action_format)
    declared, undeclared = (module.opening(end=e, style="agentgym") for e in (End.DECLARED, End.ON_SUCCESS))
    if declared != undeclared:  # the instructions mention finish, or do not
        require_end(chosen, end, config.action_format)
    return [with_opening(demonstration, opening) for demonstration in chosen]


def to_dataset(
    demonstrations: Sequence[Demonstration],
    renderer: ChatRenderer,
    *,
    max_length: int | None,
    learn_observations: float = 0.0,
    seed: int = 0,
) -> tuple[Dataset, int]:
    """Render demonstrations as ``input_ids`` and ``labels`` (-100 for tokens without loss).

    All tokens of actions are learned (but of ``unlearned`` ones none), and a share of the others, drawn at
    random. There are many more of the others: with a share of 1 they are most of the loss, and actions
    are learned late.

    Returns:
        The data set, and the number of demonstrations left out because they
        exceed ``max_length`` tokens (cutting them would teach half a task).
    """
    learned = []
    for demonstration in demonstrations:
        conversation = render(demonstration, renderer)
        if max_length is None or len(conversation) <= max_length:
            shown = _unlearned_steps(demonstration, conversation)
            learned.append((conversation.token_ids, conversation.action_mask, shown))
    if not learned:
        raise DataError(f"no demonstration fits into {max_length} tokens")
    return _rows(learned, learn_observations, seed), len(demonstrations) - len(learned)


def trajectories_to_dataset(
    trajectories: Sequence[Trajectory], learn_observations: float = 0.0, seed: int = 0
) -> Dataset:
    """Return the tokens of trajectories as rows of :func:`to_dataset`; sampled tokens are learned.

    A closing token that the length limit forced is not learned, because the policy did not sample it.
    """
    return _rows([(t.token_ids, t.action_mask, ()) for t in trajectories], learn_observations, seed)


def _rows(
    conversations: Sequence[tuple[Sequence[int], Sequence[int], Sequence[Step]]], share: float, seed: int
) -> Dataset:
    """Return rows of token ids and labels, given token ids, action masks and steps that are not learned."""
    rows: list[dict[str, Any]] = []
    generator = np.random.default_rng(seed)
    for token_ids, action_mask, unlearned in conversations:
        drawn = generator.random(len(token_ids)) < share
        for step in unlearned:
            drawn[step.start : step.end + 1] = False
        learned = zip(token_ids, action_mask, drawn.tolist(), strict=True)
        labels = [token if acted or extra else IGNORED for token, acted, extra in learned]
        rows.append({"input_ids": list(token_ids), "labels": labels})
    return Dataset.from_list(rows)


def render(demonstration: Demonstration, renderer: ChatRenderer) -> Conversation:
    """Build the conversation of a demonstration, token by token as a rollout would."""
    if demonstration.tools:
        renderer = renderer.with_tools(demonstration.tools)
    opening = demonstration.messages[: demonstration.first_action]
    conversation = Conversation(renderer, opening)
    turns = groupby(demonstration.messages[demonstration.first_action :], lambda m: m["role"] == "assistant")
    for by_agent, messages in turns:
        if by_agent:
            (message,) = messages
            ids = renderer.message_ids(message)
            conversation.act(ids, [0.0] * len(ids))
            if "thought" in message or "tool_calls" in message:
                conversation.messages[-1] = message  # its calls decide who answers
        else:
            conversation.observe(*(message["content"] for message in messages))
    for step in _unlearned_steps(demonstration, conversation):
        conversation.action_mask[step.start : step.end + 1] = [0] * (step.end + 1 - step.start)
    return conversation


def _unlearned_steps(demonstration: Demonstration, conversation: Conversation) -> list[Step]:
    first = demonstration.first_action
    said = (i for i, m in enumerate(demonstration.messages) if i >= first and m["role"] == "assistant")
    return [step for i, step in zip(said, conversation.steps, strict=True) if i in demonstration.unlearned]


def _tokenizer_and_model(
    config: SFTStageConfig, demonstrations: Sequence[Demonstration], *, bf16: bool
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    if config.model != "tiny":
        return _own_tokenizer_and_model(config, bf16=bf16)
    if config.load_in_4bit:
        raise ConfigError("load_in_4bit: got true, allowed: for a model that is loaded, not for tiny")
    corpus = (message["content"] for demonstration in demonstrations for message in demonstration.messages)
    phrases = getattr(envs.load(config.environment), "FIXED_PHRASES", ())
    tokenizer = config.with_chat_settings(
        train_tokenizer(corpus, phrases=phrases, vocab_size=config.vocab_size)
    )
    model = tiny_model(tokenizer, size=config.size, context_length=config.context_length, seed=config.seed)
    return tokenizer, model


def _own_tokenizer_and_model(
    config: SFTStageConfig, *, bf16: bool
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    dtype = config.weights_dtype(bf16=bf16)
    # A policy may be trained to write in another template than it was saved with.
    tokenizer = config.load_tokenizer(config.model, replace=True)
    return tokenizer, load_causal_lm(config.model, dtype=dtype, four_bits=config.load_in_4bit)
