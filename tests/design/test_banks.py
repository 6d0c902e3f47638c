"""Tables that a person edits: written down by any spreadsheet they mean the same, or are refused."""

from __future__ import annotations

import ast
import csv
import io
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import pytest
from pydantic import Field

from expert_personas import design as expert
from measurement import design as measurement
from persona_bias import design as bias
from persona_choice import design as choice
from persona_choice import guess, respondents
from persona_studies.design import banks, multiple_choice
from persona_studies.errors import BankError
from persona_studies.paths import Project
from sycophancy import design as sycophancy

PROJECT = Project(Path(__file__).parents[2])
BANKS: dict[str, type[banks.Row]] = {
    "sycophancy/backgrounds.csv": sycophancy.Background,
    "sycophancy/agreeableness_levels.csv": sycophancy.Level,
    "sycophancy/control_traits.csv": sycophancy.Trait,
    "sycophancy/claims.csv": sycophancy.Claim,
    "expert_personas/personas.csv": expert.Persona,
    "expert_personas/fields.csv": expert.Expertise,
    "expert_personas/subjects.csv": expert.Subject,
    "persona_bias/personas.csv": bias.Persona,
    "measurement/ipip_neo_300.csv": measurement.Key,
    "measurement/statements.csv": measurement.Statement,
    "measurement/facts.csv": measurement.Fact,
    "measurement/scenarios.csv": measurement.Scenario,
    "measurement/personas.csv": measurement.Persona,
    "persona_choice/pairs.csv": choice.Pair,
    "persona_choice/characters.csv": guess.Character,
    "persona_choice/questions.csv": respondents.Question,
    "persona_choice/respondents.csv": respondents.Respondent,
    **{f"questions/{name}.csv": b.row for name, b in multiple_choice.BENCHMARKS.items()},
}


class Person(banks.Row):
    unique = (("person",), ("text",))
    crossed = ("kind", "wording")

    person: banks.Name
    kind: Literal["nurse", "baker"]
    wording: Annotated[int, Field(ge=1, le=9)]
    weight: Annotated[float, Field(gt=0)] = 1.0
    text: str
    note: banks.Lines = ""


