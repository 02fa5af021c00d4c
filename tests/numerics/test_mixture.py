"""Mixtures, silhouettes and groupings, by scikit-learn and by laws."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, silhouette_samples
from sklearn.mixture import GaussianMixture

from pullback.numerics.mixture import adjusted_rand, fitted_mixtures, maximised, silhouettes
from pullback.numerics.random import make_generator


def clouds(seed: int, apart: float = 5.0, n: int = 60, d: int = 3) -> torch.Tensor:
    """Three clouds of points, `(3 n, d)`, of several shapes."""
    rng = np.random.default_rng(seed)
    parts = [rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + apart * rng.normal(size=d) for _ in range(3)]
    return torch.from_numpy(np.concatenate(parts))


def test_a_mixture_is_the_one_of_scikit_learn():
    """From the same start, without a floor; so are its densities, its criterion (less is better there), its members."""
    points = clouds(0)
    ours = fitted_mixtures(points[None], 3, 5, make_generator(0), floor=1e-6, tolerance=1e-12, steps=2000)
    floor = 1e-6 * float(points.var(0, correction=0).mean())
    theirs = GaussianMixture(
        3,
        reg_covar=floor,
        tol=1e-12,
        max_iter=2000,
        weights_init=ours.weights[0].numpy(),
        means_init=ours.means[0].numpy(),
        precisions_init=np.linalg.inv(ours.covariances[0].numpy()),
    ).fit(points.numpy())
    np.testing.assert_allclose(ours.means[0], theirs.means_, atol=1e-5)
    np.testing.assert_allclose(ours.covariances[0], theirs.covariances_, atol=1e-4)
    np.testing.assert_allclose(ours.bic(points[None])[0], -theirs.bic(points.numpy()), rtol=1e-8)
    np.testing.assert_allclose(
        ours.log_densities(points[None]).logsumexp(2)[0], theirs.score_samples(points), rtol=1e-5
    )
    np.testing.assert_allclose(ours.memberships(points[None])[0], theirs.predict_proba(points.numpy()), atol=1e-5)


def test_likelihood_never_falls_and_ends_as_high_as_that_of_scikit_learn():
    points = clouds(1, apart=1.5)[None]
    none = torch.zeros(1, dtype=torch.float64)
    members = torch.rand(1, points.shape[1], 4, generator=make_generator(3), dtype=torch.float64).softmax(2)
    heights = []
    for _ in range(60):
        found = maximised(points, members, none)
        members = found.memberships(points)
        heights.append(float(found.log_likelihood(points)))
    assert (np.diff(heights) > -1e-9).all()
    assert heights[-1] > heights[0] + 10
    floor = 1e-2 * float(points.var(1, correction=0).mean())
    best = fitted_mixtures(points, 4, 10, make_generator(0), floor=1e-2).log_likelihood(points)
    theirs = GaussianMixture(4, n_init=10, random_state=0, reg_covar=floor).fit(points[0].numpy()).score(points[0])
    assert float(best) / points.shape[1] > theirs - 0.02


def test_sets_are_fitted_by_themselves():
    """A set's mixture is as likely alone as among others, and one Gaussian is mean and covariance."""
    sets = torch.stack([clouds(seed) for seed in range(3)])
    one = fitted_mixtures(sets, 1, 9, make_generator(0), floor=0.0)
    torch.testing.assert_close(one.means[:, 0], sets.mean(1))
    torch.testing.assert_close(one.covariances[2, 0], torch.cov(sets[2].mT, correction=0))
    among = fitted_mixtures(sets, 3, 8, make_generator(0)).log_likelihood(sets)
    alone = [fitted_mixtures(each[None], 3, 8, make_generator(1)).log_likelihood(each[None]) for each in sets]
    torch.testing.assert_close(among, torch.cat(alone), rtol=1e-3, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_silhouettes_and_groupings_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    points, one, other = rng.normal(size=(40, 2)), rng.integers(0, 4, 40), rng.integers(0, 3, 40)
    one[0] = 5  # alone in its cluster
    ours = silhouettes(torch.from_numpy(points), torch.from_numpy(one))
    np.testing.assert_allclose(ours, silhouette_samples(points, one), atol=1e-12)
    ours = adjusted_rand(torch.from_numpy(one), torch.from_numpy(other))
    assert ours == pytest.approx(adjusted_rand_score(one, other), abs=1e-12)
    assert adjusted_rand(torch.from_numpy(one), torch.from_numpy(5 - one)) == 1


def test_one_cluster_has_no_silhouette():
    with pytest.raises(ValueError, match="two clusters"):
        silhouettes(torch.rand(5, 2, generator=make_generator(0)), torch.ones(5, dtype=torch.long))
