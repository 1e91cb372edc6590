"""A worker extension for vLLM (``--worker-extension-cls rlprm_vllm.Worker``).

On a CPU vLLM packs the weights of its matrix products. A reload packs the layers again, but not an output
layer that is tied to the embedding: its tokens would have the old weights' probabilities.
"""

from __future__ import annotations

from typing import Any


class Worker:
    """Mixed into the worker of each process of a server."""

    model_runner: Any

    def rlprm_repack(self) -> int:
        """Pack the weights of tied output layers again; returns how many there are."""
        from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

        count = 0
        for module in self.model_runner.get_model().modules():
            if isinstance(module, VocabParallelEmbedding) and hasattr(module, "cpu_linear"):
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)
                count += 1
        return count