TABLE = """person,kind,wording,weight,text,note
nurse-1,nurse,1,1.5,"a nurse, kind and quick",NA
nurse-2,nurse,2,,None,"two
lines"
baker-1,baker,1,2,a baker from Orléans,
baker-2,baker,2,1e-1,null,nan
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "data" / "items").mkdir(parents=True)
    return tmp_path / "data" / "items" / "people.csv"


def rewritten(text: str, ends: str = "\n", **how: Any) -> str:
    """Write a table down as another program does."""
    buffer = io.StringIO()
    rows = list(csv.reader(io.StringIO(text)))
    csv.writer(buffer, lineterminator=ends, **how).writerows(rows)
    return buffer.getvalue()


FORMS: dict[str, Callable[[str], bytes]] = {
    "with a byte order mark": lambda text: text.encode("utf-8-sig"),
    "with the line ends of Windows": lambda text: rewritten(text, "\r\n").encode(),
    "with the line ends of Excel, in texts as well": lambda text: text.replace("\n", "\r\n").encode(),
    "with semicolons": lambda text: rewritten(text, delimiter=";").encode(),
    "with tabs": lambda text: rewritten(text, delimiter="\t").encode(),
    "every cell quoted": lambda text: rewritten(text, quoting=csv.QUOTE_ALL).encode(),
    "all of it": lambda text: rewritten(text, "\r\n", delimiter=";", quoting=csv.QUOTE_ALL).encode("utf-8-sig"),
    "in another Unicode form": lambda text: unicodedata.normalize("NFD", text).encode(),
    "without the last line end": lambda text: text.rstrip("\n").encode(),
    "with its columns in another order": lambda text: (
        pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False).iloc[:, ::-1].to_csv(index=False).encode()
    ),
}


class TestWhatIsRead:
    def test_every_word_is_text_and_numbers_are_numbers(self, path: Path) -> None:
        path.write_text(TABLE, "utf-8")
        frame = banks.read(path, Person)
        assert frame["text"].tolist()[1::2] == ["None", "null"]
        assert frame["note"].tolist() == ["NA", "two\nlines", "", "nan"]
        assert frame["weight"].tolist() == [1.5, 1.0, 2.0, 0.1] and frame["wording"].tolist() == [1, 2, 1, 2]

    @pytest.mark.parametrize("form", FORMS)
    def test_how_it_is_written_down_does_not_matter(self, path: Path, form: str) -> None:
        path.write_text(TABLE, "utf-8")
        expected = banks.read(path, Person)
        path.write_bytes(FORMS[form](TABLE))
        pd.testing.assert_frame_equal(banks.read(path, Person), expected)

    def test_what_a_reader_does_to_its_copy_stays_there(self, path: Path) -> None:
        path.write_text(TABLE, "utf-8")
        banks.read(path, Person)["text"] = "changed"
        assert "changed" not in banks.read(path, Person)["text"].tolist()

    def test_names_may_be_declared_by_another_table(self, path: Path) -> None:
        path.write_text(TABLE, "utf-8")
        assert len(banks.read(path, Person, {"note": {"NA", "nan", "two\nlines"}})) == 4
        with pytest.raises(BankError, match=r"row 3, column note: .* is not known"):
            banks.read(path, Person, {"note": {"NA", "nan"}})

    def test_a_column_may_be_called_anything(self, path: Path) -> None:
        class Odd(banks.Row):
            unique = (("class",),)

            kind: Annotated[banks.Name, Field(alias="class")]
            own: Annotated[str, Field(alias="copy")]

        path.write_text("class,copy\na,x\nb,y\n")
        assert banks.read(path, Odd).to_dict("list") == {"class": ["a", "b"], "copy": ["x", "y"]}
        path.write_text("class,copy\na,x\na,y\n")
        with pytest.raises(BankError, match="row 3, column class: 'a' stands in row 2 already"):
            banks.read(path, Odd)

    @pytest.mark.parametrize("word", ["می\u200cخواهم", "क्\u200dष", "Ωmega", "naïve", "日本の看護師", "👩"])
    def test_every_script_is_text(self, path: Path, word: str) -> None:
        path.write_text(TABLE.replace("a baker from Orléans", word), "utf-8")
        assert word in banks.read(path, Person)["text"].tolist()


def swap(old: str, new: str) -> Callable[[str], bytes]:
    def change(text: str) -> bytes:
        assert old in text
        return text.replace(old, new, 1).encode("utf-8", "surrogatepass")

    return change


LAST = "baker-2,baker,2,1e-1,null,nan\n"
REFUSED: list[tuple[Callable[[str], bytes], str]] = [
    # How it is written down.
    (lambda text: text.encode("utf-16"), r" is in UTF-16, not in UTF-8; save it again"),
    (lambda text: text.encode("utf-16-le"), r" is in UTF-16"),
    (lambda text: text.encode("cp1252"), r" is not in UTF-8 \(line 5; in Windows-1252 it reads '.*Orléans"),
    (lambda text: b"PK\x03\x04" + text.encode(), r" is a workbook"),
    (lambda text: rewritten(text, delimiter="|").encode(), r", row 1: unknown column 'person\|kind"),
    (lambda text: b"", r", row 1 names no columns; write person,kind"),
    (lambda text: text.splitlines()[0].encode(), r" has no row below its header"),
    # Rows and columns.
    (swap("nurse-2", ",,,,,\nnurse-2"), r", row 3 is empty; delete it"),
    (swap("nurse-2", "\nnurse-2"), r", row 3 is empty; delete it"),
    (swap(LAST, LAST + ",,,,,\n,,,,,\n"), r", row 6 \(and 1 more\) is empty; delete it"),
    (swap('"a nurse, kind and quick"', "a nurse, kind"), r", row 2 has 7 cells, its header 6 columns.*'nurse-1'"),
    (swap(",null,nan", ",null"), r", row 5 has 5 cells"),
    (swap(LAST, LAST.strip() + ",\n"), r", row 5 has 7 cells"),
    (
        lambda text: text.replace("\n", ",\n").replace('two,\nlines",', 'two\nlines",').encode(),
        r"column 7 has no n",
    ),
    (swap("kind,wording", "kind,wordings"), r", row 1: unknown column 'wordings'. Did you mean 'wording'\?"),
    (swap("note", "note "), r", row 1: unknown column 'note '. Did you mean 'note'\?"),
    (swap("kind,wording", "kind,kind"), r", row 1: column 'kind' is there twice"),
    (lambda text: text.replace("kind,", "").encode(), r", row 1: column kind is missing"),
    (swap('quick"', 'quick" '), r", row 2: .*quotation marks"),
    (swap('lines"', "lines"), r", row 3: .*quotation marks"),
    # Names.
    (swap("nurse-2", "nurse-1"), r", row 3, column person: 'nurse-1' stands in row 2 already"),
    (swap(",None,", ',"a nurse, kind and quick",'), r", row 3, column text: .* stands in row 2 already"),
    (swap("nurse-2", ""), r", row 3, column person: '' is empty; fill it in"),
    (swap("nurse-2", "2026-01-02"), r", row 3, column person: '2026-01-02' is a date"),
    (swap("nurse-2", "02.01.2026"), r", row 3, column person: '02.01.2026' is a date"),
    (swap("nurse-2", "1/2/2026"), r", row 3, column person: '1/2/2026' is a date"),
    (swap("nurse-2", "Mar-01"), r", row 3, column person: 'Mar-01' is a date"),
    (swap("nurse-2", "2"), r", row 3, column person: '2' is not a name"),
    (swap("nurse-2", "nurse 2"), r", row 3, column person: 'nurse 2' is not a name"),
    # Values.
    (swap(",null,", ",,"), r", row 5, column text: '' is empty; fill it in"),
    (swap("nurse,2", "nurs,2"), r", row 3, column kind: 'nurs' must be 'nurse' or 'baker'. Did you mean 'nurse'\?"),
    (swap("nurse,2", "nurse,0"), r", row 3, column wording: '0' does not fit: input should be greater"),
    (swap("nurse,2", "nurse,2.0"), r", row 3, column wording: '2.0' is no whole number"),
    (swap("nurse,2", "nurse,1E+1"), r", row 3, column wording: '1E\+1' is no whole number"),
    (swap("nurse,2", "nurse,NA"), r", row 3, column wording: 'NA' is no whole number"),
    (swap("nurse,2", "nurse,١"), r", row 3, column wording: '١' is no whole number"),
    (swap("nurse,2", f"nurse,{'9' * 5000}"), r", row 3, column wording: '999.* is no whole number"),
    (swap(",1.5,", ',"1,5",'), r", row 2, column weight: '1,5' is not a number; write digits, with a point"),
    (swap(",1.5,", ",1.000.000,"), r", row 2, column weight: '1.000.000' is not a number"),
    (swap(",1.5,", ",inf,"), r", row 2, column weight: 'inf' is not a number"),
    (swap(",1.5,", ",1e999,"), r", row 2, column weight: '1e999' does not fit: input should be a finite number"),
    (swap("baker-2,baker,2", "baker-2,baker,3"), r" has no row for kind nurse, wording 3; every combination"),
    # Characters.
    (swap("quick", "quick "), r", row 2, column text: 'a nurse, kind and quick ' begins or ends with a blank"),
    (swap(",null,", ", null,"), r", row 5, column text: ' null' begins or ends with a blank"),
    (swap("a nurse", "a\u00a0nurse"), r", row 2, column text: .* U\+00A0 NO-BREAK SPACE"),
    (swap("a nurse", "a nur\u200bse"), r", row 2, column text: .* U\+200B ZERO WIDTH SPACE"),
    (swap("a nurse", "a nur\u200dse"), r", row 2, column text: .* U\+200D ZERO WIDTH JOINER"),
    (swap("a nurse", "a \u202enurse"), r", row 2, column text: .* U\+202E RIGHT-TO-LEFT OVERRIDE"),
    (swap("a nurse", "a\tnurse"), r", row 2, column text: .* U\+0009 CONTROL CHARACTER"),
    (swap("a nurse", "a\x00nurse"), r", row 2, column text: .* U\+0000 CONTROL CHARACTER"),
    (swap("a nurse", "a\nnurse"), r", row 2, column text: .* U\+000A LINE BREAK"),
    (swap("Orléans", "Orl\ufffdans"), r", row 4, column text: .* U\+FFFD REPLACEMENT CHARACTER"),
    (swap("Orléans", "OrlÃ©ans"), r", row 4, column text: .* read in another; write 'a baker from Orléans'"),
    (swap(",null,", ",#REF!,"), r", row 5, column text: '#REF!' is what a spreadsheet writes for a formula that f"),
    (
        swap(",null,", ",=1+1,"),
        r", row 5, column text: '=1\+1' begins with '=', which a spreadsheet takes for a fo",
    ),
    (swap(",null,", ",-kind,"), r", row 5, column text: '-kind' begins with '-'"),
    (
        lambda text: text.replace("baker,", "bakre,").encode(),
        r"row 4, .*Did you mean 'baker'\? \(1 more cells do not",
    ),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_does_not_fit_is_refused_with_its_place(path: Path, change: Callable[[str], bytes], said: str) -> None:
    path.write_bytes(change(TABLE))
    with pytest.raises(BankError, match=said) as refused:
        banks.read(path, Person)
    message = str(refused.value)
    assert message.startswith("data/items/people.csv") and "\n" not in message and message.endswith((".", "?", ")"))


def test_a_missing_table_is_named(path: Path) -> None:
    with pytest.raises(BankError, match=r"^data/items/people.csv cannot be read \(No such file or directory\)"):
        banks.read(path, Person)


class TestTheCommittedBanks:
    def test_every_bank_has_a_schema(self) -> None:
        found = {str(path.relative_to(PROJECT.items)) for path in PROJECT.items.rglob("*.csv")}
        assert found == {*BANKS}

    @pytest.mark.parametrize("bank", BANKS)
    def test_each_holds_what_pandas_reads(self, bank: str) -> None:
        """Nothing is lost on the way: every cell is as the file has it."""
        read = banks.read(PROJECT.items / bank, BANKS[bank])
        raw = pd.read_csv(PROJECT.items / bank, dtype=str, keep_default_na=False)
        pd.testing.assert_frame_equal(read.astype(str), raw, check_dtype=False)

    @pytest.mark.parametrize("bank", [name for name in BANKS if not name.startswith("questions/")])
    @pytest.mark.parametrize("form", FORMS)
    def test_saved_by_a_spreadsheet_each_is_the_same(self, bank: str, form: str, path: Path) -> None:
        text = (PROJECT.items / bank).read_text("utf-8")
        path.write_bytes(FORMS[form](text))
        expected = banks.read(PROJECT.items / bank, BANKS[bank])
        pd.testing.assert_frame_equal(banks.read(path, BANKS[bank]), expected)

    @pytest.mark.parametrize("bank", BANKS)
    def test_damaged_each_is_refused(self, bank: str, path: Path) -> None:
        lines = (PROJECT.items / bank).read_text("utf-8").splitlines()
        commas = "," * (len(BANKS[bank].columns()) - 1)
        for place, line, said in (
            (4, commas, "row 5 is empty"),
            (len(lines), commas, f"row {len(lines) + 1} is empty"),
            (len(lines), lines[-1], f"row {len(lines) + 1}, .* stands in row {len(lines)} already"),
            (len(lines), lines[-1] + ",", f"row {len(lines) + 1} has"),
            (len(lines), " " + lines[-1], f"row {len(lines) + 1}, column"),
        ):
            path.write_text("\n".join([*lines[:place], line, *lines[place:]]), "utf-8")
            with pytest.raises(BankError, match=said):
                banks.read(path, BANKS[bank])


def test_no_bank_is_read_past_its_schema() -> None:
    """Only :mod:`persona_studies.design.banks` opens a file in ``data/items``."""
    past = []
    for file in [*(PROJECT.root / "lib").rglob("*.py"), *PROJECT.studies.glob("*/*.py")]:
        for call in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("read_csv"):
                past += [f"{file.name}: {ast.unparse(call)}"] if ".items" in ast.unparse(call) else []
    assert past == []


class TestABankThatIsTooSmall:
    """A run is never smaller than its parameters say."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Project:
        (tmp_path / "pyproject.toml").write_text("")
        shutil.copytree(PROJECT.items, tmp_path / "data" / "items")
        return Project(tmp_path)

    def cut(self, project: Project, bank: str, start: str) -> None:
        lines = (project.items / bank).read_text("utf-8").splitlines()
        kept = [line for line in lines if not line.startswith(start)]
        assert len(kept) < len(lines)
        (project.items / bank).write_text("\n".join(kept), "utf-8")

    def test_claims(self, project: Project) -> None:
        self.cut(project, "sycophancy/claims.csv", "city_transport,City transport,city_transport_1")
        assert len(sycophancy.claims(project, 33, 4)) == 2 * 33 * 4
        with pytest.raises(BankError, match=r"claims.csv holds 4 claims of topic city_transport, .* asks for 5"):
            sycophancy.claims(project, 33, 5)

    def test_topics(self, project: Project) -> None:
        self.cut(project, "sycophancy/claims.csv", "city_transport")
        with pytest.raises(BankError, match=r"claims.csv holds 32 topics, this run asks for 33"):
            sycophancy.claims(project, 33, 5)

    def test_levels(self, project: Project) -> None:
        self.cut(project, "sycophancy/agreeableness_levels.csv", "3,4,")
        with pytest.raises(BankError, match=r"no row for level 3, variant 4"):
            banks.read(project.items / "sycophancy" / "agreeableness_levels.csv", sycophancy.Level)

    def test_fields(self, project: Project) -> None:
        self.cut(project, "expert_personas/fields.csv", "international_law,")
        with pytest.raises(
            BankError,
            match=r"expert_personas/subjects.csv, row 2, column unrelated: 'international_law' is not known",
        ):
            expert.subjects(project)
