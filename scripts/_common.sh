# Shared by the other scripts: a virtual environment with this package, made once.
# Sourced, not run. Afterwards $PYTHON is the interpreter of the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV="${RLPRM_VENV:-.venv}"
BASE_PYTHON="${RLPRM_PYTHON:-python3}"
PYTHON="$VENV/bin/python"

install() {  # install "<extras>": e.g. install "[dev]"
    local wanted="$1" stamp="$VENV/.rlprm-installed$1"
    if [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ]; then
        return
    fi
    if [ ! -x "$PYTHON" ]; then
        "$BASE_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            || { echo "rlprm needs Python 3.11 or newer; $("$BASE_PYTHON" --version) was found. Set RLPRM_PYTHON." >&2; exit 2; }
        echo "making $VENV"
        "$BASE_PYTHON" -m venv "$VENV"
    fi
    echo "installing rlprm$wanted (a few minutes the first time)"
    # A torch that is already there is kept; a GPU machine gets the default build, others the pinned one.
    if "$PYTHON" -c 'import torch' 2>/dev/null; then
        "$PYTHON" -c 'import torch; print("keeping torch", torch.__version__)'
        grep -v '^torch==' constraints.txt > "$VENV/constraints.txt"
    else
        cp constraints.txt "$VENV/constraints.txt"
    fi
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --constraint "$VENV/constraints.txt" torch 2> >(grep -v '^WARNING' >&2)
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --constraint "$VENV/constraints.txt" --editable ".$wanted" 2> >(grep -v '^WARNING' >&2)
    touch "$stamp"
}
