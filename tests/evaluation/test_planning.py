"""The difference that a planned study will detect, against simulated studies."""

import math

import numpy as np
import pytest

from voxloss.evaluation.planning import TYPICAL, Noise, expected_detectable, noise_of
from voxloss.evaluation.verdict import judge


def scores(generator: np.random.Generator, noise: Noise, losses: int, folds: int, seeds: int, cases: int):
    fold = np.arange(cases) % folds
    values = 0.6 + generator.normal(0, 0.2, (cases, 1))
    values = values + generator.normal(0, noise.pair_sd / math.sqrt(2), (cases, losses))
    lasting = generator.normal(size=(folds, losses)) * noise.run_sd * math.sqrt(noise.lasting)
    runs = generator.normal(size=(seeds, folds, losses)).mean(axis=0) * noise.run_sd * math.sqrt(1 - noise.lasting)
    return values + (lasting + runs)[fold], fold


@pytest.mark.slow
@pytest.mark.parametrize(("losses", "folds", "seeds", "cases"), [(7, 5, 1, 204), (4, 5, 3, 60), (2, 5, 1, 100)])
def test_a_planned_study_names_the_difference_in_four_of_five(losses, folds, seeds, cases):
    noise = Noise("made up", 0.15, 0.03)
    needed = expected_detectable(noise, losses, folds, seeds, cases)
    generator, names, named = np.random.default_rng(0), list("abcdefg")[:losses], []
    for _ in range(120):
        values, fold = scores(generator, noise, losses, folds, seeds, cases)
        values[:, 0] += needed
        pairs = judge(values, fold, names, seeds).pairs
        of_a = pairs[(pairs["better"] == "a") | (pairs["worse"] == "a")]
        named.append((of_a["differ"] & (of_a["better"] == "a")).mean())
    assert 0.68 < np.mean(named) < 0.92  # about 120 independent studies


def test_more_of_anything_detects_less():
    noise = TYPICAL[0]
    base = expected_detectable(noise, 5, 5, 1, 100)
    assert expected_detectable(noise, 5, 10, 1, 100) < base
    assert expected_detectable(noise, 5, 5, 3, 100) < base
    assert expected_detectable(noise, 5, 5, 1, 200) < base
    assert expected_detectable(noise, 8, 5, 1, 100) > base
    assert math.isinf(expected_detectable(noise, 5, 1, 1, 100)) and math.isinf(expected_detectable(noise, 1, 5, 1, 100))


def test_a_pilot_shows_the_noise_that_made_it():
    noise, seen = Noise("made up", 0.12, 0.04), []
    for seed in range(20):
        values, fold = scores(np.random.default_rng(seed), noise, 6, 5, 3, 200)
        seen.append(noise_of(judge(values, fold, list("abcdef"), 3), "pilot"))
    assert np.mean([pilot.pair_sd for pilot in seen]) == pytest.approx(0.12, rel=0.05)
    assert np.sqrt(np.mean([pilot.run_sd**2 for pilot in seen])) == pytest.approx(0.04, rel=0.2)


def test_one_fold_is_no_pilot():
    values, _ = scores(np.random.default_rng(0), TYPICAL[0], 3, 5, 1, 50)
    with pytest.raises(ValueError, match="at least two folds"):
        noise_of(judge(values, np.zeros(50, int), list("abc"), 1), "pilot")
