"""Parameters as a notebook and as a command line give them."""

import pytest
from pydantic import Field

from persona_studies.design import parameters
from persona_studies.errors import ParameterError


class Some(parameters.Parameters):
    alpha: float = Field(gt=0, lt=1, description="error rate")
    kinds: tuple[str, ...] = Field(min_length=1, description="a list")


GOOD = {"alpha": 0.1, "kinds": ["a"]}


def test_frozen_and_lists_become_tuples() -> None:
    made = Some.check(GOOD)
    assert made.kinds == ("a",)
    with pytest.raises(ValueError, match="frozen"):
        made.alpha = 0.2


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ParameterError) as caught:
        Some.check({"alpha": 2, "kinds": [], "alhpa": 1})
    message = str(caught.value)
    assert "less than 1" in message and "not empty" in message and "Did you mean 'alpha'" in message


@pytest.mark.parametrize("value", [True, "0.1", None, float("nan"), float("inf"), [0.1]])
def test_types_are_strict(value: object) -> None:
    with pytest.raises(ParameterError, match="'alpha' cannot be"):
        Some.check({**GOOD, "alpha": value})


def test_a_name_injected_after_the_parameters_cell_is_refused() -> None:
    cells = ["", "alpha = 0.1  # rate\nkinds = ['a']  # list", "# Parameters\nalhpa = 0.2\n", "current cell"]
    with pytest.raises(ParameterError, match="Unknown parameter 'alhpa'"):
        Some.from_namespace({"In": cells, "alhpa": 0.2, **GOOD})


def test_running_all_cells_again_in_one_kernel_is_fine() -> None:
    first = ["", "alpha = 0.1\nkinds = ['a']", "parameters = ...", "rising = len('abc')"]
    again = [*first, "alpha = 0.2\nkinds = ['a']", "current cell"]
    made = Some.from_namespace({"In": again, "rising": 3, "alpha": 0.2, "kinds": ["a"]})
    assert made.alpha == 0.2


def test_running_only_this_cell_again_is_fine() -> None:
    assert Some.from_namespace({"In": ["", "rising = len('abc')", "current"], "rising": 3, **GOOD}).alpha == 0.1


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(ParameterError, match="'kinds' is missing"):
        Some.from_namespace({"In": ["", "alpha = 0.1", "current"], "alpha": 0.1})


def test_text_stays_text_on_the_command_line() -> None:
    assert Some.parse(["kinds=123e4567,b"]) == {"kinds": ["123e4567", "b"]}
    assert Some.parse(['kinds=["a,b"]']) == {"kinds": ["a,b"]}
    assert Some.parse(["kinds="]) == {"kinds": []}


@pytest.mark.parametrize(
    "text",
    [
        'kinds=["a", "b c"] alpha=0.1',
        "kinds=['a', 'b c'] alpha=0.1",
        '\'kinds=["a", "b c"]\' alpha=0.1',
        "kinds='a,b c' alpha=0.1",
        "'kinds=[a, b c]' alpha=0.1",
    ],
)
def test_a_list_may_be_written_as_the_documents_print_it(text: str) -> None:
    assert Some.parse(parameters.split(text)) == {"kinds": ["a", "b c"], "alpha": 0.1}


@pytest.mark.parametrize("text", ['kinds=["a"', "kinds=it's", "kinds=[a]b]"])
def test_a_quotation_or_a_list_that_does_not_end_is_refused(text: str) -> None:
    with pytest.raises(ParameterError, match=r"close what it opens|is not a list"):
        Some.parse(parameters.split(text))


def test_a_list_of_numbers_is_read_as_numbers() -> None:
    class Numbers(parameters.Parameters):
        levels: tuple[int, ...]

    assert Numbers.check(Numbers.parse(["levels=1,2"])).levels == (1, 2)
    assert Numbers.check(Numbers.parse(["levels=[1, 2]"])).levels == (1, 2)
    for text in ("levels=1,a", "levels=1,,2"):
        with pytest.raises(ParameterError, match="is not a list"):
            Numbers.parse([text])


def test_a_list_names_nothing_twice() -> None:
    with pytest.raises(ParameterError, match="'kinds' names 'a' twice"):
        Some.check({**GOOD, "kinds": ["a", "b", "a"]})


def test_description_names_default_and_bounds() -> None:
    rows = Some.describe({"alpha": 0.05}).set_index("parameter")
    assert rows.loc["alpha", "default"] == "0.05"
    assert rows.loc["alpha", "allowed"] == "a number, > 0, < 1"
