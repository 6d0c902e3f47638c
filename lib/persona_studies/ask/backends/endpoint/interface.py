"""Find out by asking what an endpoint can answer, before a plan is made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from persona_studies.ask.backends import Request
from persona_studies.ask.backends.endpoint import measures
from persona_studies.ask.backends.endpoint.answers import Answer, MalformedError
from persona_studies.ask.backends.endpoint.calls import RefusedError, Session
from persona_studies.ask.backends.endpoint.tokens import NoLogprobsError, check
from persona_studies.ask.backends.endpoint.troubles import FEW, TOP_LOGPROBS
from persona_studies.errors import BackendError

LABELS = Request("letter", None, "Reply with one letter, A or B.\n", "Which letter comes first?", ("A", "B"))
WORDS = Request("text", None, "", "Say hello.", max_tokens=16)
OPTIONS = Request("cloze", None, "", "Say hello.", ("Hello there.",))
# Where words stand changes how they are cut into tokens, by a few.
ROUNDING = 3
PERSONA = "You are a baker who lives in a small town by the sea and likes to get up early in the morning."


@dataclass(frozen=True)
class Interface:
    """What an endpoint can answer.

    Attributes:
        kinds: Kinds of measures.
        why_not: The other kinds -> the reason in a sentence.
        note: What whoever records should know.
    """

    kinds: tuple[str, ...]
    why_not: dict[str, str] = field(default_factory=dict)
    note: str | None = None


async def ask(session: Session) -> Interface:
    """Ask one call for each kind of measure.

    Raises:
        BackendError: the endpoint does not answer at all, takes no system message, or drops it unread.
    """
    kinds, why_not = [], {}
    backend = session.backend
    retries, backend.retries = backend.retries, min(backend.retries, FEW)
    try:
        if backend.api == "completions":
            try:
                await measures.cloze(session, OPTIONS)
                kinds.append("cloze")
            except (BackendError, RefusedError) as error:
                why_not["cloze"] = str(error)
        else:
            why_not["cloze"] = "a chat reports no log-probabilities of given texts; --api completions may"
        if (reason := await _letters(session)) is None:
            kinds.append("letter")
        else:
            why_not["letter"] = reason
        note = await _system_turn(session)
    finally:
        backend.retries = retries
    return Interface((*kinds, "text"), why_not, note)


async def _letters(session: Session) -> str | None:
    """Return why labels cannot be measured, or None where they can."""

    def alternatives(found: Answer) -> str | None:
        if found.tokens is None:
            return measures.no_logprobs(session)
        measures.check_not_reasoning(found)
        if not found.tokens:
            return None
        measures.check_agrees(found)
        check(found.tokens[0])
        if len(found.tokens[0].alternatives) < min(2, session.backend.top_logprobs):
            return measures.no_alternatives(session)
        return None

    try:
        return await session.call(measures.letter_body(session.backend, LABELS), alternatives)
    except (BackendError, NoLogprobsError, MalformedError, RefusedError) as error:
        # Whether it is the log-probabilities that are refused, or everything, the same call without them tells.
        said = str(error)
        try:
            await _words(session, LABELS)
        except RefusedError as refusal:
            raise nothing(session, refusal) from None
        if "--top-logprobs" in said and TOP_LOGPROBS.search(said) and (fewer := await _fewer(session)):
            raise BackendError(f"{said} Here {fewer} is taken: --top-logprobs {fewer}") from None
        return said


async def _fewer(session: Session) -> int | None:
    """Return a number of alternatives that the server does list, smaller than the one it refused."""
    wanted = session.backend.top_logprobs
    for fewer in (10, 5, 2):
        if fewer >= wanted:
            continue
        session.backend.top_logprobs = fewer
        try:
            many = await session.call(
                measures.letter_body(session.backend, LABELS), lambda found: measures.first_position(session, found)
            )
        except (BackendError, RefusedError):
            continue
        finally:
            session.backend.top_logprobs = wanted
        if len(many) > 1:
            return fewer
    return None


async def _words(session: Session, request: Request) -> Answer:
    """Ask for a few words, the least that any endpoint can answer."""
    body = measures.letter_body(session.backend, request)
    plain = {name: value for name, value in body.items() if name not in ("logprobs", "top_logprobs")}
    found = await session.call(plain | {"max_tokens": WORDS.max_tokens}, lambda found: found)
    measures.check_length(found, WORDS.max_tokens)
    return found


def nothing(session: Session, refusal: RefusedError) -> BackendError:
    """Say that an endpoint does not answer the simplest call."""
    return BackendError(
        f"{session.url} answers nothing: {str(refusal).rstrip('.')}. Mend the server or use another; a field that "
        "it needs can be given with --extra"
    )


async def _system_turn(session: Session) -> str | None:
    """Refuse an endpoint that refuses a system message, or drops it: every persona would be none.

    It is dropped where a prompt has as many tokens with it as without, and more with the same words elsewhere.

    Returns:
        A note where the server adds a system text of its own to a prompt without one: a system message, which takes
        its place, then adds fewer tokens than the same words elsewhere.
    """
    remedy = "Put the persona at the start of the user turn, which the recording then says: --system-role user"
    takes_system = session.backend.api == "chat" and session.backend.system_role == "system"
    counts = []
    for system, shared in ((None, PERSONA), (None, ""), (PERSONA, ""))[: 3 if takes_system else 1]:
        request = Request("letter", system, shared + LABELS.shared, LABELS.user, LABELS.options)
        try:
            usage = (await _words(session, request)).usage
        except RefusedError as refusal:
            if system is None:
                raise nothing(session, refusal) from None
            raise BackendError(f"{session.url} refuses a system message: {refusal}. {remedy}") from None
        counts.append(usage.prompt if usage else 0)
    if not takes_system:
        return None
    longer, without, told = counts
    if without == told < longer:
        raise BackendError(
            f"{session.url} drops the system message: with one of {len(PERSONA)} characters a prompt has {told} "
            f"tokens, as many as without. {remedy}"
        )
    if without > 0 and told + ROUNDING < longer:
        return (
            f"Where no persona is given, the server seems to put in a system text of its own, of {longer - told} "
            "tokens or more: no persona is then that one. Serve the model with a chat template that has none, or "
            "have prompts rendered here, without one: --api completions --chat"
        )
    return None
