"""Each file imports only from floors below its own, and only from what the requirements name."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("checks", "command", "process", "rng", "config", "files", "augment"),
    ("options", "averages", "parallel", "images", "optimisers"),
    ("nets.convolution", "interop.safetensors", "interop.names"),
    ("checkpoint", "output", "data.examples", "data.records", "data.batches", "data.prepare"),
    (
        "denoise",
        "grids",
        "nets.layers",
        "interop.files",
        "training",
        "logbook",
        "data.cache",
        "data.digits",
        "data.arrays",
    ),
    ("samplers", "guidance", "losses", "exact", "nets.blocks", "interop.settings", "loop", "data.folder", "data.tfds"),
    ("sampling", "nets.unet", "nets.dit", "nets.autoencoder", "nets.text", "nets.small"),
    ("nets.classifier", "interop.unet", "interop.autoencoder", "interop.dit", "conditions"),
    ("interop.diffusers", "systems"),
    ("latents", "interop.pipeline"),
    ("experiment",),
    ("model",),
    ("editing", "export"),
    ("plan",),
    ("drawing",),
)
PACKAGES = {"PIL": "pillow", "tensorflow_datasets": "tensorflow-datasets", "orbax": "orbax-checkpoint"}
MODULES = {
    ".".join(path.relative_to(ROOT / "jaxdiff").with_suffix("").parts): path
    for path in sorted((ROOT / "jaxdiff").rglob("*.py"))
    if path.name != "__init__.py"
}
EACH = pytest.mark.parametrize("module", MODULES)


def floor(module):
    """Of a file, or the highest of a folder, be it named itself or something that it exports."""
    levels = [level for level, names in enumerate(FLOORS) for n in names if f"{n}.".startswith(f"{module}.")]
    return max(levels) if levels else floor(module.rpartition(".")[0])


def imported(module):
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            known = node.module.removeprefix("jaxdiff.") in MODULES
            is_folder = node.module.startswith("jaxdiff") and not known
            yield from (f"{node.module}.{a.name}" for a in node.names) if is_folder else (node.module,)


@EACH
def test_imports_come_from_lower_floors(module):
    for name in imported(module):
        if name.startswith("jaxdiff."):
            assert floor(name.removeprefix("jaxdiff.")) < floor(module), f"{module} must not import {name}"


@EACH
def test_networks_know_nothing_of_diffusion(module):
    if module.startswith("nets."):
        ours = (name for name in imported(module) if name.startswith("jaxdiff"))
        assert all(name.startswith(("jaxdiff.nets.", "jaxdiff.checks")) for name in ours)


@EACH
def test_imports_are_required(module):
    text = (ROOT / "requirements.txt").read_text()
    required = {re.split(r"[<>=~! ]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
    for name in imported(module):
        package = PACKAGES.get(top := name.split(".")[0], top)
        assert package in required | {"jaxdiff", "wandb"} | sys.stdlib_module_names, f"{module} imports {package}"
