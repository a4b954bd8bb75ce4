"""The tables of benchmarks/solver_order.py, asserted."""

import pytest
from systems import name

from benchmarks.solver_order import DEVIATION, MEAN, PROCESSES, PUBLISHED_ORDER, STOCHASTIC, moments, order
from jaxdiff.core.process import VE, Flow, SubVP
from jaxdiff.core.tables import Discrete

pytestmark = pytest.mark.usefixtures("optimised")


@pytest.mark.parametrize("process", PROCESSES, ids=name)
@pytest.mark.parametrize(("sampler", "published"), PUBLISHED_ORDER.items(), ids=name)
def test_order_of_convergence(sampler, published, process):
    assert order(sampler, process) == pytest.approx(published, abs=0.15)


@pytest.mark.parametrize("process", [Discrete(), SubVP(), Flow(), VE()], ids=name)  # the benchmark prints all
@pytest.mark.parametrize("sampler", STOCHASTIC, ids=name)
def test_moments_of_twenty_thousand_samples(sampler, process):
    mean, deviation = moments(sampler, process, count=20_000)
    assert mean == pytest.approx(MEAN, abs=4 * DEVIATION / 20_000**0.5)
    assert deviation == pytest.approx(DEVIATION, abs=4 * DEVIATION / 40_000**0.5)
