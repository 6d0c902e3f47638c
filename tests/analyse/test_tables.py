from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from persona_studies.analyse import tables
from persona_studies.errors import PersonaStudiesError

FRAME = pd.DataFrame(
    {
        "claim": ["one", "<script>alert(1)</script>"],
        "r": [0.123456789012345678, np.nan],
        "low": [-0.1, np.nan],
        "high": [0.3, np.nan],
        "p": [0.00001, 0.0321],
        "n": [5500, 3],
        "rejected": [True, False],
    }
)


def test_a_rounded_zero_has_no_sign() -> None:
    shown = repr(tables.show(pd.DataFrame({"x": [-1e-17, 1e-17, -0.004, -0.006]}), id="t", title="T"))
    assert shown.count("0.00") == 3 and shown.count("−") == 1 and "−0.01" in shown


def test_saved_numbers_are_not_rounded(tmp_path: Path) -> None:
    tables.save(FRAME, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(tables.load(tmp_path / "t.csv"), FRAME, check_exact=True)
    assert b"\r" not in (tmp_path / "t.csv").read_bytes()


def test_an_index_or_a_double_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonaStudiesError, match=r"index of its own.*reset_index"):
        tables.save(FRAME.set_index("claim"), tmp_path / "t.csv")
    with pytest.raises(PersonaStudiesError, match="names a column twice"):
        tables.save(pd.concat([FRAME, FRAME[["n"]]], axis=1), tmp_path / "t.csv")


def test_shown_numbers() -> None:
    page = tables.show(FRAME, id="t", title="A table", intervals={"r": ("low", "high")}).html
    for text in ("0.12 [−0.10, 0.30]", "&lt;.001", ".032", "5,500", ">yes<", ">no<", tables.MISSING):
        assert text in page, text


def test_rounding_never_makes_a_p_or_a_threshold_zero() -> None:
    small = {"p_adjusted": 1e-5, "smallest_p": 0.004, "threshold": 0.0004, "margin": 0.001, "estimate": 0.0004}
    text = tables.show(pd.DataFrame([small]), id="small", title="Small").text.split("\n")[-1].split()
    assert text == ["<.001", ".004", "0.0004", "0.001", "0.00"]


def test_a_value_and_its_threshold_are_printed_so_that_a_reader_sees_which_is_larger() -> None:
    """With two or three decimals .3003 and .3 look the same, and the check that failed looks passed."""
    checks = pd.DataFrame(
        {"value": [0.3003, 0.3, float("nan"), -0.7], "rule": "<=", "threshold": [0.3, 0.3, 0, 0.5]}
    )
    text = tables.show(checks, id="gate", title="Gate").text.split("\n")[2:]
    pairs = [line.split()[0::2] for line in text]
    assert pairs == [["0.3003", "0.3000"], ["0.30", "0.30"], [tables.MISSING, "0.00"], ["−0.70", "0.50"]]


def test_limits_without_an_estimate_hidden_columns_and_first_rows() -> None:
    shown = tables.show(
        FRAME.drop(columns="r"),
        id="my-table",
        title="A table",
        intervals={"both": ("low", "high")},
        hide=["n"],
        rows=1,
        notes=["A note."],
    )
    assert "[−0.10, 0.30]" in shown.html and "5,500" not in shown.html and "script" not in shown.html
    assert "First 1 of 2 rows; all are in tables/my_table.csv." in shown.html and "A note." in shown.html


def test_what_a_model_wrote_is_escaped() -> None:
    hostile = ["<script>alert(1)</script>", '<img src=x onerror="x()">', "**bold** & $x$"]
    page = tables.show(pd.DataFrame({"text": hostile}), id="t", title="Replies").html
    assert "<script>" not in page and "<img" not in page
    assert "&lt;script&gt;" in page


def test_two_renderings_are_identical() -> None:
    one, other = (tables.show(FRAME, id="t", title="A table") for _ in range(2))
    assert one.html == other.html and repr(one) == repr(other)
    assert " at 0x" not in repr(one) and repr(one).startswith("A table\n")


def test_titles_labels_and_notes_are_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    page = tables.show(
        pd.DataFrame({hostile: [1.0]}), id="t", title=hostile, subtitle=hostile, notes=[hostile]
    ).html
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_texts_that_look_like_missing_values_stay(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["NA", "None", "nan", "null", None], "x": [1.0, np.nan, np.inf, -0.0, 1e-300]})
    tables.save(frame, tmp_path / "t.csv")
    again = tables.load(tmp_path / "t.csv")
    assert again["text"].tolist()[:4] == ["NA", "None", "nan", "null"] and pd.isna(again["text"].iloc[4])
    pd.testing.assert_series_equal(again["x"], frame["x"], check_exact=True)


def test_texts_below_another_stand_in_its_field_and_every_cell_begins_at_the_left() -> None:
    frame = pd.DataFrame(
        {
            "estimate": [0.1, 0.2],
            "verdict": ["uninformative", "reproduced"],
            "why": ["open", "shown"],
            "would_decide": ["9 ears", ""],
            "details": ["hidden", "hidden"],
        }
    )
    below = {"why": {"would_decide": "would decide: ", "details": ""}}
    table = tables.show(frame, id="a", title="A", below=below, hide=["details"])
    page = BeautifulSoup(table.html, "html.parser")
    assert [head.get_text() for head in page.select("thead th")] == ["estimate", "verdict", "why"]
    assert [cell.get_text() for cell in page.select("tbody td:last-child")] == [
        "open\nwould decide: 9 ears",
        "shown",
    ]
    # In the cell itself: JupyterLab drops the style sheet of a notebook that it does not trust.
    cells = page.select("td, th")
    assert all("text-align: left; vertical-align: top;" in cell["style"] for cell in cells)
    assert all(tables.GREY in cell["style"] for cell in page.select("tbody tr:first-child td"))
    assert "pre-wrap" in page.select_one("tbody td:last-child")["style"] and "font-size" in page.table["style"]
