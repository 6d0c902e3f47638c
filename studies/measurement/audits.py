"""Keying audits: which items of a released questionnaire have a wrong key, domain or place, by number."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from measurement import design
from persona_studies.design.plan import text_hash

BFI_REVERSED = frozenset({2, 6, 8, 9, 12, 18, 21, 23, 24, 27, 31, 34, 35, 37, 41, 43})
"""Numbers of the reverse-keyed items of the Big Five Inventory of 44 items (John and Srivastava 1999)."""
COLUMNS = ["repository", "file", "check", "items", "wrong", "numbers"]
LETTERS = {name[0].upper(): name for name in design.DOMAINS}


def _row(repository: str, file: str, check: str, items: int, wrong: Iterable[int]) -> dict[str, object]:
    numbers = sorted(wrong)
    return {
        "repository": repository,
        "file": file,
        "check": check,
        "items": items,
        "wrong": len(numbers),
        "numbers": " ".join(map(str, numbers)),
    }


def _plain(text: str) -> str:
    return text_hash(re.sub(r"[^a-z ]", "", text.lower().replace("-", " ")))


def ipip(
    repository: str, file: str, table: pd.DataFrame, keys: pd.DataFrame, texts: dict[int, str], *, by_row: bool
) -> list[dict[str, object]]:
    """Compare an inventory of IPIP items with the keys of the IPIP-NEO-300.

    Args:
        repository: Where it was released.
        table: ``text, domain, key``; domain is a letter of NEOAC.
        keys: Of :mod:`measurement.design`, indexed by number.
        texts: Number -> text of the item.
        by_row: Whether row i claims to be item i.

    Returns:
        Rows of the audit, with numbers of the IPIP-NEO-300, or of rows where texts are compared by row.
    """
    place = {_plain(text): number for number, text in texts.items()}
    numbers = [place.get(_plain(text)) for text in table["text"]]
    known = [(row, number) for row, number in enumerate(numbers) if number is not None]
    key, domain = table["key"].tolist(), table["domain"].tolist()
    wrong_key = {n for row, n in known if int(key[row]) != keys["key"][n]}
    wrong_domain = {n for row, n in known if LETTERS[domain[row]] != keys["domain"][n]}
    found = [
        _row(repository, file, "key", len(known), wrong_key),
        _row(repository, file, "domain", len(known), wrong_domain),
    ]
    if by_row:
        moved = [row + 1 for row, number in enumerate(numbers) if number != row + 1]
        found.append(_row(repository, file, "row is the item's number", len(numbers), moved))
    return found


def conflicting(repository: str, file: str, table: pd.DataFrame) -> list[dict[str, object]]:
    """Find texts that an inventory holds with two keys or under two domains; numbers are their rows."""
    text = table["text"].str.strip()
    found = []
    for check, column in (("one text, two keys", "key"), ("one text, two domains", "domain")):
        several = table.groupby(text)[column].nunique()
        bad = text.isin(several[several > 1].index)
        row = _row(repository, file, check, int(text.nunique()), (table.index[bad] + 1).tolist())
        found.append(row | {"wrong": int((several > 1).sum())})
    return found


def bfi(repository: str, file: str, reverse: Iterable[int], items: int = 44) -> dict[str, object]:
    """Compare the reversed items of a Big Five Inventory with the published ones."""
    return _row(repository, file, "key", items, BFI_REVERSED ^ {*reverse})


def audit(files: dict[str, Path], keys: pd.DataFrame, texts: dict[int, str], reversed_: list[int]) -> pd.DataFrame:
    """Audit the released inventories.

    Args:
        files: Name -> file: ``mpi_120, mpi_1k, papi, culture_bfi, culture_120, culture_300, personallm``.
        keys: Of the IPIP-NEO-300, indexed by number.
        texts: Number -> text.
        reversed_: LLMPersonality's list.

    Returns:
        :data:`COLUMNS`: how many items could be compared, how many are wrong, and their numbers.
    """
    names = {"label_ocean": "domain"}
    short = pd.read_csv(files["mpi_120"]).rename(columns=names)
    long = pd.read_csv(files["mpi_1k"]).rename(columns=names)
    papi = pd.read_csv(files["papi"]).rename(columns=names)
    rows = ipip("jianggy/MPI", "inventories/mpi_120.csv", short, keys, texts, by_row=False)
    rows += conflicting("jianggy/MPI", "inventories/mpi_1k.csv", long)
    rows += ipip("zhu-minjun/PAlign", "PAPI/mpi_300.csv", papi, keys, texts, by_row=True)
    for name, path in (("culture_120", "ipip-120.csv"), ("culture_300", "ipip-300.csv")):
        table = pd.read_csv(files[name]).rename(columns={"Text": "text"})
        table = table[table["Key"].notna()].reset_index(drop=True)
        table = table.assign(domain=table["Key"].str[0], key=table["Reverse"].map({"F": 1, "R": -1}))
        known = table[table["key"].notna()].reset_index(drop=True)
        rows += ipip(
            "limenlp/CulturalPersonas",
            f"datasets/baselines/{path}",
            known,
            keys,
            texts,
            by_row=name == "culture_300",
        )
    culture = pd.read_csv(files["culture_bfi"])
    turned = (culture.index[culture["Reverse"].str.strip() == "R"] + 1).tolist()
    rows.append(bfi("limenlp/CulturalPersonas", "datasets/baselines/bfi.csv", turned, len(culture)))
    persona = pd.read_csv(files["personallm"], sep="\t")
    turned = (persona.index[persona["reverse"] == "R"] + 1).tolist()
    rows.append(bfi("hjian42/PersonaLLM", "prompts/bfi_scores.txt", turned, len(persona)))
    rows.append(bfi("CUHK-ARISE/LLMPersonality", "Analysis/dataset/questionnaires.json", reversed_))
    return pd.DataFrame(rows, columns=COLUMNS)
