"""Whole deterministic samplers against the published fixtures of another implementation.

The image is arange(768) / 768, the model x t / (t + 1) with t the integer step; figures are of absolute values.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdiff.core import c_noise, denoise, grids, inputs, predictions, samplers
from jaxdiff.core.guidance import Clip
from jaxdiff.core.process import LinearVE
from jaxdiff.core.sampling import walk
from jaxdiff.core.tables import Discrete, LinearBetas

IMAGE = jnp.asarray((np.arange(768).reshape(3, 8, 8, 4) / 768).transpose(3, 0, 1, 2), jnp.float32)


def result(process, sampler, times, prediction, clip):
    model = denoise.NetworkDenoiser(lambda x, t: x * t / (t + 1), process, prediction)
    model = Clip(model) if clip else model
    carry = walk(model, process, sampler, times, jax.random.key(0), sampler.init(IMAGE, process.at(times[0])))
    return np.abs(np.asarray(sampler.image(carry), np.float64))


@pytest.mark.parametrize(
    ("first_beta", "to_data", "prediction", "clip", "total"),
    [
        (1e-4, True, predictions.noise, True, 172.0067),
        (1e-4, True, predictions.velocity, True, 52.5302),
        (0.01, True, predictions.noise, True, 149.8295),
        (0.01, False, predictions.noise, True, 149.0784),
    ],
)
def test_ddim(first_beta, to_data, prediction, clip, total):
    process = Discrete(LinearBetas(first=first_beta))
    end = result(process, samplers.DDIM(), grids.Leading(to_data=to_data)(process, 10), prediction, clip)
    assert end.sum() == pytest.approx(total, abs=2e-3)
    assert end.mean() == pytest.approx(total / 768, abs=3e-6)


@pytest.mark.parametrize(("prediction", "mean"), [(predictions.noise, 0.3301), (predictions.velocity, 0.2251)])
def test_dpm_solver_pp_2m(prediction, mean):
    process = Discrete()
    end = result(process, samplers.DPMpp2M(), grids.Linspace(to_data=False)(process, 10), prediction, clip=False)
    assert end.mean() == pytest.approx(mean, abs=6e-5)


def test_edm_euler():
    """The network is preconditioned, with c_noise log(sigma) / 4; ten Karras levels, then zero; from sqrt(80² + 1)."""
    process = LinearVE()
    model = denoise.NetworkDenoiser(
        lambda x, t: x * t / (t + 1),
        process,
        predictions.EDMPreconditioning(),
        inputs.UnitVariance(),
        c_noise.quarter_log_sigma,
    )
    for sampler in (samplers.Euler(), samplers.DDIM()):
        end = walk(model, process, sampler, grids.Karras()(process, 10), jax.random.key(0), 6401**0.5 * IMAGE)
        assert np.abs(np.asarray(end, np.float64)).sum() == pytest.approx(34.1855, abs=1e-3)
