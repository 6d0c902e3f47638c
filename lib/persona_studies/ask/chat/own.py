"""A model's own chat template, as turn marks with gaps for the texts.

The template is rendered a few times with placeholders. What stands around a placeholder are the marks of its
turn. From then on a prompt is put together from these marks, so a text that contains marks cannot change the
structure of a prompt, and "no persona" contains no system text: where the template writes one of its own, the
prompt without a persona is cut down to the user turn.
"""

from __future__ import annotations

import datetime
import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import dropwhile, product, takewhile
from typing import Any

from persona_studies.ask.chat import jinja
from persona_studies.errors import BackendError

USER, LATER, SYSTEM, REPLY = "qzfirstqz", "qzlaterqz", "qzpersonaqz", "qzreplyqz"
# Blanks at both ends, capitals, and characters that a template could escape.
ODD = "\n \n First <b> & \"second\"\n\n'third'\r\n\\ {{ x }} ü☃ last\n \n"
REMEDY = "Say how turns are marked with --chat: chatml, gemma, plain, or a file with a Jinja template"
SWITCHES = ("enable_thinking", "thinking")
_OPEN_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>\s*\Z")
# The smallest parts of turn marks: <mark>, [MARK], a word, any other character.
_PARTS = re.compile(r"<[^<>\s]{1,80}>|\[[^\[\]\s]{1,40}\]|[^\W\d_]+|.", re.DOTALL)
_MARK = re.compile(r"<[^<>\s]{1,80}>|\[[^\[\]\s]{1,40}\]")
# Words that name a turn.
_ROLES = re.compile(r"system|developer|user|human|instructions?|prompt|message|turn", re.I)
# Begin tokens, which some templates write by their text.
_BEGINS = re.compile(r"(<s>|<bos>|<BOS_TOKEN>|<\|begin_of_text\|>|<\|startoftext\|>|<｜begin▁of▁sentence｜>)+")
# Special tokens that a template may write. A model without a begin token begins with none; another one that is not
# known would be missing in every prompt, so it is given a text that can be found.
_TOKENS = ("eos_token", "sep_token", "unk_token", "pad_token", "cls_token", "mask_token")


def _filters() -> dict[str, Callable[[str], str]]:
    """Return what a template may do to a text: strip it, escape it, take blank lines out, or two of these."""
    strips: dict[str, Callable[[str], str]] = {
        "": lambda text: text,
        "strip": str.strip,
        "lstrip": str.lstrip,
        "rstrip": str.rstrip,
        "strip lines": lambda text: text.strip("\n"),
        "lstrip lines": lambda text: text.lstrip("\n"),
        "rstrip lines": lambda text: text.rstrip("\n"),
    }
    escapes: dict[str, Callable[[str], str]] = {
        "": lambda text: text,
        "escape": lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        "json": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
        "ascii json": lambda text: json.dumps(text)[1:-1],
        "single lines": lambda text: text.replace("\r\n", "\n").replace("\n\n", "\n"),
    }

    def both(strip: Callable[[str], str], escape: Callable[[str], str]) -> Callable[[str], str]:
        return lambda text: escape(strip(text))

    return {
        " ".join(filter(None, names)): both(strips[names[0]], escapes[names[1]])
        for names in product(strips, escapes)
    }


FILTERS = _filters()


@dataclass(frozen=True)
class Form:
    """A prompt with gaps.

    Attributes:
        texts: Marks before, between and behind the gaps.
        gaps: What belongs into each gap: ``system`` or ``user``.
    """

    texts: tuple[str, ...]
    gaps: tuple[str, ...]

    def fill(self, **texts: str) -> str:
        return self.texts[0] + "".join(
            texts[gap] + text for gap, text in zip(self.gaps, self.texts[1:], strict=True)
        )


