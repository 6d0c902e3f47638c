"""Calibration error: definition, interval, bins."""

from math import isnan, nan

import numpy as np
import pytest

from persona_studies.analyse.stats.calibration import Binning, calibration_bins, expected_calibration_error
from persona_studies.errors import StatisticsError
from tests import reference


@pytest.mark.parametrize("case", reference.load("calibration"), ids=lambda case: f"n={len(case['outcome'])}")
def test_equals_its_definition_in_r(case: dict) -> None:
    ece = expected_calibration_error(case["probability"], case["outcome"], replicates=100, seed=1)
    assert ece.estimate == pytest.approx(case["equal_width"], abs=1e-12)
    table = calibration_bins(case["probability"], case["outcome"])
    assert (table["n"] * table["gap"].abs()).sum() / table["n"].sum() == pytest.approx(ece.estimate)
    assert table["n"].sum() == len(case["outcome"])


def test_bins() -> None:
    p = [0.0, 0.3, 0.3, 0.6, 0.7, 0.7, 1.0, 1.0]
    width = calibration_bins(p, [0, 0, 1, 1, 1, 0, 1, 1], bins=10)
    assert width["low"].tolist() == [0.0, 0.3, 0.6, 0.7, 0.9]
    assert width["n"].tolist() == [1, 2, 1, 2, 2]
    mass = calibration_bins(p, [0, 0, 1, 1, 1, 0, 1, 1], bins=4, binning="mass")
    assert mass["n"].sum() == 8 and len(mass) <= 4
    assert mass["n"].max() <= 4  # ties share a bin, so that bins are equal only as far as they allow
    even = calibration_bins(np.linspace(0, 1, 101)[:100], np.zeros(100), bins=5, binning="mass")
    assert even["n"].tolist() == [20] * 5
    assert (even["probability"] >= even["low"]).all() and (even["probability"] <= even["high"]).all()


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_interval_equals_a_loop_with_the_same_draws(binning: Binning) -> None:
    rng = np.random.default_rng(3)
    p = rng.random(80).round(2)
    y = (rng.random(80) < p**2).astype(float)
    cluster = np.arange(80) // 4
    ece = expected_calibration_error(p, y, bins=5, binning=binning, cluster=cluster, replicates=60, seed=4)
    table = calibration_bins(p, y, bins=5, binning=binning)
    which = np.searchsorted(table["low"].to_numpy()[1:], p, side="right")

    def gaps(units: np.ndarray) -> np.ndarray:
        return np.array([(y[units] - p[units])[which[units] == b].sum() / len(units) for b in range(len(table))])

    drawn = np.random.default_rng(4).integers(0, 20, size=(60, 20))
    replicated = [gaps(np.concatenate([np.flatnonzero(cluster == c) for c in row])) for row in drawn]
    observed = gaps(np.arange(80))
    distance = np.quantile([np.abs(gap - observed).sum() for gap in replicated], 0.975)
    assert ece.estimate == pytest.approx(np.abs(observed).sum())
    assert ece.high == pytest.approx(np.quantile([np.abs(gap).sum() for gap in replicated], 0.975))
    assert ece.low == pytest.approx(max(0.0, ece.estimate - distance))
    assert ece.n == 20


def test_the_interval_covers_with_and_without_miscalibration() -> None:
    rng = np.random.default_rng(5)
    true = {"calibrated": 0.0, "overconfident": 0.1}
    covered = dict.fromkeys(true, 0)
    for seed in range(60):
        p = rng.uniform(0.2, 0.8, size=400)
        for name, shift in true.items():
            y = rng.random(400) < p - shift
            ece = expected_calibration_error(p, y, replicates=200, seed=seed)
            covered[name] += ece.low <= shift <= ece.high
    assert all(count >= 54 for count in covered.values()), covered


def test_degenerate_and_refused() -> None:
    assert expected_calibration_error([nan], [1.0], replicates=10, seed=1).reason == "undefined (no units)"
    one = expected_calibration_error([0.7], [1.0], replicates=10, seed=1)
    assert one.estimate == pytest.approx(0.3) and isnan(one.low) and "fewer than 2" in one.reason
    gap = expected_calibration_error([0.7, nan, 0.2], [1, 1, 0], replicates=10, seed=1)
    assert gap.n == 2
    sure = expected_calibration_error([1.0, 1.0, 0.0], [1, 1, 0], replicates=10, seed=1)
    assert (sure.estimate, sure.low, sure.high) == (0, 0, 0)
    for p, y in (([1.2, 0.1], [1, 0]), ([0.2, 0.1], [1, 0.5]), ([0.2, 0.1], [1])):
        with pytest.raises(StatisticsError):
            expected_calibration_error(p, y, replicates=10, seed=1)
    with pytest.raises(StatisticsError, match="bins"):
        calibration_bins([0.1], [1], bins=0)
