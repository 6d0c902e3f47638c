"""The plan of a study: every cell that is to be asked, as one table.

A plan is a DataFrame with one row per cell. The *identity* columns say which cell it is, the *hash* columns
pin down the texts behind it, and the *prompt* columns hold what is sent to a model. Analysis needs the first
two groups only, so a plan without texts is still a plan.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from persona_studies import files
from persona_studies.errors import ParameterError, ProtocolError, nearest, quoted
from persona_studies.paths import named

IDENTITY = ["measure", "condition", "item", "template", "order", "repeat"]
HASHES = ["condition_hash", "item_hash", "template_hash"]
KINDS = ("cloze", "letter", "text")
SCHEMA = pa.schema(
    [
        *((name, pa.int64() if name in ("order", "repeat") else pa.string()) for name in (*IDENTITY, *HASHES)),
        *((name, pa.string()) for name in ("kind", "system", "shared", "user")),
        ("options", pa.list_(pa.string())),
        ("max_tokens", pa.int64()),
    ]
)


def text_hash(*texts: str | None) -> str:
    """Return 16 hexadecimal digits that identify texts up to Unicode form and white space.

    ``None`` (no system turn at all) differs from an empty text.

    >>> text_hash("Trust  others ") == text_hash("Trust others")
    True
    >>> text_hash(None) == text_hash("")
    False
    """
    normal = [
        "\x00none" if text is None else re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).strip()
        for text in texts
    ]
    return hashlib.sha256("\x1f".join(normal).encode()).hexdigest()[:16]


def measure(
    name: str,
    kind: str,
    *,
    conditions: pd.DataFrame,
    items: pd.DataFrame,
    templates: pd.DataFrame,
    options: Sequence[str] = (),
    labels: Sequence[str] = (),
    orders: int = 1,
    max_tokens: int = 0,
    repeats: int = 1,
) -> pd.DataFrame:
    """Cross conditions x items x templates x option orders x repeats for one measure.

    Args:
        name: The measure's name in the protocol.
        kind: ``cloze`` (whole continuations), ``letter`` (one-token labels) or ``text`` (greedy text).
        conditions: Columns ``condition``, ``condition_hash``, ``system`` (None: no system turn) and
            ``description`` (what a template's ``{description}`` stands for).
        items: Columns ``item``, ``item_hash``, ``text``; a column ``options`` (tuples of texts) where every
            item has its own; a column ``order`` where every item is asked in one order of its own (:func:`drawn`);
            ``description`` and ``condition_hash`` where a condition says something else about every item. Texts are
            None where only analysis is wanted.
        templates: Columns ``template``, ``shared``, ``user``: the start of the user turn that all items
            of a condition have in common, and the rest. ``{text}``, ``{Text}`` (capitalised),
            ``{description}`` and ``{option_1}``, ``{option_2}``, ... are filled in.
        options: Option texts that all items share.
        labels: One-token labels shown beside the options; empty when the options themselves are scored.
        orders: Cyclic option orders where items have none; order ``k`` shows ``(i + k) mod n`` at place ``i``.
        max_tokens: Greedy tokens at most (``text`` only).
        repeats: How often each cell is asked.

    Returns:
        One row per cell: identity, hash and prompt columns. Responses are stored in shown order.
    """
    _check(name, kind, conditions, items, templates)
    _slots(name, templates, [*options] if "options" not in items else None)
    definition = (kind, *options, *labels, str(max_tokens))
    turns = zip(templates["shared"], templates["user"], strict=True)
    templates = templates.assign(template_hash=[text_hash(shared, user, *definition) for shared, user in turns])
    items = _ordered(items, options, orders)
    who = conditions.drop(columns=[name for name in ("description", "condition_hash") if name in items])
    cells = _product(who, templates, items, pd.DataFrame({"repeat": range(repeats)}))
    shared, user, shown = _prompts(cells)
    return pd.DataFrame(
        {
            "measure": name,
            **{column: cells[column] for column in IDENTITY[1:]},
            **{column: cells[column] for column in HASHES},
            "kind": kind,
            "system": cells["system"],
            "shared": pd.Series(shared, index=cells.index, dtype=object),
            "user": pd.Series(user, index=cells.index, dtype=object),
            "options": [tuple(labels)] * len(cells) if labels else shown,
            "max_tokens": max_tokens,
        }
    )


def _check(name: str, kind: str, conditions: pd.DataFrame, items: pd.DataFrame, templates: pd.DataFrame) -> None:
    """Refuse an unknown kind, a name that is not a path, and tables that lack something."""
    if kind not in KINDS:
        raise ProtocolError(f"Measure {name!r} has kind {kind!r}; it must be one of {', '.join(KINDS)}.")
    named(name)
    _whole(conditions, name, "condition", "condition_hash", also=("system", "description"))
    _whole(items, name, "item", "item_hash", also=("text",))
    _whole(templates, name, "template", also=("shared", "user"))


def _ordered(items: pd.DataFrame, options: Sequence[str], orders: int) -> pd.DataFrame:
    """Return items with their options, one row for every order that they are asked in."""
    if "options" not in items:
        items = items.assign(options=pd.Series([tuple(options)] * len(items), index=items.index))
    if "order" not in items:
        each = np.repeat(np.arange(len(items)), orders)
        items = items.take(each).assign(order=np.tile(np.arange(orders), len(items)))
    return items


def _prompts(cells: pd.DataFrame) -> tuple[list[str | None], list[str | None], list[tuple[str, ...] | None]]:
    """Return the shared start, the rest of the user turn, and the options as shown, of every cell."""
    rows = cells[["options", "order", "description", "text", "shared", "user"]].itertuples(index=False, name=None)
    # Cells that fill a template alike share one string: a plan holds far more cells than texts.
    filled: dict[tuple[Any, ...], str | None] = {}
    shown: list[tuple[str, ...] | None] = []
    shared: list[str | None] = []
    user: list[str | None] = []
    for own, order, description, text, *parts in rows:
        turned = None if own is None else own[order:] + own[:order]
        shown.append(turned)
        for template, column in zip(parts, (shared, user), strict=True):
            key = (
                template,
                description if "{description}" in template else "",
                text if "{text}" in template or "{Text}" in template else "",
                turned if "{option_" in template else (),
            )
            if key not in filled:
                filled[key] = _fill(template, description, text, turned)
            column.append(filled[key])
    return shared, user, shown


def _product(*tables: pd.DataFrame) -> pd.DataFrame:
    """Return every combination of one row of each table, the last table's rows varying fastest.

    pandas' cross merge does the same for two tables; a plan is made of hundreds of products, and this takes a third
    of the time.
    """
    places = np.meshgrid(*(np.arange(len(table)) for table in tables), indexing="ij")
    parts = [table.take(place.ravel()).reset_index(drop=True) for table, place in zip(tables, places, strict=True)]
    return pd.concat(parts, axis=1)


def drawn(items: pd.Series, n: int, seed: int) -> pd.Series:
    """Draw one cyclic option order for each item, which a question that is answered in words is asked in.

    Every order is as likely, so that no place holds the right option more often than another. An item's order
    depends on its name and the seed alone: it is the same under every condition and in every sample of items.

    Args:
        items: Names of items.
        n: Options of each.

    >>> drawn(pd.Series(["a", "b", "c"]), 4, 1).tolist()
    [2, 3, 2]
    """
    named = (hashlib.sha256(f"{seed}\x1f{item}".encode()).digest() for item in items)
    return pd.Series([int.from_bytes(value[:8], "big") % n for value in named], index=items.index, dtype="int64")


def of_measures(plan: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Return the cells of some measures, each named by its name or by its kind.

    Where a measure is named like a kind, the name means that measure alone.

    Raises:
        ParameterError: a name that the plan does not have.
    """
    known = [*dict.fromkeys([*plan["measure"], *plan["kind"]])]
    for name in measures:
        if name not in known:
            names, kinds = (", ".join(dict.fromkeys(plan[column])) for column in ("measure", "kind"))
            raise ParameterError(
                f"--measures {quoted(name)} is not a measure of this plan.{nearest(name, known)} Its measures: "
                f"{names}; their kinds: {kinds}."
            )
    only_kinds = set(measures) - set(plan["measure"])
    kept = plan[plan["measure"].isin(measures) | plan["kind"].isin(only_kinds)]
    return kept.reset_index(drop=True)


def _whole(table: pd.DataFrame, measure: str, *keys: str, also: Sequence[str]) -> None:
    """Refuse a table of conditions, items or templates that lacks a column or a value, or names a row twice."""
    what = f"the {keys[0]}s of measure {measure!r}"
    if lacking := [column for column in (*keys, *also) if column not in table]:
        raise ProtocolError(
            f"Column {', '.join(lacking)} is missing from {what}; it has {', '.join(map(str, table))}."
        )
    for key in keys:
        if (absent := table[key].isna() | (table[key] == "")).any():
            row = int(absent.to_numpy().argmax())
            raise ProtocolError(f"Row {row + 1} of {what} has no {key}; fill it in.")
    if (twice := table[keys[0]].duplicated()).any():
        raise ProtocolError(f"{quoted(table.loc[twice, keys[0]].iloc[0])} is twice among {what}; rename one.")


def _slots(measure: str, templates: pd.DataFrame, options: list[str] | None) -> None:
    """Refuse a slot that nothing fills: the model would be asked about the words in braces."""
    known = {"text", "Text", "description"}
    if options is not None:
        known |= {f"option_{place}" for place, _ in enumerate(options, start=1)}
    for template in templates.to_dict("records"):
        for slot in re.findall(r"\{(\w+)\}", f"{template['shared']}{template['user']}"):
            if slot not in known and not (options is None and re.fullmatch(r"option_[1-9]\d*", slot)):
                raise ProtocolError(
                    f"Template {template['template']!r} of measure {measure!r} has a slot {{{slot}}} that nothing "
                    f"fills; known: {', '.join(sorted(known))}."
                )


def combine(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Stack measures into one plan and assert that every cell is named once.

    Raises:
        ProtocolError: two cells share an identity.
    """
    plan = pd.concat(list(parts), ignore_index=True)
    twice = plan[plan.duplicated(IDENTITY)]
    if len(twice):
        raise ProtocolError(
            f"The plan names {len(twice)} cells twice, first {dict(twice.iloc[0][IDENTITY])}; rename an item, a "
            "template or a condition."
        )
    return plan


def sample(plan: pd.DataFrame, n: int, *, seed: int = 1) -> pd.DataFrame:
    """Draw cells by a hash of what they are: everybody draws the same ones, in whatever order a plan stands.

    Args:
        n: How many; a plan that has no more is returned whole.
        seed: Another seed draws other cells.

    >>> cells = pd.DataFrame({name: range(9) for name in IDENTITY})
    >>> sample(cells, 3)["item"].tolist() == sorted(sample(cells[::-1], 3)["item"])
    True
    """
    drawn = [text_hash(str(seed), *map(str, cell)) for cell in plan[IDENTITY].to_numpy()]
    place = pd.Series(drawn, index=range(len(plan))).sort_values().index[:n]
    return plan.iloc[sorted(place)].reset_index(drop=True)


def union(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put several plans of one study together; what they share is asked once.

    Raises:
        ProtocolError: two plans ask one cell with different texts, so that one recording cannot hold both.
    """
    plan = pd.concat(list(parts), ignore_index=True)
    plan = plan[~plan.duplicated([*IDENTITY, *HASHES])].reset_index(drop=True)
    twice = plan[plan.duplicated(IDENTITY)]
    if len(twice):
        raise ProtocolError(
            f"Different parameters ask {len(twice)} cells with different texts, first "
            f"{dict(twice.iloc[0][IDENTITY])}; record them apart, under another --name each."
        )
    return plan


def save(plan: pd.DataFrame, path: Path, study: str) -> None:
    """Write a plan with its prompts to a Parquet file, so that it can be asked where the sources are not.

    Raises:
        ProtocolError: the plan holds texts that may not be passed on (``plan.attrs["gated"]`` names their sets).
    """
    if gated := plan.attrs.get("gated"):
        raise ProtocolError(
            f"The plan holds texts of {', '.join(gated)}, which may not be passed on, so it is not written. Leave "
            "that set out, or run `persona-studies record` without --plan where its owners have granted access."
        )
    table = pa.Table.from_pandas(plan, preserve_index=False)
    with files.replaced(path) as partial:
        pq.write_table(table.replace_schema_metadata({"study": study}), partial, compression="zstd")


def load(path: Path, study: str) -> pd.DataFrame:
    """Read a plan that :func:`save` wrote.

    Raises:
        ProtocolError: no such file, not a plan, a value of the wrong type, a cell twice, or another study's.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ProtocolError(
            f"{path} is not a plan ({error}); write one with: persona-studies plan {study}"
        ) from error
    of = (table.schema.metadata or {}).get(b"study", b"nothing").decode(errors="replace")
    again = f"write it again with: persona-studies plan {study}"
    if of != study:
        raise ProtocolError(f"{path} holds the plan of {of}, not of {study}; {again}")
    if odd := {*table.column_names} ^ {*SCHEMA.names}:
        raise ProtocolError(f"{path} lacks or adds the columns {', '.join(sorted(odd))}; {again}")
    try:
        plan: pd.DataFrame = table.select(SCHEMA.names).cast(SCHEMA).to_pandas()
    except (pa.ArrowException, ValueError) as error:
        raise ProtocolError(f"{path} is not a plan ({error}); {again}") from error
    for name in (*IDENTITY, *HASHES, "kind", "max_tokens"):
        if plan[name].isna().any():
            raise ProtocolError(f"{path} has a cell without {name}; {again}")
    if odd := {*plan["kind"]} - {*KINDS}:
        raise ProtocolError(
            f"{path} asks for {', '.join(map(quoted, sorted(odd)))}, not {', '.join(KINDS)}; {again}"
        )
    for name in plan["measure"].unique():
        try:
            named(name)
        except ParameterError as error:
            raise ProtocolError(f"{path}: {error} Then {again}") from error
    return combine([plan.assign(options=plan["options"].map(tuple, na_action="ignore"))])


def _fill(template: str, description: object, text: object, options: Sequence[str] | None) -> str | None:
    """Fill a template by plain replacement, so that braces in an item stay what they are."""
    for slot, value in (("{text}", text), ("{description}", description)):
        if slot in template.replace("{Text}", "{text}") and not isinstance(value, str):
            return None
    for position, option in enumerate(options or (), start=1):
        template = template.replace(f"{{option_{position}}}", option)
    if isinstance(description, str):
        template = template.replace("{description}", description)
    if isinstance(text, str):
        template = template.replace("{Text}", text[:1].upper() + text[1:]).replace("{text}", text)
    return template