@dataclass(frozen=True)
class OwnTemplate:
    """Turn marks of a model's own template.

    Attributes:
        bare: The prompt without a persona; its only gap is the user's text.
        spoken: The prompt with a persona; None when the template has no system role, and the persona then opens
            the user turn.
        stop: Markers that end the model's turn.
        system_filter, user_filter: What the template does to the texts, of ``FILTERS``.
        notes: What a reader of a recording should know.
    """

    bare: Form
    spoken: Form | None
    stop: tuple[str, ...] = ()
    system_filter: str = ""
    user_filter: str = ""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return a name that tells templates with different marks apart."""
        facts = json.dumps({key: value for key, value in asdict(self).items() if key != "notes"}, sort_keys=True)
        return "; ".join((f"own {hashlib.sha256(facts.encode()).hexdigest()[:12]}", *self.notes))

    def render(self, system: str | None, shared: str, user: str) -> tuple[str, str]:
        """Return ``(prefix, suffix)``: what all items of a condition share, and the rest of the prompt."""
        form = self.bare
        if system is not None and self.spoken is None:
            shared = f"{system}\n\n{shared}"
        elif system is not None and self.spoken is not None:
            form = self.spoken
        spoken = FILTERS[self.system_filter](system or "")
        change = FILTERS[self.user_filter]
        whole = change(shared + user)
        same = takewhile(lambda pair: pair[0] == pair[1], zip(change(shared), whole, strict=False))
        seam = sum(1 for _ in same) if self.user_filter else len(shared)
        place = form.gaps.index("user")
        head = form.texts[0] + "".join(spoken + text for text in form.texts[1 : place + 1])
        tail = form.texts[place + 1] + "".join(spoken + text for text in form.texts[place + 2 :])
        return head + whole[:seam], whole[seam:] + tail

    def beginning(self, marker: str | None) -> OwnTemplate:
        """Return the template for a model that expects ``marker``, once, before everything else."""
        if not marker:
            return self

        def begun(form: Form) -> Form:
            first = form.texts[0]
            while first.startswith(marker):
                first = first.removeprefix(marker)
            return replace(form, texts=(marker + first, *form.texts[1:]))

        return self._changed(begun)

    def without_beginning(self) -> OwnTemplate:
        """Return the template for a server that sets the begin token itself."""
        return self._changed(lambda form: replace(form, texts=(_BEGINS.sub("", form.texts[0], 1), *form.texts[1:])))

    def _changed(self, change: Callable[[Form], Form]) -> OwnTemplate:
        return replace(self, bare=change(self.bare), spoken=None if self.spoken is None else change(self.spoken))


def derive(source: str, variables: Mapping[str, str] | None = None) -> OwnTemplate:
    """Return the turn marks that a template writes.

    Args:
        source: The template (Jinja).
        variables: The model's special tokens: ``bos_token``, ``eos_token`` and so on.

    Raises:
        BackendError: the template is broken, does not end, writes a token that is not known, or its prompt without
            a persona cannot be freed of system text.
    """
    known = {name: text for name, text in (variables or {}).items() if text}
    unknown = {name: f"qz{name}qz" for name in _TOKENS if name not in known}
    try:
        seen = _Seen.of(source, {"bos_token": "", **unknown, **known})
        notes: tuple[str, ...] = ()
        user_filter = _filter(seen.bare, seen.odd_user, "user")
        bare, cut = _without_system(seen, known.get("bos_token", ""))
        spoken, system_filter = seen.spoken, ""
        if spoken is None:
            notes += ("persona in the user turn",)
        else:
            system_filter = _filter(spoken, seen.odd_system, "system")
            if seen.odd_both != spoken.fill(
                system=FILTERS[system_filter](ODD[::-1]), user=FILTERS[user_filter](ODD)
            ):
                raise ValueError("what it makes of one text depends on another")
            if spoken.gaps[-1] == "user" and spoken.texts[-1] != seen.bare.texts[-1]:
                raise ValueError("what it writes behind the text of the user turn depends on the system turn")
            spoken = _closed(spoken, seen)
            before = _ROLES.sub("", " ".join(spoken.texts[: spoken.gaps.index("user") + 1]))
            if {*_words(before)} - {*_words(bare.texts[0])}:
                notes += ("own system text beside the persona",)
        if cut:
            notes += ("its own system text left out",)
        if _OPEN_THOUGHT.search(seen.bare.texts[-1]):
            notes += ("thinking closed",)
        bare, notes = _closed(bare, seen), notes + seen.notes
        written = "".join(text for form in (bare, spoken) if form is not None for text in form.texts)
        if lacking := [name for name, text in unknown.items() if text in written]:
            raise ValueError(f"it writes {lacking[0]}, and the text of that token is not known")
    except ValueError as error:
        remedy = REMEDY
        if named := re.search(r"\w+_token\b|\w+(?=' is undefined)", str(error)):
            remedy = f"Begin a copy of it with {{% set {named[0]} = '...' %}} and name the copy with --chat"
        raise BackendError(f"The model's chat template cannot be used: {error}. {remedy}.") from error
    stop = _MARK.match(seen.reply_close.lstrip())
    return OwnTemplate(bare, spoken, (stop[0],) if stop else (), system_filter, user_filter, notes)


@dataclass(frozen=True)
class _Seen:
    """What a template made of the placeholders.

    Attributes:
        bare, spoken: Forms of the prompt as the template writes them; ``spoken`` is None without a system role.
        odd_user, odd_system, odd_both: The same prompts with odd texts.
        reply_open: What stands between the user's text and a reply; None when the template takes no reply.
        reply_close: What stands behind the last reply.
        later: What stands between a reply and the next turn of the user; None when unknown.
        notes: Switches that were set.
    """

    bare: Form
    spoken: Form | None
    odd_user: str
    odd_system: str | None
    odd_both: str | None
    reply_open: str | None
    reply_close: str
    later: str | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, source: str, variables: dict[str, Any]) -> _Seen:
        given = {"tools": None, "documents": None, "add_generation_prompt": True, **variables}
        given |= {name: False for name in SWITCHES if re.search(rf"\b{name}\b", source)}
        # Some templates take a message as a list of parts; some insist on a system turn.
        rendered: dict[str, dict[str, jinja.Rendering]] = {}
        for how in ("", "parts", "opened"):
            rendered[how] = _render(source, given, how)
            if USER in (rendered[how]["plain"].text or ""):
                break
        else:
            how = ""
        found = rendered[how]
        plain = found["plain"]
        if plain.text is None:
            raise ValueError(plain.problem)
        bare = _form(plain.text, {"user": USER})
        persona = found["persona"].text
        spoken = None
        if persona is not None and SYSTEM in persona:
            spoken = _form(persona, {"system": SYSTEM, "user": USER})
        reply, later = found["reply"].text, found["later"].text
        known = reply is not None and reply.count(USER) == 1 and reply.count(REPLY) == 1
        opened = closed = next_turn = None
        if known:
            assert reply is not None
            opened, _, closed = reply.partition(USER)[2].partition(REPLY)
        if later is not None and REPLY in later and LATER in later.partition(REPLY)[2]:
            next_turn = later.partition(REPLY)[2].partition(LATER)[0]
        return cls(
            bare=bare,
            spoken=spoken,
            odd_user=found["odd user"].text or "",
            odd_system=found["odd persona"].text,
            odd_both=found["odd both"].text,
            reply_open=opened,
            reply_close=closed or "",
            later=next_turn,
            notes=_switched(source, given, found, how),
        )


def _render(
    source: str, given: dict[str, Any], how: str, day: datetime.datetime = jinja.DATE
) -> dict[str, jinja.Rendering]:
    """Render the conversations that :class:`_Seen` needs.

    Args:
        source, given: The template and its variables.
        how: ``parts`` gives a message as a list of parts instead of a text; ``opened`` opens a conversation without
            a persona with an empty system turn.
        day: The date that the template is told.
    """

    def say(*turns: tuple[str, str]) -> dict[str, Any]:
        if how == "opened" and turns[0][0] != "system":
            turns = (("system", ""), *turns)
        return {
            "messages": [
                {"role": role, "content": [{"type": "text", "text": text}] if how == "parts" else text}
                for role, text in turns
            ]
        }

    talks = {
        "plain": say(("user", USER)),
        "odd user": say(("user", ODD)),
        "persona": say(("system", SYSTEM), ("user", USER)),
        "odd persona": say(("system", ODD), ("user", USER)),
        "odd both": say(("system", ODD[::-1]), ("user", ODD)),
        "reply": {**say(("user", USER), ("assistant", REPLY)), "add_generation_prompt": False},
        "later": say(("user", USER), ("assistant", REPLY), ("user", LATER)),
        "thinking": {**say(("user", USER)), **{name: True for name in SWITCHES if name in given}},
    }
    made = jinja.render(source, list(talks.values()), given, day=day)
    return dict(zip(talks, made, strict=True))


def _switched(
    source: str, given: dict[str, Any], found: Mapping[str, jinja.Rendering], how: str
) -> tuple[str, ...]:
    """Return which of the switches and clocks change the prompt."""
    notes: tuple[str, ...] = ()
    if found["thinking"].text != found["plain"].text:
        notes += ("thinking off",)
    if "strftime_now" in source:
        other = _render(source, given, how, jinja.DATE + datetime.timedelta(days=100))
        if any(other[name].text != found[name].text for name in ("plain", "persona")):
            notes += (f"date {jinja.DATE:%Y-%m-%d}",)
    return notes


def _form(text: str, places: dict[str, str]) -> Form:
    """Cut a rendering at its placeholders."""
    for gap, word in places.items():
        if text.count(word) != 1:
            times = f"{text.count(word)} times" if word in text else "not at all"
            raise ValueError(f"it writes the text of the {gap} turn {times}")
    order = sorted(places, key=lambda gap: text.index(places[gap]))
    texts = re.split("|".join(places.values()), text)
    return Form(tuple(texts), tuple(order))


def _filter(form: Form, odd: str | None, gap: str) -> str:
    """Return what the template does to a text, of ``FILTERS``."""
    others = {"system": SYSTEM, "user": USER}
    for name, change in FILTERS.items():
        if odd == form.fill(**{**others, gap: change(ODD)}):
            return name
    raise ValueError(f"it changes the text of the {gap} turn in a way that is not known")


def _closed(form: Form, seen: _Seen) -> Form:
    """Return a form that ends where the model's answer begins."""
    last, asked = form.texts[-1], seen.bare.texts[-1]
    if seen.reply_open is not None and seen.reply_open.startswith(asked):
        # The template itself says what opens a reply: a blank, a channel, an empty thought.
        last += seen.reply_open.removeprefix(asked)
    if opened := _OPEN_THOUGHT.search(last):
        last = f"{last.rstrip()}\n\n</{opened[1]}>\n\n"
    return replace(form, texts=(*form.texts[:-1], last))


