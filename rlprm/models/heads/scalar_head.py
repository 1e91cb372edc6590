"""A scalar head for every architecture: stock token classification, or our own where transformers has none.

Our own class has the layout of the stock classes, the body under its usual name and a linear layer ``score``.
The body is the causal model's. If a decoder was cut out of an encoder-decoder (Bart), ``AutoModel`` would add
an encoder, whose weights no policy has. The class is registered, so that loading finds the class in every
process that imports this module.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from rlprm.models.causal import body_of, causal_class, width_of

__all__ = ["scalar_class"]


class _ScalarHead:
    """Mixed into an architecture's base class."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        model: Any = self
        causal: Any = causal_class(config)(config)
        body = body_of(causal)
        path = next(name for name, part in causal.named_modules() if part is body)
        # The body keeps the name that it has in the causal model, whose weights are loaded.
        model.base_model_prefix = path.partition(".")[0]
        setattr(self, model.base_model_prefix, getattr(causal, model.base_model_prefix))
        self._path = path
        self.dropout = nn.Dropout(getattr(config, "classifier_dropout", None) or 0.0)
        self.score = nn.Linear(width_of(causal), config.num_labels)
        model.post_init()

    def forward(self, input_ids: Tensor | None = None, **kwargs: Any) -> TokenClassifierOutput:
        """Return the head's outputs (B, L, labels)."""
        model: Any = self
        states = model.get_submodule(self._path)(input_ids, **kwargs).last_hidden_state
        return TokenClassifierOutput(logits=self.score(self.dropout(states)))


def scalar_class(config: PretrainedConfig) -> Any:
    """Return what loads a model with one value at each token, ``from_pretrained`` included.

    Raises:
        ValueError: if transformers has no causal language model of this architecture.
    """
    if type(config) in AutoModelForTokenClassification._model_mapping:
        return AutoModelForTokenClassification
    causal = causal_class(config)
    base: Any = [kind for kind in causal.__mro__ if issubclass(kind, PreTrainedModel)][-2]
    own = {"config_class": type(config), "__module__": causal.__module__}
    made = type(
        f"{causal.__name__.removesuffix('ForCausalLM')}ForTokenClassification", (_ScalarHead, base), own
    )
    AutoModelForTokenClassification.register(type(config), made)
    return made
