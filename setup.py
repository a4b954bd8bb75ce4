"""Puts configs/ into the wheel, as jaxdiff/shipped/configs; all else about the package is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            place = Path(self.build_lib, "jaxdiff", "shipped", "configs")
            shutil.rmtree(place, ignore_errors=True)  # of an earlier build
            shutil.copytree("configs", place, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": WithConfigs})
