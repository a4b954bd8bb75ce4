"""Editing images with a model that was trained to draw: variations, inpainting, outpainting, interpolation, restoring.

Each makes an `Edit`, which `Model.sample` and `Model.batches` take, with labels, prompts and guidance as always:

    model.sample(8, labels=8, edit=vary(model, images, strength=0.6))
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array

from jaxdiff.base.checks import require
from jaxdiff.core import guidance, sampling
from jaxdiff.core.denoise import Denoiser
from jaxdiff.core.grids import Grid
from jaxdiff.core.process import Image, Process, Scalar
from jaxdiff.core.rng import first_noise, image_key
from jaxdiff.core.samplers import EDM, Sampler
from jaxdiff.models.model import Edit, EditCondition, Model
from jaxdiff.nets.autoencoder import Codec

# --- from another start ---------------------------------------------------------------------------------------------


def vary(model: Model, images: np.ndarray, strength: float = 0.6) -> Edit:
    """Noises the images and denoises them: the last `strength` of the steps are walked (SDEdit, Meng et al. 2022)."""
    return Edit(images=model.encoded(images), strength=strength, shown=images)


def invert(
    model: Model,
    images: np.ndarray,
    labels: Any = None,
    prompts: Any = None,
    *,
    steps: int | None = None,
    sampler: Sampler | None = None,
    grid: Grid | None = None,
    batch_size: int | None = None,
) -> Edit:
    """Starts from the noise of which the images come, found by walking the ODE up: under another label the style stays.

    `labels` or `prompts` say what the images are, one for each; without them they are encoded without a condition.
    Sample on the same grid, by a sampler that follows the ODE. The walk is unguided.
    """
    if model.system.objective is not None:
        raise ValueError(f"{model.name} is a model of few steps, which only goes down: invert with its teacher")
    encoded = model.encoded(images)
    if labels is None and prompts is None:
        condition = model.null(len(images))
    else:
        condition = model.conditions_of(np.arange(len(images)), labels, prompts)
    noise = sampling.encode(
        model.denoiser(guidance_scale=1.0, threshold=0.0),
        model.system.process,
        EDM() if sampler is None else sampler,
        model.times(steps, grid),
        encoded,
        conditions=condition,
        batch_size=batch_size,
    )
    return Edit(noise=noise, shown=images)


def interpolate(model: Model, first: np.ndarray, last: np.ndarray, count: int) -> Edit:
    """Starts from noises on the great circle between two: `seed_noise`, or the `noise` of an inverted image."""
    require(count >= 2, "at least 2 images to interpolate", count)
    shapes = first.shape, last.shape
    require(shapes == (model.shape,) * 2, f"two noises of shape {model.shape}", shapes)
    noise = np.stack([slerp(first, last, share) for share in np.linspace(0, 1, count)])
    return Edit(noise=noise)


def seed_noise(model: Model, seed: int, index: int = 0) -> np.ndarray:
    """What image `index` of a seed starts from."""
    return np.asarray(first_noise(image_key(seed, index), model.shape))


def slerp(first: np.ndarray, last: np.ndarray, share: float) -> np.ndarray:
    """Between two noises at constant speed along the sphere, where all of a normal distribution is."""
    cosine = np.sum(first * last) / (np.linalg.norm(first) * np.linalg.norm(last))
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:
        return ((1 - share) * first + share * last).astype(np.float32)
    return ((np.sin((1 - share) * angle) * first + np.sin(share * angle) * last) / np.sin(angle)).astype(np.float32)


# --- by what is known of the image ----------------------------------------------------------------------------------


@struct.dataclass
class Known:
    """The expected clean image, but where `mask` is 0 the one that is known (Wang et al. 2023)."""

    denoise: Denoiser

    def __call__(self, x: Image, t: Scalar, given: EditCondition) -> Image:
        known, mask = given.by_edit
        return mask * self.denoise(x, t, *given.condition) + (1 - mask) * known


def inpaint(model: Model, images: np.ndarray, masks: np.ndarray) -> Edit:
    """Paints where `masks` [n, height, width] are not 0, and keeps what is known elsewhere.

    With `samplers.Resampling(...)` what is painted has more time to agree with its surroundings.
    """
    images, painted = model.checked(images), np.asarray(masks) != 0
    height, width, _ = images.shape[1:]
    fits = painted.shape in ((1, height, width), images.shape[:3]) or len(images) == 1
    require(
        painted.shape[1:] == (height, width) and fits, f"a mask of {height}x{width}, or one an image", painted.shape
    )
    left = np.where(painted[..., None], np.float32(0), images)
    known = model.encoded(left)
    mask = np.broadcast_to(_as_seen(painted, known.shape[1:3])[..., None], known.shape)
    pixels = np.broadcast_to(painted[..., None], (*left.shape[:3], 1))
    return Edit(
        given=(known, mask),
        transform=lambda denoise, process: Known(denoise),
        exact=True,
        kept=(left, pixels),
        shown=left,
    )


def outpaint(
    model: Model, images: np.ndarray, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0, **options: Any
) -> np.ndarray:
    """Goes on painting beyond the borders, so many pixels: by inpainting in windows that move outwards by half.

    `options` are those of `Model.sample`, such as labels; image i of each window draws from the same i.
    """
    *_, (_, _, canvas) = outpainting(model, images, left, top, right, bottom, **options)
    return canvas


def outpainting(
    model: Model,
    images: np.ndarray,
    left: int = 0,
    top: int = 0,
    right: int = 0,
    bottom: int = 0,
    *,
    seed: int = 0,
    **options: Any,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The same window by window: how many are painted, of how many, and the canvas so far."""
    require(min(left, top, right, bottom) >= 0, "borders of 0 pixels or more", (left, top, right, bottom))
    images = model.checked(images)
    n, height, width, channels = images.shape
    canvas = np.zeros((n, top + height + bottom, left + width + right, channels), np.float32)
    canvas[:, top : top + height, left : left + width] = images
    windows = list(_windows(canvas.shape[1:3], top, left, height, width))
    yield 0, len(windows), canvas
    for number, (window, painted) in enumerate(windows):
        own = (seed + number * 0x9E3779B9) % 2**32  # noise of its own
        edit = inpaint(model, canvas[:, *window], painted[None])
        canvas[:, *window] = model.sample(n, edit=edit, seed=own, **options)
        yield number + 1, len(windows), canvas


