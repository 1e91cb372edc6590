"""A trained PRM as a server: trajectories in, step scores out, over HTTP (docs/serving.md)."""

from __future__ import annotations

from importlib.util import find_spec

from rlprm.errors import ConfigError
from rlprm.models.hub.options import with_loading_options
from rlprm.serving.prm_settings import ServePRMConfig

__all__ = ["run"]


@with_loading_options
def run(config: ServePRMConfig) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ArtifactError: if the PRM cannot be loaded.
        ConfigError: if a package is missing, or the address cannot be listened on.
        MismatchError: if the PRM's tokenizer is not the one it was trained with.
    """
    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise ConfigError(f"serve-prm needs {' and '.join(missing)}: pip install fastapi uvicorn httpx")
    from rlprm.serving.prm_server import serve  # needs these packages

    serve(config)
