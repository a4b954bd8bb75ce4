"""The edge: image i is image i, one program, bad calls."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import DETERMINISTIC, PROCESSES, STOCHASTIC, gaussian, name

from benchmarks.solver_order import double_precision, exact_path
from jaxdiff.core import grids, samplers, sampling
from jaxdiff.core.c_noise import log_sigma, time
from jaxdiff.core.denoise import Moved, NetworkDenoiser
from jaxdiff.core.exact import Mixture
from jaxdiff.core.guidance import Autoguidance, Clip
from jaxdiff.core.predictions import data, noise, velocity
from jaxdiff.core.process import VP, Cosine, Flow, LinearVE, Process
from jaxdiff.core.rng import image_key, normal
from jaxdiff.core.sampling import Progress, batches, encode, sample
from jaxdiff.core.tables import Discrete
from jaxdiff.models import Diffusion
from jaxdiff.nets import MLP

PROCESS = VP()
TIMES = grids.LogSNR()(PROCESS, 10)
ONE = jax.devices()[:1]


class Recorder(samplers.Sampler):
    """A sampler that keeps what noise it is given: the initial noise, then that of each step."""

    def init(self, x, t):
        return x / PROCESS.sigma(TIMES[0]), jnp.zeros((10, *x.shape)), 0

    def image(self, carry):
        return jnp.concatenate([carry[0][None], carry[1]])

    def step(self, denoise, key, carry, t, s):
        first, drawn, i = carry
        return first, drawn.at[i].set(normal(key, first.shape, first.dtype)), i + 1


def seventeen(sampler, **options):
    images = sample(gaussian(PROCESS), PROCESS, sampler, TIMES, shape=(4, 4, 3), seed=3, **options)
    return images[list(options["indices"]).index(17)]


CALLS = [
    {"indices": [17], "devices": ONE},
    {"indices": [3, 17, 99, 5, 6], "devices": ONE},
    {"indices": range(64), "devices": ONE},
    {"indices": range(10, 40), "devices": ONE, "batch_size": 7},
    {"indices": range(64)},
    {"indices": [17], "batch_size": 16},
]


@pytest.mark.parametrize("options", CALLS[1:], ids=str)
def test_noise_of_image_17_is_the_same_bit_for_bit(options):
    alone = seventeen(Recorder(), **CALLS[0])
    assert alone.shape == (11, 4, 4, 3)
    assert len(np.unique(alone)) == alone.size  # every step draws its own
    np.testing.assert_array_equal(seventeen(Recorder(), **options), alone)


@pytest.mark.parametrize("sampler", [samplers.DDPM(), samplers.UniPC(3), samplers.PredictorCorrector()], ids=str)
def test_image_17_is_the_same(sampler):
    alone = seventeen(sampler, **CALLS[0])
    for options in CALLS[1:]:
        np.testing.assert_allclose(seventeen(sampler, **options), alone, atol=1e-5)


def test_other_seeds_and_indices_are_other_images():
    images = [sample(gaussian(PROCESS), PROCESS, samplers.DDIM(), TIMES, shape=(2,), seed=s, indices=3) for s in (0, 1)]
    assert len(np.unique(images)) == 12


def test_batches_come_one_by_one_and_the_last_is_padded_not_returned():
    sizes, numbers = [], []
    for indices, images in batches(
        gaussian(PROCESS), PROCESS, samplers.DDIM(), TIMES, shape=(2,), indices=range(5, 24), batch_size=8
    ):
        assert len(images) == len(indices)
        sizes.append(len(images))
        numbers += list(indices)
    assert sizes == [8, 8, 3]
    assert numbers == list(range(5, 24))


def test_one_program_serves_any_number_of_images_any_grid_and_new_parameters(compiled):
    uniform = grids.Uniform()(PROCESS, 10)

    def network(parameters, x, c_noise):
        return parameters * x

    def draw(parameters, count, times, **options):
        model = NetworkDenoiser(jax.tree_util.Partial(network, parameters), PROCESS, c_noise=time)
        return sample(model, PROCESS, samplers.DDIM(), times, shape=(2,), indices=count, batch_size=8, **options)

    parameters, other = jnp.asarray(0.1), jnp.asarray(0.9)
    first = draw(parameters, 8, TIMES)
    programs = len(compiled)
    for count in (1, 8, 30):
        draw(parameters, count, TIMES)
    draw(parameters, 8, uniform, callback=lambda progress: None, every=3)
    assert not np.allclose(draw(other, 8, TIMES), first)
    assert len(compiled) == programs > 0


# --- from another start ---------------------------------------------------------------------------------------------


class Staying(samplers.Sampler):
    """A sampler that stays where it starts."""

    def step(self, denoise, key, x, t, s):
        return x


STAYING, SHAPE, LATE = Staying(), (4, 4, 3), TIMES[4:]
POOL = np.random.default_rng(0).uniform(-1, 1, (2, 100, *SHAPE)).astype(np.float32)  # images, and noises


@pytest.mark.parametrize("given", [(), ("images",), ("noise",), ("images", "noise")], ids="+".join)
def test_the_start_is_what_is_given_made_noisy(given):
    """alpha x_0 + sigma eps, with the seed's own eps unless one is given; without images sigma eps alone."""
    numbers, point = np.array([40, 3, 17]), PROCESS.at(LATE[0])
    rows = {name: values[numbers] for name, values in zip(("images", "noise"), POOL, strict=True) if name in given}
    starts = sample(gaussian(PROCESS), PROCESS, STAYING, LATE, shape=SHAPE, indices=numbers, seed=5, **rows)
    eps = rows.get("noise", [normal(jax.random.fold_in(image_key(5, i), 0), SHAPE) for i in numbers])
    expected = np.float32(point.alpha) * rows.get("images", 0) + np.float32(point.sigma) * np.array(eps)
    np.testing.assert_allclose(starts, expected, rtol=1e-6, atol=1e-6)


