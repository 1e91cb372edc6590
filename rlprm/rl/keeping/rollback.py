"""The whole state of the best policy on dev tasks, to which a run goes back when the alarm rings.

    <output_dir>/rollback/iteration-000010/     weights, optimiser and random states

The folder is named after the number of iterations behind the policy, as that of the best policy itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from rlprm.rl.engine import Engine
from rlprm.runtime.processes import collective

__all__ = ["drop_others", "load_best", "save_best"]

_FOLDER = "rollback"


@collective
def save_best(engine: Engine, folder: Path, iteration: int) -> None:
    """Keep the state of a policy that is the best so far; older ones stay until a checkpoint is written."""
    final = _place(folder, iteration)
    partial = final.with_name(f"{final.name}.partial")
    if engine.processes.is_main:
        for path in (partial, final):
            shutil.rmtree(path, ignore_errors=True)
    engine.processes.wait()
    engine.save_state(partial)
    engine.processes.wait()
    if engine.processes.is_main:
        partial.rename(final)
    engine.processes.wait()


@collective
def load_best(engine: Engine, folder: Path, iteration: int) -> bool:
    """Take up the state of the best policy; returns whether it is there, the same in every process."""
    place = _place(folder, iteration)
    if not engine.processes.gather_all(place.is_dir())[0]:
        return False
    engine.load_state(place)
    return True


def drop_others(folder: Path, iteration: int) -> None:
    """Remove the states of other policies: no run resumes from before them any more."""
    for other in set((folder / _FOLDER).glob("*")) - {_place(folder, iteration)}:
        shutil.rmtree(other)


def _place(folder: Path, iteration: int) -> Path:
    return folder / _FOLDER / f"iteration-{iteration:06d}"
