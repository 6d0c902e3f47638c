"""Statistics that pingouin, statsmodels and scipy lack, or in which they hold a trap.

Anything they do well is called from the notebook directly. Common rules: an estimate is a frozen dataclass
(a list of them is a table); several come as a DataFrame; data on which a statistic is undefined give NaN with
the reason, never an exception; malformed input raises :class:`persona_studies.errors.StatisticsError`;
nothing is rounded; everything random takes a seed.

Functions are imported from their modules, so that a change in one makes only its users' runs anew.
"""

__all__ = [
    "agreement",
    "calibration",
    "correlation",
    "effects",
    "equivalence",
    "estimate",
    "meta_analysis",
    "multiplicity",
    "paired",
    "power",
    "reliability",
    "resampling",
]