def test_image_17_is_the_same_from_a_start_of_its_own():
    def own(indices, batch_size=None, devices=None):
        images, noise = POOL[:, list(indices)]
        drawn = sample(
            gaussian(PROCESS), PROCESS, samplers.DDPM(), LATE, shape=SHAPE, indices=indices, seed=3,
            images=images, noise=noise, batch_size=batch_size, devices=devices,
        )  # fmt: skip
        return drawn[list(indices).index(17)]

    alone = own([17], devices=ONE)
    for options in CALLS[3:5]:
        np.testing.assert_allclose(own(**options), alone, atol=1e-5)


def test_what_is_broadcast_to_all_images_is_not_copied_for_each():
    """Copies of the three would take two terabytes."""
    count, shape = 10**6, (256, 256, 3)
    images, noise, condition = (np.broadcast_to(np.float32(value), (count, *shape)) for value in (2, 3, 4))
    drawn = batches(
        lambda x, t, y: y, PROCESS, samplers.DDIM(), LATE[-2:], shape=shape, indices=count, batch_size=1,
        images=images, noise=noise, conditions=condition, devices=ONE,
    )  # fmt: skip
    np.testing.assert_array_equal(next(drawn)[1], np.full((1, *shape), 4))


def test_another_start_is_no_new_program(compiled):
    def draw(first, **options):
        images, noise = POOL[:, first : first + 8]
        return sample(denoise, PROCESS, samplers.DDIM(), LATE, shape=SHAPE, indices=8, images=images, noise=noise)

    denoise = gaussian(PROCESS)
    found = [draw(0), encode(denoise, PROCESS, samplers.DDIM(), LATE, POOL[0, :8])]
    programs = len(compiled)
    again = [draw(8), encode(denoise, PROCESS, samplers.DDIM(), LATE, POOL[0, 8:16])]
    assert len(compiled) == programs > 0
    assert all(abs(a - b).max() > 0.1 for a, b in zip(found, again, strict=True))


# --- from images to noise -------------------------------------------------------------------------------------------

AT_HOME = [(samplers.EDM(), process) for process in PROCESSES[1:]]
FROM_PURE_NOISE = [
    (sampler, Flow())
    for sampler in DETERMINISTIC
    if sampler.follows_ode and sampler not in (samplers.UniPC(1), samplers.UniPC(3))
]


@pytest.mark.parametrize(("sampler", "process"), dict.fromkeys(AT_HOME + FROM_PURE_NOISE), ids=name)
def test_encoding_inverts_sampling(sampler, process):
    """On Gaussian data the noise has a closed form too. Up and down the same times are one program."""
    adaptive = isinstance(sampler, samplers.AdaptiveODE)
    times = np.asarray(grids.LogSNR(to_data=False)(process, 1 if adaptive else 40))
    if process.t_max < 1:
        times = np.append(1.0, times[1:] if adaptive else times)  # where nothing of the data is left
    images = np.random.default_rng(1).normal(0.3, 0.5, (5, 3)).astype(np.float32)
    denoise, least = gaussian(process), float(process.alpha(times[-1])) * images
    noise = encode(denoise, process, sampler, times, images, devices=ONE)
    back = sample(denoise, process, sampler, times, shape=(3,), indices=5, noise=noise, devices=ONE)
    first_order = isinstance(sampler, samplers.DDIM | samplers.Euler)
    np.testing.assert_allclose(back, least, atol=0.12 if first_order else 5e-3)
    exact = exact_path(process, least, times[-1], times[0]) / process.sigma(times[0])
    np.testing.assert_allclose(noise, exact, atol=0.12 if first_order else 0.02)