def _without_system(seen: _Seen, bos: str) -> tuple[Form, bool]:
    """Return the prompt without a persona, and whether the template's own system text was cut out of it.

    Every later turn of the user opens with the marks of a turn and nothing else. So the first turn is free of
    system text when it opens in the same way.
    """
    head = seen.bare.texts[0]
    if seen.later is None:
        if len(_words(head)) <= 2 and "system" not in head.lower():
            return seen.bare, False
        raise ValueError("it writes a system text of its own, and takes one turn only, so it cannot be left out")
    later = _PARTS.findall(seen.later)
    if _opens_like(head, later, bos):
        return seen.bare, False
    start = _PARTS.findall(head.removeprefix(bos))
    parts = _PARTS.findall(head)
    for opening in _openings(seen, start, later):
        marks = []
        for part, following in zip(parts, [*parts[1:], ""], strict=True):
            # A mark with this word behind it is the system turn's: `<extra_id_0>System`.
            opens_system = _names_system(following) and not _MARK.fullmatch(following)
            if not _MARK.fullmatch(part) or part == opening[0] or _names_system(part) or opens_system:
                break
            marks.append(part)
        begin = bos if bos and head.startswith(bos) else "".join(marks)
        # Some models open every turn of the user with the begin token.
        first = begin + "".join(opening).removeprefix(begin)
        bare = replace(seen.bare, texts=(first, *seen.bare.texts[1:]))
        if not _names_system(bare.texts[0]) and len(_words(bare.texts[0])) <= 2:
            return bare, True
    raise ValueError("it writes a system text of its own that cannot be left out")


