import numpy as np
import pytest

from persona_studies.analyse import scoring


@pytest.mark.parametrize("order", range(4))
def test_declared_order_undoes_every_cyclic_order(order: int) -> None:
    declared = np.array([-1.0, -2.0, -3.0, -4.0])
    shown = np.array([[declared[(place + order) % 4] for place in range(4)]])
    assert scoring.in_declared_order(shown, np.array([order]))[0] == pytest.approx(declared)


def test_declared_order_treats_every_row_by_its_own_order() -> None:
    shown = np.array([[-1.0, -2.0], [-2.0, -1.0]])
    assert scoring.in_declared_order(shown, np.array([0, 1])).tolist() == [[-1, -2], [-1, -2]]


def test_expected_rating_renormalises_to_the_labels() -> None:
    probability = np.array([[0.1, 0.1, 0.0001, 0.1, 0.1], [0.0, 0.0, 0.0, 0.0, 0.3]])
    with np.errstate(divide="ignore"):
        rating = scoring.expected_rating(np.log(probability), range(1, 6))
    assert rating == pytest.approx([3.0, 5.0])


@pytest.mark.parametrize("options", [2, 3])
def test_position_dominance_is_one_when_the_place_decides_alone(options: int) -> None:
    with np.errstate(divide="ignore"):
        shown = np.log(np.tile(np.eye(options)[0], (2 * options, 1)))
    assert scoring.position_dominance(shown, np.arange(2 * options) % options) == pytest.approx(1.0)


@pytest.mark.parametrize("options", [2, 3])
def test_position_dominance_is_zero_when_the_option_decides_alone(options: int) -> None:
    # The preferred option, declared first, moves to place -k in order k.
    order = np.arange(options)
    shown = np.log(np.where(np.eye(options)[(-order) % options], 0.98, 0.01))
    assert scoring.position_dominance(shown, order) == pytest.approx(0.0)


def test_position_dominance_in_between() -> None:
    shown = np.log([[0.8, 0.2], [0.6, 0.4]])
    assert scoring.position_dominance(shown, np.array([0, 1])) == pytest.approx((0.7 - 0.5) / 0.5)


def test_a_censored_label_takes_no_share_and_spoils_none() -> None:
    logprob = np.log([[0.6, 0.2, np.nan], [0.25, 0.5, 0.25], [np.nan, np.nan, np.nan]])
    found = scoring.shares(logprob)
    np.testing.assert_allclose(found[:2], [[0.75, 0.25, 0.0], [0.25, 0.5, 0.25]])
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(scoring.expected_rating(logprob[:1], [1, 2, 3]), [1.25])
    assert np.isfinite(scoring.position_dominance(logprob, np.array([0, 1, 1])))
