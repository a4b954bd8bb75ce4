"""Editing, held against closed forms: what is known stays, what is measured comes out, what is inverted comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from systems import MEANS, exact_system

from jaxdiff.core import grids, samplers
from jaxdiff.core.exact import Mixture
from jaxdiff.core.process import VP, Flow, LinearVE
from jaxdiff.core.rng import normal
from jaxdiff.models import Labels
from jaxdiff.models.editing import (
    Measured,
    Reduced,
    Seen,
    colorize,
    gray,
    inpaint,
    interpolate,
    invert,
    outpaint,
    seed_noise,
    slerp,
    upscale,
    vary,
)
from jaxdiff.models.model import EditCondition, Model

LINE, SMALL = Flow(), (2, 2, 1)
RANDOM = np.random.default_rng(0)


class Staying(samplers.Sampler):
    """A sampler that stays where it starts."""

    def step(self, denoise, key, x, t, s):
        return x


STAYING = Staying()


@struct.dataclass
class Rotated:
    """A linear autoencoder: latents of mean 0 and deviation 1 for pixels of mean 0.3 and deviation 0.5."""

    basis: np.ndarray

    def encode(self, x):
        return ((x.reshape(*x.shape[:-3], -1) - 0.3) * 2 @ self.basis).reshape(x.shape)

    def decode(self, z):
        return 0.3 + (z.reshape(*z.shape[:-3], -1) / 2 @ self.basis.T).reshape(z.shape)


@struct.dataclass
class Halved:
    """Latents that are the means of 2 x 2 pixels."""

    def encode(self, x):
        n, height, width, channels = x.shape
        return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))

    def decode(self, z):
        return z.repeat(2, -3).repeat(2, -2)


def rotation(size):
    return np.linalg.qr(RANDOM.normal(size=(size, size)))[0].astype(np.float32)


def model(shape=SMALL, codec=None, **system):
    return Model(exact_system(**system), {}, shape, codec, name="toy")


def pictures(n, shape=SMALL):
    return RANDOM.uniform(-1, 1, (n, *shape)).astype(np.float32)


# --- from another start ---------------------------------------------------------------------------------------------


def test_seed_noise_is_what_an_image_of_that_seed_starts_from():
    """Bit for bit: on a straight line from t = 1 that is the noise itself."""
    starts = model().sample([0, 7, 40], seed=5, sampler=STAYING)
    np.testing.assert_array_equal(starts, [seed_noise(model(), 5, i) for i in (0, 7, 40)])
    np.testing.assert_array_equal(seed_noise(model(), 5), starts[0])


def test_slerp_goes_along_the_sphere_at_constant_speed():
    a, b = (normal(jax.random.key(i), (8, 8, 3)) for i in (0, 1))
    b = np.asarray(b) * np.linalg.norm(a) / np.linalg.norm(b)
    path = np.stack([slerp(np.asarray(a), b, share) for share in np.linspace(0, 1, 9)])
    np.testing.assert_allclose(np.linalg.norm(path.reshape(9, -1), axis=1), np.linalg.norm(a), rtol=1e-5)
    unit = path.reshape(9, -1) / np.linalg.norm(a)
    angles = np.arccos((unit[1:] * unit[:-1]).sum(1))
    np.testing.assert_allclose(angles, np.arccos(unit[0] @ unit[-1]) / 8, rtol=1e-3)
    np.testing.assert_allclose(slerp(np.asarray(a), np.asarray(a), 0.3), a, rtol=1e-6)


def test_interpolation_runs_from_one_noise_to_the_other():
    noises = [seed_noise(model(), seed) for seed in (3, 4)]
    edit = interpolate(model(), *noises, 5)
    np.testing.assert_allclose(edit.noise[[0, 4]], noises, atol=1e-6)
    np.testing.assert_allclose(edit.noise[2], slerp(*noises, 0.5), atol=1e-6)
    np.testing.assert_array_equal(model().sample(5, edit=edit, sampler=STAYING), edit.noise)
    ends = [model().sample(1, seed=seed) for seed in (3, 4)]
    np.testing.assert_allclose(model().sample(5, edit=edit)[[0, 4]], np.concatenate(ends), atol=1e-5)


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.6, 6), (0.01, 1)])
def test_variations_start_from_the_images_made_noisy_and_take_turns(strength, steps):
    images = pictures(2)
    starts = model().sample([4, 2, 1], edit=vary(model(), images, strength), seed=6, sampler=STAYING)
    t = steps / 10
    expected = [(1 - t) * images[i % 2] + t * seed_noise(model(), 6, i) for i in (4, 2, 1)]
    np.testing.assert_allclose(starts, expected, atol=1e-6)


def test_variations_end_where_the_ode_leads():
    """Of N(m, 0.5²) under a label, the standardised value never changes."""
    images, labelled = pictures(3), model(condition=Labels(3, drop=0.1), sampler=samplers.EDM())
    got = labelled.sample(3, labels=1, edit=vary(labelled, images, 0.5), steps=100)
    x = 0.5 * images + 0.5 * np.stack([seed_noise(labelled, 0, i) for i in range(3)])
    exact = MEANS[1] + 0.5 * (x - 0.5 * MEANS[1]) / np.hypot(0.25, 0.5)
    np.testing.assert_allclose(got, exact, atol=2e-3)


def test_what_was_never_without_a_label_is_inverted_under_its_own():
    labelled, images = model(condition=Labels(3), sampler=samplers.EDM(), steps=60), pictures(2)
    edit = invert(labelled, images, [2, 0])
    np.testing.assert_allclose(labelled.sample(2, labels=[2, 0], edit=edit), images, atol=5e-3)
    with pytest.raises(ValueError, match="say what the images are, by --was"):
        invert(labelled, images)


@pytest.mark.parametrize("labels", [None, [2, 0]])
def test_what_is_inverted_comes_back_and_keeps_its_place_under_another_label(labels):
    labelled, images = model(condition=Labels(3, drop=0.1), sampler=samplers.EDM(), steps=60), pictures(2)
    edit = invert(labelled, images, labels, batch_size=1)
    if labels is None:  # without a condition, to which there is no label
        back = labelled.sample(2, edit=edit, guidance_scale=0.0)
        np.testing.assert_allclose(back, images, atol=5e-3)
        return
    np.testing.assert_allclose(labelled.sample(2, labels, edit=edit), images, atol=5e-3)
    own, other = np.take(MEANS, labels)[:, None, None, None], np.float32(MEANS[1])
    np.testing.assert_allclose(labelled.sample(2, 1, edit=edit), images - own + other, atol=5e-3)


def test_inversion_wants_the_ode_and_images_of_the_models_size():
    with pytest.raises(ValueError, match="does not follow the ODE"):
        invert(model(), pictures(2), sampler=samplers.DDPM())
    with pytest.raises(
        ValueError, match=r"toy takes images as floats .* of shape \(n, 2, 2, 1\), got float32 \(2, 3, 3"
    ):
        invert(model(), pictures(2, (3, 3, 1)))
    with pytest.raises(ValueError, match="toy knows no labels"):
        invert(model(), pictures(2), labels=1)


# --- what is known --------------------------------------------------------------------------------------------------

ARRIVING = (
    samplers.DDPM(),
    samplers.DDIM(),
    samplers.Euler(),
    samplers.Heun(),
    samplers.EDM(churn=2.0),
    samplers.DPMpp2S(),
    samplers.DPMpp2M(eta=1.0),
    samplers.UniPC(),
    samplers.AdaptiveODE(),
    samplers.EulerMaruyama(),
    samplers.ReverseDiffusion(),
    samplers.PredictorCorrector(),
    samplers.Resampling(times=2),
)


@pytest.mark.parametrize("sampler", ARRIVING, ids=str)
def test_what_is_known_is_exactly_there_at_the_end(sampler):
    images, masks = pictures(3), RANDOM.random((3, 2, 2)) < 0.5
    edit = inpaint(model(), np.where(masks[..., None], np.nan, images), masks)
    steps, grid = (1, grids.Uniform()) if isinstance(sampler, samplers.AdaptiveODE) else (3, grids.LogSNR())
    painted = model().sample(3, edit=edit, sampler=sampler, steps=steps, grid=grid)
    np.testing.assert_array_equal(painted[~masks], images[~masks])
    assert np.isfinite(painted).all()
    assert (abs(painted - images)[masks] > 1e-3).all()


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_a_threshold_leaves_alone_what_is_known(threshold):
    images, masks = pictures(4), np.zeros((1, 2, 2))
    masks[:, 0] = 0.25  # anything but 0 is painted
    far = lambda x, t, *condition: 3 + 0 * x  # noqa: E731
    painted = model().sample(4, edit=inpaint(model(), images, masks), denoiser=far, threshold=threshold)
    np.testing.assert_array_equal(painted[:, 1], images[:, 1])
    np.testing.assert_allclose(painted[:, 0], 1.0)


def test_labels_and_masks_take_turns():
    """Without steps in between, all that is painted is the mean of the label."""
    labelled, masks = model(condition=Labels(3, drop=0.1), steps=1), np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]]])
    painted = labelled.sample(6, labels=[2, 0, 1], edit=inpaint(labelled, np.ones((1, *SMALL)), masks))[..., 0]
    expected = [np.where(masks[i % 2], MEANS[(2, 0, 1)[i % 3]], 1.0) for i in range(6)]
    np.testing.assert_allclose(painted, expected, atol=1e-6)


def test_of_a_latent_model_what_no_painted_pixel_belongs_to_is_known():
    latent = model(codec=Halved())
    images, masks = latent.decoded(pictures(2)), np.zeros((1, 4, 4), bool)
    masks[0, 1, 2] = True
    edit = inpaint(latent, images, masks)
    painted = latent.sample(2, edit=edit, threshold=0.9)
    other = np.ones((4, 4), bool)
    other[:2, 2:] = False
    np.testing.assert_array_equal(painted[:, other], images[:, other])
    assert (abs(painted - latent.decoded(latent.encoded(edit.shown)))[:, ~other] > 1e-3).all()


def test_resampling_brings_what_is_painted_nearer_to_its_law_given_what_is_known():
    """Two pixels of correlation 0.9, of which one is known: the other is N(0.9 x, 0.25 (1 - 0.9²))."""
    covariance, count = jnp.array([[0.25, 0.225], [0.225, 0.25]]), 2048

    def denoise(x, t, *condition):
        alpha, sigma = LINE.alpha(t), LINE.sigma(t)
        gain = alpha * covariance @ jnp.linalg.inv(alpha**2 * covariance + sigma**2 * jnp.eye(2))
        return (gain @ x.reshape(2)).reshape(x.shape)

    pair = model((1, 2, 1))
    edit = inpaint(pair, np.array([0.0, 1.0]).reshape(1, 1, 2, 1), np.array([[[1, 0]]]))
    mean, deviation = 0.9, 0.5 * (1 - 0.9**2) ** 0.5
    off = []
    for times in (1, 4, 16):
        x = pair.sample(
            count, edit=edit, denoiser=denoise, sampler=samplers.Resampling(times=times), grid=grids.LogSNR(), steps=20,
            batch_size=count,
        )[:, 0, 0, 0]  # fmt: skip
        off.append((abs(x.mean() - mean), abs(x.std() - deviation)))
    assert off[0][0] > 0.2
    assert off[1][0] < off[0][0] / 2
    assert off[2][0] < min(off[1][0] / 2, 0.05)
    assert off[2][1] < 0.05


@pytest.mark.parametrize(
    ("images", "masks", "says"),
    [
        (
            np.zeros((2, 3, 3, 1)),
            np.zeros((2, 3, 3)),
            r"toy takes images as floats in \[-1, 1\], of shape \(n, 2, 2, 1",
        ),
        (np.zeros((2, 2, 2, 1), np.uint8), np.zeros((2, 2, 2)), r"got uint8 \(2, 2, 2, 1\)"),
        (np.zeros((2, 2, 2, 1)), np.zeros((2, 2)), r"a mask of 2x2, or one an image, got \(2, 2\)"),
        (np.zeros((2, 2, 2, 1)), np.zeros((2, 4, 4)), r"a mask of 2x2, or one an image, got \(2, 4, 4\)"),
        (np.zeros((2, 2, 2, 1)), np.zeros((3, 2, 2)), r"a mask of 2x2, or one an image, got \(3, 2, 2\)"),
        (np.zeros((0, 2, 2, 1)), np.zeros((1, 2, 2)), "toy takes images as floats"),
    ],
)
def test_what_cannot_be_inpainted_is_refused(images, masks, says):
    with pytest.raises(ValueError, match=says):
        inpaint(model(), images, masks)


# --- beyond the borders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 8), (7, 4), (5, 6)], ids=str)
@pytest.mark.parametrize("borders", [(3, 0, 0, 0), (0, 20, 0, 9), (4, 4, 4, 4), (1, 2, 13, 5), (0, 0, 0, 0)], ids=str)
def test_windows_cover_all_and_overlap_with_what_is_known(size, borders, monkeypatch):
    left, top, right, bottom = borders
    (height, width), calls = size, []

    def sample(self, count, edit, seed, **options):
        known, mask = edit.given
        assert mask.mean() < 2 / 3
        assert mask.any()
        np.testing.assert_array_equal(known[mask == 1], 0)
        assert (known[mask == 0] != 0).all()  # drawn before, or given
        calls.append((seed, options))
        return edit.pasted(np.arange(count), np.full((count, *self.shape), 2.0 + len(calls), np.float32))

    monkeypatch.setattr(Model, "sample", sample)
    images = pictures(2, (*size, 1))
    canvas = outpaint(model((*size, 1)), images, left, top, right, bottom, seed=2**32 - 1, labels=3)
    assert canvas.shape == (2, top + height + bottom, left + width + right, 1)
    given = np.s_[:, top : top + height, left : left + width]
    np.testing.assert_array_equal(canvas[given], images)
    canvas[given] = 3
    assert (canvas > 2).all()
    assert len({seed for seed, _ in calls}) == len(calls)
    assert all(0 <= seed < 2**32 and options == {"labels": 3} for seed, options in calls)
    assert bool(calls) == any(borders)


def test_outpainting_draws():
    images, wide = pictures(2, (4, 4, 1)), model((4, 4, 1), condition=Labels(3, drop=0.1))
    options = {"left": 3, "bottom": 2, "steps": 4, "labels": [0, 2], "seed": 1}
    canvas = outpaint(wide, images, **options)
    assert canvas.shape == (2, 6, 7, 1)
    assert np.isfinite(canvas).all()
    np.testing.assert_array_equal(canvas[:, :4, 3:], images)
    np.testing.assert_array_equal(outpaint(wide, images, **options), canvas)
    assert abs(outpaint(wide, images, **options | {"seed": 2}) - canvas)[:, 4:].min() > 1e-4
    assert len(np.unique(canvas)) == canvas.size  # no window has the noise of another


@pytest.mark.parametrize(
    ("images", "borders", "says"),
    [
        (pictures(2), {"left": -1}, r"borders of 0 pixels or more, got \(-1, 0, 0, 0\)"),
        (
            pictures(2, (4, 4, 1)),
            {"left": 1},
            r"toy takes images .* of shape \(n, 2, 2, 1\), got float32 \(2, 4, 4, 1\)",
        ),
        (pictures(2, (1, 1, 1)), {}, r"toy takes images .* of shape \(n, 2, 2, 1\)"),
        (pictures(1)[0], {"top": 1}, r"toy takes images .* got float32 \(2, 2, 1\)"),
    ],
)
def test_what_cannot_be_outpainted_is_refused(images, borders, says):
    with pytest.raises(ValueError, match=says):
        outpaint(model(), images, **borders)


# --- what is measured -----------------------------------------------------------------------------------------------

BLOCK = (2, 2, 3)  # 12 numbers
CODEC = Rotated(rotation(12))
MEASUREMENTS = {  # and of the prior: mean, deviation, and what of its variance the measurement keeps
    "gray": (gray, 0.3, 0.5, 1 / 3),
    "reduced": (Reduced(2), 0.3, 0.5, 1 / 4),
    "gray of latents": (Seen(CODEC, gray), 0.0, 1.0, 0.25 / 3),
    "reduced of latents": (Seen(CODEC, Reduced(2)), 0.0, 1.0, 0.25 / 4),
}


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("measured", MEASUREMENTS)
@pytest.mark.parametrize("process", [VP(), Flow(), LinearVE()], ids=lambda p: type(p).__name__)
def test_guidance_by_a_measurement_is_bayes_rule_where_the_data_are_normal(process, measured, scale):
    """E[x_0 | x_t, y], from the precisions of the three; the scale is a power of p(y | x_t)."""
    measure, mean, deviation, spread = MEASUREMENTS[measured]
    plain = lambda x, t: Mixture((mean,), deviation).denoise(process, x, t)  # noqa: E731
    x, y = RANDOM.normal(size=BLOCK), 0.4
    matrix = np.asarray(jax.jacobian(measure)(jnp.zeros(BLOCK)), np.float64).reshape(-1, 12)
    offset = np.asarray(measure(jnp.zeros(BLOCK)), np.float64).reshape(-1)
    guided = Measured(plain, measure, process, spread, deviation, noise=0.1, scale=scale)
    for t in (0.02, 0.3, 0.9):
        alpha, sigma = float(process.alpha(t)), float(process.sigma(t))
        x_t = alpha * x + sigma * RANDOM.normal(size=BLOCK)
        precision = np.eye(12) * (deviation**-2 + (alpha / sigma) ** 2) + matrix.T @ matrix / 0.1**2
        seen = mean / deviation**2 + alpha * x_t.reshape(-1) / sigma**2 + matrix.T @ (y - offset) / 0.1**2
        unguided = np.asarray(plain(jnp.asarray(x_t, jnp.float32), jnp.asarray(t)))
        exact = unguided + scale * (np.linalg.solve(precision, seen).reshape(BLOCK) - unguided)
        given = EditCondition(jnp.full(measure(jnp.zeros(BLOCK)).shape, y), ())
        got = guided(jnp.asarray(x_t, jnp.float32), jnp.asarray(t), given)
        np.testing.assert_allclose(got, exact, rtol=2e-3, atol=2e-3)


def pixels(x, t, *condition):
    return Mixture((0.3,), 0.5).denoise(LINE, x, t)


def latents(x, t, *condition):
    return Mixture((0.0,), 1.0).denoise(LINE, x, t)


RESTORED = [
    (upscale, SMALL, pixels, None, samplers.DDPM()),
    (upscale, SMALL, pixels, None, samplers.DPMpp2M()),
    (upscale, SMALL, latents, Rotated(rotation(4)), samplers.DDPM()),
    (colorize, (1, 1, 3), pixels, None, samplers.DDPM()),
    (colorize, (1, 1, 3), latents, Rotated(rotation(3)), samplers.DPMpp2M()),
]


@pytest.mark.parametrize(
    ("restore", "shape", "denoise", "codec", "sampler"), RESTORED, ids=lambda value: str(value)[:20]
)
def test_restored_images_have_the_posterior_mean_and_deviation(restore, shape, denoise, codec, sampler):
    """Pixels of N(0.3, 0.5²), of which the mean was seen, with noise of deviation 0.02; given images take turns."""
    count, size = 4096, int(np.prod(shape))
    seen = np.array([0.8, -0.4], np.float32).reshape(2, 1, 1, 1)
    restorer = model(shape, codec)
    edit = restore(restorer, seen, 2) if restore is upscale else restore(restorer, seen)
    assert edit.shown.shape == (2, *shape)
    x = restorer.sample(
        count, edit=edit, denoiser=denoise, sampler=sampler, grid=grids.LogSNR(), steps=500, batch_size=count
    ).reshape(-1, 2, size)
    gain = (0.25 / size) / (0.25 / size + 0.02**2)
    mean, deviation = 0.3 + gain * (seen.reshape(2, 1) - 0.3), (0.25 - gain * 0.25 / size) ** 0.5
    error = deviation / (count / 2) ** 0.5
    np.testing.assert_array_less(abs(x.mean(0) - mean), 4 * error)
    np.testing.assert_array_less(abs(x.std(0) - deviation), 4 * error / 2**0.5)
    np.testing.assert_allclose(x.mean((0, 2)), mean[:, 0], atol=4 * 0.02 / (count / 2) ** 0.5 + 2e-3)
    np.testing.assert_allclose(x.mean(-1).std(0), gain**0.5 * 0.02, rtol=0.2)


def test_a_restorer_takes_labels_and_other_images_are_no_new_program(compiled):
    labelled = model((4, 4, 1), condition=Labels(3, drop=0.1))

    def draw(value, labels):
        edit = upscale(labelled, np.full((1, 2, 2, 1), value), 2)
        return labelled.sample(3, labels, edit=edit, guidance_scale=1.5)

    draw(0.1, 0)
    programs = len(compiled)
    x = draw(0.4, [2, 0])
    assert len(compiled) == programs > 0
    np.testing.assert_allclose(x.reshape(3, 2, 2, 2, 2).mean((2, 4)), 0.4, atol=0.1)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda: colorize(model(), pictures(2)), r"a model of colour images to colorize with, got \(2, 2, 1\)"),
        (
            lambda: colorize(model(BLOCK), pictures(2, (4, 4, 1))),
            r"of shape \(n, 2, 2, 3\), got float32 \(2, 4, 4, 3\)",
        ),
        (lambda: upscale(model(), pictures(1, (1, 1, 1)), 3), "a factor that divides 2x2, got 3"),
        (lambda: upscale(model(), pictures(1, (1, 1, 1)), 1), "a factor that divides 2x2, got 1"),
        (lambda: upscale(model(), pictures(1), 2), r"images of shape \(1, 1, 1\), got \(2, 2, 1\)"),
        (
            lambda: upscale(model(), np.zeros((1, 1, 1, 1), np.uint8), 2),
            r"images as floats in \[-1, 1\], got dtype\('uint8",
        ),
        (
            lambda: colorize(model(BLOCK), np.zeros((1, 2, 2, 1), int)),
            r"images as floats in \[-1, 1\], got dtype\('int64",
        ),
        (lambda: interpolate(model(), *np.zeros((2, *SMALL)), 1), "at least 2 images to interpolate, got 1"),
        (lambda: interpolate(model(), *np.zeros((2, 1, *SMALL)), 3), r"two noises of shape \(2, 2, 1\), got \(\(1, 2"),
        (lambda: vary(model(), pictures(1, (2, 2, 3))), r"toy takes images .*, got float32 \(1, 2, 2, 3\)"),
        (lambda: vary(model(), np.zeros((1, *SMALL), np.uint8)), r"toy takes images as floats in .* got uint8"),
    ],
)
def test_other_edits_that_cannot_be_are_refused(edit, says):
    with pytest.raises(ValueError, match=says):
        edit()


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.5, float("nan")])
def test_strength_is_a_share(strength):
    with pytest.raises(ValueError, match="strength must be above 0 and at most 1"):
        model().sample(1, edit=vary(model(), pictures(1), strength))