def _openings(seen: _Seen, start: Sequence[str], later: Sequence[str]) -> list[list[str]]:
    """Return how a turn of the user may open, from what stands between a reply and it, most certain first."""
    found: list[list[str]] = []
    close = _PARTS.findall(seen.reply_close)
    if later[: len(close)] == close:
        found.append(list(later[len(close) :]))
    # Turns close alike. What follows the common part opens the turn, up to where openings are alike, too.
    both = zip(_PARTS.findall(seen.bare.texts[-1]), later, strict=False)
    common = [a for a, b in takewhile(lambda pair: pair[0] == pair[1], both)]
    if common:
        alike = max(n for n in range(len(common) + 1) if common[len(common) - n :] == list(start[:n]))
        found.append(list(later[len(common) - alike :]))
    longest = max(n for n in range(len(later) + 1) if list(later[len(later) - n :]) == list(start[:n]))
    found.append(list(later[len(later) - longest :]))
    # Blanks before a mark part it from the turn before, and the first turn has none before it.
    starts = [list(dropwhile(str.isspace, opening)) for opening in found]
    return [opening for opening in starts if opening]


def _opens_like(head: str, later: Sequence[str], bos: str) -> bool:
    """Return whether the first turn opens as a later one does, behind nothing but marks."""
    if _names_system(head):
        return False
    parts = _PARTS.findall(head.removeprefix(bos))
    same = max(
        n for n in range(len(parts) + 1) if n <= len(later) and parts[len(parts) - n :] == later[len(later) - n :]
    )
    before = parts[: len(parts) - same]
    others = [place for place, part in enumerate(before) if not (part.isspace() or _MARK.fullmatch(part))]
    # One word behind a mark belongs to it, as in `[gMASK]sop`.
    return others in ([], [1])


def _names_system(text: str) -> bool:
    return re.search("system|developer", text, re.IGNORECASE) is not None


def _words(text: str) -> list[str]:
    """Return the words of a text that are no marks."""
    return re.findall(r"[^\W\d_]{2,}", _MARK.sub(" ", text))
