"""A model's whole sampler in one file - weights, guidance, steps, decoder - that JAX runs where there is no jaxdiff.

It runs on CPUs, GPUs and TPUs, in batches of any size. JAX promises to read such a file for half a year at least; the
code in it is to be trusted like any program.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt8

from jaxdiff.base import files
from jaxdiff.base.checks import require
from jaxdiff.base.pictures import to_uint8
from jaxdiff.core import sampling
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.grids import Grid
from jaxdiff.core.samplers import Sampler
from jaxdiff.models.conditions import Labels, Prompts
from jaxdiff.models.model import Classifier, Model
from jaxdiff.nets.autoencoder import Codec
from jaxdiff.nets.machine import Kind, compiled_for
from jaxdiff.nets.text import BEGIN, FIRST, NOTHING, UNKNOWN, Words

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
MOST = 2**31 - 2**20  # bytes: what a file of this kind can hold


def export(
    model: Model,
    path: Path,
    *,
    steps: int | None = None,
    sampler: Sampler | None = None,
    grid: Grid | None = None,
    denoiser: Denoiser | None = None,
    classifier: Classifier | None = None,
    platforms: Sequence[str] = PLATFORMS,
    **guidance: Any,
) -> str:
    """Writes the sampler, as `Model.sample` would use it, to a file; returns a program that draws from that.

    It is a function of a seed (uint32), the numbers of the images (uint32 [n]) and their conditions: labels
    (int32 [n]), tokens (int32 [n, length]) or nothing. It gives images, uint8 [n, height, width, channels]. Image i of
    a seed is what `model.sample` draws, up to rounding, in any batch.
    """
    known = len(platforms) > 0 and all(platform in PLATFORMS for platform in platforms)
    require(known, f"one or more platforms of {', '.join(PLATFORMS)}", platforms)
    _check_place(path)
    draw = sampling.program(
        model.denoiser(classifier=classifier, **guidance) if denoiser is None else denoiser,
        model.system.process,
        model.system.sampler if sampler is None else sampler,
        model.times(steps, grid),
        shape=model.shape,
    )
    conditions, texts = model.choices(classifier=classifier)
    content = _content(draw, model.codec, conditions, platforms)
    with _in_a_line(path):
        files.write(path, content)
    return _example(model, path, conditions, texts)


def _content(draw: Callable[..., Array], codec: Codec | None, conditions: Any, platforms: Sequence[str]) -> bytes:
    """Of the file, given some conditions."""
    draw, codec = jax.device_get((draw, codec))  # from whatever devices they are on
    _check_size(sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(draw)))

    @jax.jit
    def images(seed: Array, indices: Array, *condition: Array) -> UInt8[Array, "n h w c"]:
        # weights as if they were not known: else XLA computes what it can of them, at length, and keeps that as well
        drawn, decoder = jax.tree.map(lax.optimization_barrier, (draw, codec))
        x = drawn(seed, indices, *condition)
        return to_uint8(x if decoder is None else decoder.decode(x))

    (n,) = jax.export.symbolic_shape("n")
    inputs = [jax.ShapeDtypeStruct((), jnp.uint32), jax.ShapeDtypeStruct((n,), jnp.uint32)]
    inputs += [] if conditions is None else [jax.ShapeDtypeStruct((n, *conditions.shape[1:]), conditions.dtype)]
    with compiled_for(Kind("any")), _nameless():
        exported = jax.export.export(images, platforms=platforms)(*inputs)
    _check_size(len(exported.mlir_module_serialized))
    return bytes(exported.serialize())


@contextlib.contextmanager
def _nameless() -> Iterator[None]:
    """Programs that do not name this machine's files, the same each time."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _check_size(size: int) -> None:
    require(size < MOST, f"a model of less than {MOST / 1e9:.1f} GB to export", f"{size / 1e9:.1f} GB")


def _check_place(path: Path) -> None:
    if path.exists():
        raise ValueError(f"{path} exists already: name another, or remove it")
    with _in_a_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(None, "Permission denied")


@contextlib.contextmanager
def _in_a_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror or error}): name another") from None


# --- how it is run --------------------------------------------------------------------------------------------------

EXAMPLE = """\
{imports}from pathlib import Path

import numpy as np
from jax import export  # needs flatbuffers

sampler = export.deserialize(bytearray(Path({path}).read_bytes()))
numbers = np.arange(10, dtype=np.uint32)  # seed and number determine an image, whatever it is drawn with
{condition}images = sampler.call(np.uint32(0), numbers{also})  # seed 0: uint8 [10, {shape}]
np.save("images.npy", images)
"""
LABELS = "labels = (numbers % {count}).astype(np.int32)  # one an image\n"
CONDITIONS = "conditions = np.array({rows}, np.{dtype})[numbers % {count}]  # one an image\n"
TOKENS = """\
prompts = {prompts}
{known}rows = [[{begin}, *({tokens})] for prompt in prompts]
tokens = np.array([(row + {length} * [{nothing}])[:{length}] for row in rows], np.int32)[numbers % len(prompts)]
"""


def _example(model: Model, path: Path, conditions: Any, texts: list[str]) -> str:
    """A program that draws from the file."""
    condition = model.system.condition
    lines, also, imports = "", "", ""
    if isinstance(condition, Prompts):
        lines, also = _written(condition, texts), ", tokens"
        imports = "import re\n" if isinstance(condition.tokens, Words) else ""
    elif condition is not None and not isinstance(condition, Labels):
        given = {"rows": np.asarray(conditions).tolist(), "dtype": conditions.dtype, "count": len(conditions)}
        lines, also = CONDITIONS.format(**given), ", conditions"
    elif conditions is not None:
        lines, also = LABELS.format(count=len(conditions)), ", labels"
    shape = ", ".join(map(str, model.image_shape))
    return EXAMPLE.format(imports=imports, path=_literal(str(path)), condition=lines, also=also, shape=shape)


def _written(condition: Prompts, texts: list[str]) -> str:
    """How prompts become tokens, as `nets.text` has it."""
    kind = condition.tokens
    known, tokens = "", f"{FIRST} + byte for byte in prompt.encode()"
    if isinstance(kind, Words):
        words = _literal(" ".join(kind.vocabulary))
        known = f"known = {{word: {FIRST} + i for i, word in enumerate({words}.split())}}\n"
        tokens = rf'known.get(word, {UNKNOWN}) for word in re.findall(r"\w+", prompt.lower())'
    fixed = {"begin": BEGIN, "nothing": NOTHING, "length": kind.length}
    return TOKENS.format(prompts=_literal(texts), known=known, tokens=tokens, **fixed)


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
