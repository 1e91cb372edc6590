"""The one step of the build that pyproject.toml has no key for.

``recipes/`` and ``ds_configs/`` stay at the top of the repository. A wheel holds them as package data in
``rlprm/_resources/``; an editable install reads them where they are (``rlprm/runtime/resources.py``).
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("recipes", "ds_configs")


class BuildWithResources(build_py):
    """Copies the folders into the package that is built."""

    def run(self) -> None:
        """Build the package, then add the files."""
        super().run()
        if self.editable_mode:
            return
        for source, target in self._resources():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return all files of the built package."""
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._resources())]

    def _resources(self) -> list[tuple[Path, Path]]:
        package = Path(self.build_lib, "rlprm", "_resources")
        files = [path for folder in FOLDERS for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        return [(path, package / path) for path in files]


setup(cmdclass={"build_py": BuildWithResources})