@pytest.mark.parametrize(("sampler", "there", "and_back"), [(samplers.DDIM(), 1, 1), (samplers.EDM(), 2, 3)], ids=str)
def test_the_way_there_and_back_is_of_the_samplers_order(sampler, there, and_back):
    """On the way back an error of even order is undone. To clean data itself the last step is as long on any grid."""
    errors, denoise = [], gaussian(PROCESS)
    for steps in (32, 64):
        times = grids.LogSNR(to_data=False)(PROCESS, steps)
        images = np.linspace(-1, 1.5, 6, dtype=np.float32)[:, None]
        least = float(PROCESS.alpha(times[-1])) * images
        noise = encode(denoise, PROCESS, sampler, times, images, devices=ONE)
        exact = exact_path(PROCESS, least, times[-1], times[0]) / PROCESS.sigma(times[0])
        back = sample(denoise, PROCESS, sampler, times, shape=(1,), indices=6, noise=noise, devices=ONE)
        errors.append((abs(noise - exact).max(), abs(back - least).max()))
    np.testing.assert_allclose(np.log2(np.divide(*errors)), (there, and_back), atol=0.2)


def test_images_are_encoded_each_under_its_own_condition_also_in_padded_batches():
    times, means = grids.LogSNR()(PROCESS, 30), np.linspace(-1, 1, 11, dtype=np.float32)
    deviations = np.random.default_rng(1).normal(0, 0.5, (11, 2)).astype(np.float32)

    def denoise(x, t, mean):
        return mean + GAUSSIAN(x - PROCESS.alpha(t) * mean, t)

    GAUSSIAN = jax.tree_util.Partial(Mixture((0.0,), 0.5).denoise, PROCESS)
    noise = encode(denoise, PROCESS, samplers.DPMpp2M(), times, means[:, None] + deviations, conditions=means)
    by_hand = encode(GAUSSIAN, PROCESS, samplers.DPMpp2M(), times, deviations)
    back = sample(
        denoise, PROCESS, samplers.DPMpp2M(), times, shape=(2,), indices=11, noise=noise, conditions=means, batch_size=8
    )
    np.testing.assert_allclose(back, means[:, None] + deviations, atol=5e-3)
    np.testing.assert_allclose(noise - noise.mean(0), by_hand - by_hand.mean(0), atol=2e-2)


@pytest.mark.parametrize("sampler", [*STOCHASTIC, samplers.DDPM(noise=0.0)], ids=str)
def test_what_does_not_follow_the_ode_cannot_encode(sampler):
    with pytest.raises(ValueError, match=r"does not follow the ODE: encode with EDM\(\), Heun\(\) or DDIM\(\)"):
        encode(gaussian(PROCESS), PROCESS, sampler, TIMES, POOL[0, :2])


@dataclass
class Melting(Process):
    """A process that anyone may change."""

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t


@dataclass(frozen=True)
class Wrong(samplers.Sampler):
    """A sampler that asks at a wrong time, or gives something else than an image."""

    asks: Callable = lambda t: t.t
    gives: Callable = lambda x: x

    def step(self, denoise, key, x, t, s):
        return self.gives(denoise(x, self.asks(t)))


