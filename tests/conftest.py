"""What many tests share: no network, no GPU, one thread, and a tiny model built once."""

from __future__ import annotations

import os

# Libraries read these when they are imported.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    WANDB_MODE="disabled",
)
if not os.environ.get("RLPRM_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # exact numbers are a CPU's; tests/gpu has what wants a GPU

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, Qwen2ForCausalLM
from transformers.utils import logging as transformers_logging

from rlprm.data.rendering import ChatRenderer
from rlprm.models.tiny import tiny_model
from tests.data import templates
from tests.toys import agents

if TYPE_CHECKING:
    from tests.toys.pipeline import Pipeline

torch.set_num_threads(1)
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()


@pytest.fixture(scope="session")
def renderer() -> ChatRenderer:
    """Of the tokenizer that the toy policies use; never to be changed."""
    return agents.renderer()


@pytest.fixture(scope="session")
def tiny_folder(renderer: ChatRenderer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved causal model with its tokenizer; never to be written to."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model(renderer.tokenizer, size="xs", context_length=512).save_pretrained(folder)
    renderer.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def foreign_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved causal model with another vocabulary and template than the toy policies; never written to."""
    folder = tmp_path_factory.mktemp("foreign")
    tokenizer = templates.foreign().tokenizer
    tiny_model(tokenizer, size="xs", context_length=512, seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def babbler(renderer: ChatRenderer) -> PreTrainedModel:
    """A causal model that says random things and closes about one message in five at each token.

    It groups keys as the larger Qwen2 models do and the tiny one does not.
    """
    config = tiny_model(renderer.tokenizer, size="xs", context_length=512).config
    config.num_key_value_heads = config.num_attention_heads // 2
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    head = nn.Linear(model.config.hidden_size, len(renderer.tokenizer))
    with torch.no_grad():
        head.weight.copy_(2 * model.lm_head.weight)
        head.bias.zero_()[renderer.closing_id] = 5.5
    model.lm_head = head
    return model.eval()


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """One small run of the stages: a policy, its rollouts, two reward models; never written to."""
    from tests.toys.pipeline import run_pipeline  # the stages' libraries take seconds to import

    return run_pipeline(tmp_path_factory.mktemp("pipeline"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the vLLM server that tests have started; the first process of a run does."""
    if not hasattr(session.config, "workerinput"):
        from tests import vllm_server

        vllm_server.stop(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