def _windows(
    size: tuple[int, ...], top: int, left: int, height: int, width: int
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Where to paint, from what is known outwards, and which pixels of each window are new."""
    known = np.zeros(size, bool)
    known[top : top + height, left : left + width] = True
    corners = [(y, x) for y in _moves(top, height, size[0]) for x in _moves(left, width, size[1])]
    for y, x in sorted(corners, key=lambda corner: abs(corner[0] - top) + abs(corner[1] - left)):
        window = np.s_[y : y + height, x : x + width]
        if not known[window].all():
            yield window, ~known[window]
            known[window] = True


def _moves(start: int, size: int, length: int) -> list[int]:
    """Where windows begin along one side, so that each overlaps the one before by half."""
    reach = range(-length // size * 2 - 2, length // size * 2 + 3)
    return sorted({min(max(start + k * (size // 2), 0), length - size) for k in reach})


def _as_seen(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Masks at the size of latents: a place is painted if anything of it is."""
    n, height, width = masks.shape
    blocks = masks.reshape(n, size[0], height // size[0], size[1], width // size[1])
    return blocks.max((2, 4)).astype(np.float32)


@struct.dataclass
class Measured:
    """Guided to images of which `measure` makes what was seen, by the gradient of its log-likelihood.

    Given x_t, the clean image is taken for normal about the expected one, with the variance that it has where the data
    are normal of deviation `sigma_data`: exact there (Song et al. 2023b, pseudoinverse guidance). `spread` is what of
    that variance the measurement keeps, `noise` the deviation of what it adds.
    """

    denoise: Denoiser
    measure: Callable[[Image], Array]
    process: Process = struct.field(pytree_node=False)
    spread: float = 1.0
    sigma_data: float = 0.5
    noise: float = 0.02
    scale: float = 1.0

    def __call__(self, x: Image, t: Scalar, given: EditCondition) -> Image:
        alpha, sigma = self.process.alpha(t), self.process.sigma(t)
        variance = (self.sigma_data * sigma) ** 2 / ((self.sigma_data * alpha) ** 2 + sigma**2)

        def denoise(x: Image, t: Scalar) -> Image:
            return self.denoise(x, t, *given.condition)

        def log_likelihood(x: Image, t: Scalar) -> Scalar:
            missing = given.by_edit - self.measure(denoise(x, t))
            return -jnp.sum(missing**2) / (2 * (self.noise**2 + self.spread * variance))

        return guidance.ClassifierGuidance(denoise, log_likelihood, self.process, self.scale)(x, t)


@struct.dataclass
class Seen:
    """A measurement of the picture that a latent stands for."""

    codec: Codec | None
    measure: Callable[[Image], Array] = struct.field(pytree_node=False)

    def __call__(self, x: Image) -> Array:
        return self.measure(x if self.codec is None else self.codec.decode(x))


def gray(image: Image) -> Array:
    """The mean of the colours."""
    return jnp.mean(image, -1, keepdims=True)


@struct.dataclass
class Reduced:
    """The mean of each block of factor x factor pixels."""

    factor: int = struct.field(pytree_node=False)

    def __call__(self, image: Image) -> Array:
        height, width, channels = image.shape
        k = self.factor
        return jnp.mean(image.reshape(height // k, k, width // k, k, channels), (1, 3))


def colorize(model: Model, images: np.ndarray) -> Edit:
    """Colours gray images, [n, height, width, 1] or of any channels, of which the mean is taken."""
    channels = model.image_shape[-1]
    require(channels > 1, "a model of colour images to colorize with", model.image_shape)
    seen = np.mean(_floats(images), -1, keepdims=True)
    shown = model.checked(np.broadcast_to(seen, (*seen.shape[:-1], channels)))
    return _restored(model, shown, seen, gray, 1 / channels)


def upscale(model: Model, images: np.ndarray, factor: int) -> Edit:
    """Finds large images of which the given ones, [n, height / factor, width / factor, channels], are the means."""
    height, width, channels = model.image_shape
    require(factor > 1 and height % factor == width % factor == 0, f"a factor that divides {height}x{width}", factor)
    seen = _floats(images)
    wanted = height // factor, width // factor, channels
    require(seen.shape[1:] == wanted, f"images of shape {wanted}", seen.shape[1:])
    return _restored(model, seen.repeat(factor, 1).repeat(factor, 2), seen, Reduced(factor), 1 / factor**2)


def _floats(images: np.ndarray) -> np.ndarray:
    kind = np.asarray(images).dtype
    require(kind.kind == "f", "images as floats in [-1, 1]", kind)
    return np.asarray(images, np.float32)


def _restored(model: Model, shown: np.ndarray, seen: np.ndarray, measure: Any, spread: float) -> Edit:
    """Pixels are taken for normal of deviation 0.5; of a latent model its latents for normal of deviation 1."""
    sigma_data = 0.5 if model.codec is None else 1.0

    def transform(denoise: Denoiser, process: Process) -> Denoiser:
        return Measured(denoise, Seen(model.codec, measure), process, spread * (0.5 / sigma_data) ** 2, sigma_data)

    return Edit(given=seen, transform=transform, shown=shown)