class Short(samplers.Sampler):
    def step(self, denoise, x, t):
        return x


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"images": np.zeros(4)}, r"images must be at least one, \[n, ...\], got shape \(4,\)"),
        ({"images": np.zeros((0, 2))}, "images must be at least one"),
        ({"images": np.zeros((3, 2), np.uint8)}, r"images must be floats of shape \(3, 2\), .* got uint8"),
        ({"conditions": np.zeros(2)}, "one entry for each of the 3 images"),
        ({"times": [1e-4, 0.0]}, "times must begin above t = 0.001, where noise begins, got 0.0001"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_encoded_is_refused(change, says):
    call = {"times": TIMES, "images": np.zeros((3, 2), np.float32)}
    with pytest.raises(ValueError, match=says):
        encode(gaussian(PROCESS), PROCESS, samplers.EDM(), **call | change)


# --- what it costs, and what is seen of it --------------------------------------------------------------------------


def test_device_memory_does_not_grow_with_the_number_of_steps():
    def temporary_bytes(steps):
        process, sampler = Discrete(), samplers.DDPM()
        times = grids.Uniform()(process, steps)
        own = sampling._Own(np.arange(4, dtype=np.uint32))
        keys, carry = sampling._begin(process, sampler, (32, 32, 3), times, np.uint32(0), own)
        inputs, rest = sampling.split(gaussian(process))
        lowered = sampling._advance.lower(rest, process, sampler, inputs, keys, (), carry, times, 0, steps)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    image_bytes = 4 * 32 * 32 * 3 * 4
    assert temporary_bytes(1000) - temporary_bytes(10) < image_bytes


def test_callback_sees_previews_and_changes_nothing():
    seen = []

    previews = []

    def look(progress: Progress):
        seen.append((progress.step, progress.steps, list(progress.indices), progress.images.shape))
        previews.append(progress.images.copy())

    options = {"shape": (2,), "indices": range(3, 12), "batch_size": 8}
    plain = sample(gaussian(PROCESS), PROCESS, samplers.UniPC(), TIMES, **options)
    watched = sample(gaussian(PROCESS), PROCESS, samplers.UniPC(), TIMES, callback=look, every=4, **options)
    np.testing.assert_array_equal(plain, watched)
    np.testing.assert_array_equal(previews[2], plain[:8])
    to_step_4 = sample(gaussian(PROCESS), PROCESS, samplers.UniPC(), TIMES[:5], **options)
    np.testing.assert_allclose(previews[0], to_step_4[:8], atol=1e-6)
    first, last = list(range(3, 11)), [11]
    assert seen == [(step, 10, first, (8, 2)) for step in (4, 8, 10)] + [
        (step, 10, last, (1, 2)) for step in (4, 8, 10)
    ]


def test_callback_sees_what_the_denoiser_expects():
    """Of x_t as it stands; at the end the image itself, though a network that gets log-SNR makes nothing of it."""
    labels, seen = np.linspace(-1, 1, 11, dtype=np.float32), []

    def denoise(x, t, mean):
        return mean + jnp.tanh(x) + 0 * PROCESS.log_snr(t)

    def look(progress: Progress):
        x, mean = progress.images, labels[progress.indices - 5, None]
        truth = mean + np.tanh(x) if progress.step < 10 else x
        np.testing.assert_allclose(progress.expected, truth, atol=1e-6)
        seen.append((progress.step, len(x)))

    sample(
        denoise, PROCESS, samplers.UniPC(), TIMES, shape=(2,), indices=range(5, 16), batch_size=8, conditions=labels,
        callback=look, every=4,
    )  # fmt: skip
    assert seen == [(4, 8), (8, 8), (10, 8), (4, 3), (8, 3), (10, 3)]


def test_conditions_reach_their_own_image_also_in_a_padded_sharded_batch():
    labels, scales = np.arange(11), np.linspace(0, 1, 11, dtype=np.float32)
    denoise = lambda x, t, condition: jnp.full_like(x, condition["label"] + condition["scale"])  # noqa: E731
    images = sample(
        denoise,
        PROCESS,
        samplers.DDIM(),
        TIMES,
        shape=(2,),
        indices=11,
        batch_size=8,
        conditions={"label": labels, "scale": scales},
    )
    np.testing.assert_allclose(images[:, 0], labels + scales, rtol=1e-5)


def test_a_plain_function_samples_both_modes():
    mixture = Mixture((-1.0, 1.0), 0.1, (0.5, 0.5))
    images = sample(
        lambda x, t: mixture.denoise(PROCESS, x, t), PROCESS, samplers.DPMpp2M(), TIMES, shape=(1,), indices=64
    )
    assert np.all(np.minimum(abs(images - 1), abs(images + 1)) < 0.6)


def test_debug_says_where_the_first_value_that_is_not_finite_appeared():
    def denoise(x, t, index):
        return jnp.where((t < 0.35) & (index == 6), jnp.nan, 0.0) * x

    times = grids.Uniform()(LinearVE(), 10)
    arguments = {"shape": (2,), "indices": 12, "conditions": np.arange(12), "batch_size": 4}
    with pytest.warns(UserWarning, match="debug=True says which"):
        assert np.isnan(sample(denoise, LinearVE(), samplers.DDIM(), times, **arguments)).any()
    with pytest.raises(FloatingPointError, match=r"image 6 is not finite after step 8 of 10, from t = 0.3 to 0.2"):
        sample(denoise, LinearVE(), samplers.DDIM(), times, debug=True, **arguments)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"indices": -3}, "indices must be a number of images, at least 1"),
        ({"indices": 0}, "indices must be"),
        ({"indices": range(-5, 5)}, "indices must be"),
        ({"indices": [0.5]}, "indices must be"),
        ({"indices": []}, "indices must be"),
        ({"seed": -1}, "seed must be a whole number, at least 0 and below 2\\^32, got -1"),
        ({"seed": 2**32}, "seed must be a whole number, at least 0 and below 2\\^32"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1, got 0"),
        ({"every": 0}, "every must be a whole number, at least 1"),
        ({"conditions": np.zeros(3)}, r"one entry for each of the 16 images, got shape \(3,\)"),
        ({"conditions": 7}, "one entry for each of the 16 images"),
        ({"times": jnp.linspace(0, 1, 11)}, "must fall strictly"),
        ({"times": jnp.ones(1)}, "at least two numbers"),
        ({"denoise": lambda x, t: x[0]}, r"must return an image of its input's shape, \(2,\), got \(\)"),
        ({"denoise": lambda x, t: (x, x)}, "must return an image of its input's shape.*got tuple"),
        ({"denoise": "x"}, "denoise must be a function"),
        ({"process": VP}, r"process must be one of jaxdiff.core.process, such as VP\(\)"),
        ({"sampler": samplers.DDIM}, r"sampler must be one of jaxdiff.core.samplers, such as DDIM\(\)"),
        ({"sampler": "ddim"}, "sampler must be one of jaxdiff.core.samplers"),
        ({"times": grids.LogSNR()}, r"times must be a row .* such as Uniform\(\)\(process, steps\)"),
        ({"times": 30}, "times must be a row"),
        ({"seed": 1.5}, "seed must be a whole number, at least 0 and below 2\\^32, got 1.5"),
        ({"seed": None}, "seed must be a whole number"),
        ({"shape": (2.5,)}, "shape must be a whole number"),
        ({"batch_size": 2.5}, "batch_size must be a whole number"),
        ({"conditions": ["cat"] * 16}, "conditions must be arrays of numbers"),
        ({"callback": 3}, "callback must be a function"),
        ({"devices": []}, "devices must be at least one"),
        ({"shape": (-2,)}, "shape must be a whole number, at least 1, got -2"),
        (
            {"images": np.zeros((3, 2))},
            r"images must be floats of shape \(16, 2\), one for each .*, got float64",
        ),
        ({"images": np.zeros((16, 2), np.uint8)}, "images must be floats of shape .*, got uint8"),
        ({"noise": np.zeros((16, 3))}, r"noise must be floats of shape \(16, 2\), one for each"),
        ({"noise": 0.5}, "noise must be floats of shape"),
        ({"process": Melting()}, r"^Melting can change: make it a @dataclass\(frozen=True\)$"),
        ({"sampler": Wrong(asks=lambda t: t)}, "^a denoiser takes a time, t.t of the Point t"),
        (
            {"sampler": Wrong(gives=lambda x: x[0])},
            r"^Wrong.step must return what it is given, an array of shape \(2,\), it returned an array of shape \(\)",
        ),
        (
            {"sampler": Wrong(gives=lambda x: (x, x))},
            r"an array of shape \(2,\), it returned tuple of an array of shape \(2,\) and an array of shape \(2,\)",
        ),
        (
            {"sampler": Short()},
            r"^Short.step must take \(denoise, key, x, t, s\), it takes \(denoise, x, t\)$",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_bad_calls_end_in_one_clear_error(change, says):
    call = {"denoise": gaussian(PROCESS), "process": PROCESS, "sampler": samplers.DDIM(), "times": TIMES, "shape": (2,)}
    with pytest.raises(ValueError, match=says):
        sample(**call | change)


def test_a_model_of_another_process_is_refused_unless_moved():
    model = NetworkDenoiser(lambda x, t: 0.1 * x, LinearVE(), data, c_noise=time)
    nested = Clip(Autoguidance(model, model, 2.0))
    with pytest.raises(ValueError, match=r"made for LinearVE\(.*not for VP\(.*Moved"):
        sample(nested, PROCESS, samplers.DDIM(), TIMES, shape=(2,))
    moved = Clip(Moved(model, LinearVE(), PROCESS))
    assert np.isfinite(sample(moved, PROCESS, samplers.DDIM(), TIMES, shape=(2,))).all()
    with pytest.raises(ValueError, match="made for VP"):
        sample(moved, Flow(), samplers.DDIM(), grids.Uniform()(Flow(), 3), shape=(2,))


def test_a_bad_call_of_batches_fails_at_once_not_at_the_first_batch():
    with pytest.raises(ValueError, match="seed"):
        batches(gaussian(PROCESS), PROCESS, samplers.DDIM(), TIMES, shape=(2,), seed=-1)


def test_numbers_of_any_library_and_plain_lists_are_welcome():
    options = {"shape": [2], "seed": np.int64(1), "conditions": [0.0, 1.0, 2.0, 3.0], "batch_size": np.uint8(4)}
    images = sample(
        lambda x, t, y: 0 * x + y, PROCESS, samplers.DDIM(), TIMES, indices=np.int64(4), callback=None, **options
    )
    np.testing.assert_allclose(images, np.arange(4.0)[:, None] * np.ones(2), atol=1e-6)


@pytest.mark.parametrize(
    ("sampler", "process"),
    [(samplers.EulerMaruyama(), Flow()), (samplers.PredictorCorrector(samplers.EulerMaruyama()), Cosine())]
    + [(sampler, Flow()) for sampler in (samplers.ReverseDiffusion(), samplers.PredictorCorrector())],
    ids=str,
)
def test_a_sampler_that_cannot_start_from_pure_noise_says_where_it_can(sampler, process):
    """And there it is right: N(0.3, 0.5²), within what so many steps and images allow."""
    with pytest.raises(ValueError, match=r"nothing of the data is left.* such as LogSNR\(\) or Karras\(\)"):
        sample(gaussian(process), process, sampler, grids.Uniform()(process, 5), shape=(2,))
    for grid in (grids.LogSNR(), grids.Karras()):
        fine = sample(gaussian(process), process, sampler, grid(process, 100), shape=(500,), batch_size=16)
        assert float(fine.mean()) == pytest.approx(0.3, abs=0.03)
        assert float(fine.std()) == pytest.approx(0.5, abs=0.03)


def test_a_network_that_knows_nothing_of_pure_noise_is_not_asked_there():
    """Of noise, or by a log-SNR that is infinite; also within guidance, and where it is asked on another process."""
    flow = NetworkDenoiser(lambda x, t: x, Flow(), noise, c_noise=time)
    for model in (flow, Clip(flow), NetworkDenoiser(lambda x, t: x, Flow(), velocity, c_noise=log_sigma)):
        with pytest.raises(
            ValueError, match=r"a network of .* cannot be asked where nothing of .* starts at t = 0.999"
        ):
            sample(model, Flow(), samplers.DDIM(), grids.Uniform()(Flow(), 3), shape=(2,))
    late = sample(flow, Flow(), samplers.DDIM(), grids.LogSNR()(Flow(), 3), shape=(2,))
    assert np.isfinite(late).all()
    moved = Moved(flow, Flow(), Cosine())
    with pytest.raises(ValueError, match="a network of noise and time cannot be asked"):
        sample(moved, Cosine(), samplers.DDIM(), grids.Uniform()(Cosine(), 3), shape=(2,))
    moved = Moved(flow, Flow(), VP())
    assert np.isfinite(sample(moved, VP(), samplers.DDIM(), grids.Uniform()(VP(), 3), shape=(2,))).all()
    with pytest.raises(ValueError, match="cannot be asked"):
        Diffusion(MLP(), Flow(), noise, c_noise=time, grid=grids.Uniform()).check()


def test_single_precision_after_double():
    """Constants of one precision must not stay behind for the other."""
    for double in (True, False):
        with double_precision(double):
            times = grids.LogSNR()(PROCESS, 4)
            images = sample(gaussian(PROCESS), PROCESS, samplers.UniPC(3), times, shape=(2,), indices=2)
            assert images.dtype == (np.float64 if double else np.float32)


def test_flags_in_a_partial_stay_plain():
    def network(weights, x, c_noise, train):
        return weights * x if not train else x

    model = NetworkDenoiser(jax.tree_util.Partial(network, jnp.asarray(0.5), train=False), PROCESS, c_noise=time)
    assert np.isfinite(sample(model, PROCESS, samplers.DDIM(), TIMES, shape=(2,), indices=2)).all()
