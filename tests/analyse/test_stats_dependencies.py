"""What pingouin and statsmodels do in the locked versions, where notebooks call them directly."""

import numpy as np
import pandas as pd
import pingouin as pg
import pytest
from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

from persona_studies.analyse.stats.correlation import correlation
from persona_studies.analyse.stats.paired import sign_flip
from persona_studies.errors import StatisticsError


def test_trap_a_paired_t_test_on_unequal_lengths_becomes_welch() -> None:
    x, y = [1.0, 2, 3, 4], [2.0, 3, 5]
    with pytest.warns(UserWarning, match="unequal sizes"):
        table = pg.ttest(x, y, paired=True)
    assert table["dof"].iloc[0] == pytest.approx(pg.ttest(x, y, correction=True)["dof"].iloc[0])
    # What pairs here refuses instead.
    with pytest.raises(StatisticsError, match="same units"):
        correlation(x, y)


def test_trap_pairwise_tests_average_duplicates_without_a_word() -> None:
    rng = np.random.default_rng(1)
    twice = pd.DataFrame(
        {
            "persona": np.repeat(range(6), 4),
            "condition": np.tile(["a", "a", "b", "b"], 6),
            "value": rng.normal(size=24),
        }
    )
    once = twice.pivot_table(index="persona", columns="condition", values="value")
    table = pg.pairwise_tests(data=twice, dv="value", within="condition", subject="persona")
    assert table["T"].iloc[0] == pytest.approx(pg.ttest(once["a"], once["b"], paired=True)["T"].iloc[0])
    # Averaging per unit first, and saying so, is the caller's step.
    assert sign_flip(once["a"] - once["b"], replicates=64, seed=1).n == 6


def test_trap_variational_bayes_is_far_too_sure_of_an_effect_between_clusters() -> None:
    rng = np.random.default_rng(0)
    clusters, each = 40, 10
    trait, intercept = rng.normal(size=(2, clusters))
    group = np.repeat(np.arange(clusters), each)
    chance = 1 / (1 + np.exp(-(0.5 * trait + intercept)))
    frame = pd.DataFrame({"agree": rng.binomial(1, chance[group]), "trait": trait[group], "persona": group})
    fit = BinomialBayesMixedGLM.from_formula("agree ~ trait", {"persona": "0 + C(persona)"}, frame).fit_vb()
    # With 40 clusters whose intercepts vary by 1, no estimator knows the slope better than this.
    floor = 1 / np.sqrt(clusters * trait.var())
    assert fit.fe_sd[1] < 0.8 * floor
