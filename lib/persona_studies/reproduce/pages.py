"""Pages for people who look: self-contained HTML from a template, everything in it escaped."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from persona_studies import files
from persona_studies.analyse.tables import MISSING
from persona_studies.errors import visible


def write(path: Path, template: str, **content: Any) -> None:
    """Fill a template of this package and write the page in one step; it loads nothing from elsewhere.

    Args:
        template: Name of a file in ``templates/``.
        content: What the template names; an unknown name is an error.
    """
    environment = Environment(
        loader=PackageLoader("persona_studies.reproduce"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
        keep_trailing_newline=True,
    )
    environment.filters.update(picture=picture, number=number, pair=lambda two: pair(*two), shown=shown)
    environment.globals["infinity"] = math.inf
    text = environment.get_template(template).render(**content)
    files.write(path, text)


def picture(png: Path) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()


def number(value: float, decimals: int = 2) -> str:
    """Format a number with a true minus sign.

    >>> number(-0.5), number(0.12345, 4), number(-0.001), number(float("nan"))
    ('−0.50', '0.1235', '0.00', '–')
    """
    # Adding 0 leaves no sign of a zero.
    return MISSING if math.isnan(value) else f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def pair(old: Any, new: Any) -> tuple[str, str]:
    """Format two estimates with their intervals, with as many decimals as show that they differ, at most six.

    Args:
        old: With ``value, low, high`` and ``bounded``.
        new: The same.
    """
    gaps = [abs(getattr(old, name) - getattr(new, name)) for name in ("value", "low", "high")]
    # What differs decides: the estimate, or where it is the same, a limit.
    first = next((gap for gap in gaps if gap > 0 and math.isfinite(gap)), 1.0)
    decimals = min(6, max(2, 1 - math.floor(math.log10(first))))
    texts = []
    for one in (old, new):
        limits = f" [{number(one.low, decimals)}, {number(one.high, decimals)}]" if one.bounded else ""
        texts.append(number(one.value, decimals) + limits)
    return texts[0], texts[1]


def shown(value: Any) -> str:
    """Return a parameter's value as JSON, texts without quotation marks."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _printable(value: Any) -> Any:
    """Take control characters out of a text: anybody may have written it."""
    return visible(value) if type(value) is str else value
