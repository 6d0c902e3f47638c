"""Statistics that pingouin, statsmodels and scipy lack, or in which they hold a trap.

Anything they do well is called from the notebook directly. Common rules: an estimate is a frozen dataclass
(a list of them is a table); several come as a DataFrame; data on which a statistic is undefined give NaN with
the reason, never an exception; malformed input raises :class:`persona_studies.errors.StatisticsError`;
nothing is rounded; everything random takes a seed.
"""

from persona_studies.analyse.stats.agreement import cohen_kappa, gwet_ac, krippendorff_alpha, raw_agreement
from persona_studies.analyse.stats.calibration import Binning, calibration_bins, expected_calibration_error
from persona_studies.analyse.stats.correlation import (
    correlation,
    d_from_r,
    minimum_detectable_correlation,
    pearson,
    power_correlation,
)
from persona_studies.analyse.stats.effects import hedges_g
from persona_studies.analyse.stats.equivalence import (
    Equivalence,
    equivalence_correlation,
    equivalence_p,
    equivalence_paired_proportions,
)
from persona_studies.analyse.stats.estimate import Estimate
from persona_studies.analyse.stats.meta_analysis import RandomEffects, random_effects, random_effects_correlation
from persona_studies.analyse.stats.multiplicity import Correction, correct
from persona_studies.analyse.stats.paired import McNemar, mcnemar, sign_flip, sign_flips
from persona_studies.analyse.stats.power import minimum_detectable_mean, power_mean, units_needed
from persona_studies.analyse.stats.reliability import Reliability, omega, spearman_brown, split_half
from persona_studies.analyse.stats.resampling import bca, cluster_bootstrap, two_way_bootstrap

__all__ = [
    "Binning",
    "Correction",
    "Equivalence",
    "Estimate",
    "McNemar",
    "RandomEffects",
    "Reliability",
    "bca",
    "calibration_bins",
    "cluster_bootstrap",
    "cohen_kappa",
    "correct",
    "correlation",
    "d_from_r",
    "equivalence_correlation",
    "equivalence_p",
    "equivalence_paired_proportions",
    "expected_calibration_error",
    "gwet_ac",
    "hedges_g",
    "krippendorff_alpha",
    "mcnemar",
    "minimum_detectable_correlation",
    "minimum_detectable_mean",
    "omega",
    "pearson",
    "power_correlation",
    "power_mean",
    "random_effects",
    "random_effects_correlation",
    "raw_agreement",
    "sign_flip",
    "sign_flips",
    "spearman_brown",
    "split_half",
    "two_way_bootstrap",
    "units_needed",
]
