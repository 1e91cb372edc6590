"""A scalar head for every architecture: stock token classification, or our own where transformers has none.

Our own class has the layout of the stock classes, the body under its usual name and a linear layer ``score``.
The class is registered, so that loading finds the class in every process that imports this module. Stock
transformers, which does not know the class, loads the body of such a checkpoint with ``AutoModel``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

__all__ = ["scalar_class"]


class _ScalarHead:
    """Mixed into an architecture's base class."""

    base_model_prefix = "model"

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        model: Any = self
        setattr(self, self.base_model_prefix, AutoModel.from_config(config))
        self.dropout = nn.Dropout(getattr(config, "classifier_dropout", None) or 0.0)
        self.score = nn.Linear(config.get_text_config().hidden_size, config.num_labels)
        model.post_init()

    def forward(self, input_ids: Tensor | None = None, **kwargs: Any) -> TokenClassifierOutput:
        """Return the head's outputs (B, L, labels)."""
        states = getattr(self, self.base_model_prefix)(input_ids, **kwargs).last_hidden_state
        return TokenClassifierOutput(logits=self.score(self.dropout(states)))


def scalar_class(config: PretrainedConfig) -> Any:
    """Return what loads a model with one value at each token, ``from_pretrained`` included.

    Raises:
        ValueError: if transformers has no body of this architecture.
    """
    if type(config) in AutoModelForTokenClassification._model_mapping:
        return AutoModelForTokenClassification
    if type(config) not in AutoModel._model_mapping:
        raise ValueError(f"models of type {config.model_type} have no body that a scalar head can be put on")
    body: type[PreTrainedModel] = AutoModel._model_mapping[type(config)]
    base: Any = next(kind for kind in body.__mro__[1:] if issubclass(kind, PreTrainedModel))
    own = {
        # The body keeps the name that it has in the causal model, whose weights are loaded.
        "base_model_prefix": base.base_model_prefix or "model",
        "config_class": type(config),
        "__module__": body.__module__,
    }
    made = type(f"{body.__name__.removesuffix('Model')}ForTokenClassification", (_ScalarHead, base), own)
    AutoModelForTokenClassification.register(type(config), made)
    return made
