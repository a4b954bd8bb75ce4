"""Distances between two sets of images, by their features; each with what chance may have done to it."""

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh  # several times as fast as numpy's

from jaxdiff.evaluation.summary import Summary

BLOCK = 1000  # images, of which one estimate of the kernel distance is made


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float  # the number
    error: float = math.nan  # its standard error; NaN where it is not known


def frechet(samples: Summary, reference: Summary) -> Estimate:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^(1/2)), between the two Gaussians with these moments.

    The error is that of the samples alone, by the delta method: bootstrapping would not do, since the distance grows
    with every image that is drawn twice.
    """
    values, vectors = eigh(reference.root @ samples.covariance @ reference.root)
    return Estimate(_between(samples, reference, values), _error(samples, reference, values, vectors))


def _between(samples: Summary, reference: Summary, values: np.ndarray) -> float:
    """`values` are the eigenvalues of C1 C2."""
    trace = np.trace(samples.covariance) + np.trace(reference.covariance)
    apart = ((samples.mean - reference.mean) ** 2).sum() + trace - 2 * np.sqrt(np.maximum(values, 0)).sum()
    return max(float(apart), 0.0)


def _error(samples: Summary, reference: Summary, values: np.ndarray, vectors: np.ndarray) -> float:
    """The distance changes by psi(x) / n with each image: 2 (m1 - m2) . z + z' (1 - A) z, where z = x - m1, and A maps
    the samples' Gaussian onto that of the reference."""
    safe = np.where(values > 1e-10 * max(values[-1], 1e-300), values, np.inf)
    onto = reference.root @ (vectors / np.sqrt(safe)) @ vectors.T @ reference.root
    z = samples.rows - np.float32(samples.mean)
    psi = 2 * z @ (samples.mean - reference.mean) + ((z - z @ np.float32(onto)) * z).sum(1)
    return float(psi.std(ddof=1) / math.sqrt(samples.count))


def frechet_at_infinity(whole: float, samples: Summary, reference: Summary) -> float | None:
    """What the distance, `whole` by all samples, tends to with more and more of them: its bias is in inverse proportion
    to their number (Chong & Forsyth 2020), so halves of those kept give it. None where these are too few for that."""
    half, root = len(samples.rows) // 2, reference.root
    if half < 2 * samples.rows.shape[1]:
        return None
    halves = [Summary.of(samples.rows[first : first + half]) for first in (0, half)]
    each = [_between(some, reference, eigh(root @ some.covariance @ root, eigvals_only=True)) for some in halves]
    return float((samples.count * whole - half * np.mean(each)) / (samples.count - half))


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """MMD² of the kernel (x . y / d + 1)³, without bias (Binkowski et al. 2018): of KID, if the features are its."""
    kernel = lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3  # noqa: E731
    inner = lambda a: (kernel(a, a).sum(dtype=np.float64) - _diagonal(a)) / (len(a) * (len(a) - 1))  # noqa: E731
    return float(inner(x) + inner(y) - 2 * kernel(x, y).mean(dtype=np.float64))


def _diagonal(a: np.ndarray) -> float:
    return float((((a**2).sum(1) / a.shape[1] + 1) ** 3).sum(dtype=np.float64))


def kid(samples: Summary, reference: Summary, scaled: bool) -> Estimate:
    """The mean over disjoint blocks of 1,000 images of each, or ten smaller ones: independent, so the error is theirs.

    `scaled` makes the mean square of the reference's features 1, where they have no scale that is agreed on.
    """
    count = min(len(samples.rows), len(reference.rows))
    blocks = max(count // BLOCK, min(10, count // 2))
    scale = np.sqrt(np.mean(reference.rows**2)) if scaled else np.float32(1)
    parts = (np.array_split(each.rows[:count] / scale, blocks) for each in (samples, reference))
    each = [kernel_distance(x, y) for x, y in zip(*parts, strict=True)]
    return Estimate(float(np.mean(each)), float(np.std(each, ddof=1) / math.sqrt(blocks)))


def classifier_score(samples: Summary) -> Estimate:
    """exp of the mean KL(p(y | x) || p(y)), of ten parts: by Inception, its score (Salimans et al. 2016)."""
    counts = samples.counts[samples.counts > 0]
    p = samples.shares[samples.counts > 0] / counts[:, None]
    marginal = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    each = np.exp(marginal - samples.entropy[samples.counts > 0] / counts)
    return Estimate(float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each))) if len(each) > 1 else math.nan)
