"""The address of an endpoint and its key, checked before anything is sent."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit, urlunsplit

from persona_studies.errors import BackendError, ParameterError, quoted

KEY = "OPENAI_API_KEY"
ADDRESS = "OPENAI_BASE_URL"
EXAMPLE = "http://localhost:8000/v1"
# What people copy from an example of a call, and the client adds by itself.
ENDINGS = ("/chat/completions", "/completions", "/models")
LOCAL = ("localhost", "127.", "0.0.0.0", "192.168.", "10.", "[")


def checked(given: str | None) -> str | None:
    """Return the address of an endpoint without quotes, blanks and the name of a call; None is OpenAI's own.

    Args:
        given: Address; None takes the environment variable ``OPENAI_BASE_URL``.

    Raises:
        ParameterError: no address, no scheme, no host, or something that an address does not have.

    >>> checked(" 'http://localhost:8000/v1/chat/completions' ")
    'http://localhost:8000/v1'
    """
    place = "base_url" if given is not None else ADDRESS
    raw = given if given is not None else os.environ.get(ADDRESS)
    if raw is None:
        return None
    text = raw.strip().strip("\"'“”‘’").strip()
    if not text:
        raise ParameterError(
            f"{place} is empty; set it to the endpoint's address, such as {EXAMPLE}, or unset it for OpenAI's own."
        )
    parts = _parts(place, raw, text)
    path = parts.path.rstrip("/")
    for ending in ENDINGS:
        path = path.removesuffix(ending)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def _parts(place: str, raw: str, text: str) -> SplitResult:
    shown = quoted(without_password(raw))
    if not text.isprintable() or " " in text:
        raise ParameterError(f"{place} = {shown} has a blank or a control character in it; write {EXAMPLE}")
    if "://" not in text:
        scheme = "http" if text.startswith(LOCAL) else "https"
        mended = without_password(f"{scheme}://{text.lstrip('/')}")
        raise ParameterError(f"{place} = {shown} has no scheme; write {mended}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ParameterError(f"{place} = {shown} is not an address ({error}); write {EXAMPLE}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise ParameterError(f"{place} = {shown} has the scheme {parts.scheme!r}; it must be http or https.")
    if not parts.hostname or port == 0:
        raise ParameterError(f"{place} = {shown} names no host; write {EXAMPLE}")
    if parts.query or parts.fragment:
        raise ParameterError(
            f"{place} = {shown} has a part behind the path ({'?' if parts.query else '#'}...), which the calls "
            "would not keep; give the address of the interface up to and including /v1."
        )
    return parts


def without_password(address: str) -> str:
    """Return an address as a message may show it.

    >>> without_password("http://me:secret@host:80/v1")
    'http://host:80/v1'
    """
    scheme, separator, rest = address.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def lacks_version(address: str) -> bool:
    """Return whether an address has no part such as ``/v1``, which most endpoints have.

    >>> lacks_version("http://localhost:8000/"), lacks_version("https://host/v1beta/openai")
    (True, False)
    """
    parts = urlsplit(address).path.split("/")
    return not any(part[:1] == "v" and part[1:2].isdigit() for part in parts)


def key(model: str, address: str | None) -> str | None:
    """Return the key of the environment variable ``OPENAI_API_KEY``, or None where a server needs none.

    Raises:
        BackendError: a hosted model without a key, or a key with a character that no key has.
    """
    found = os.environ.get(KEY)
    if not found and not address:
        raise BackendError(
            f"{model} is a hosted model and needs a key: set the environment variable {KEY}; or {ADDRESS} to the "
            f"address of another endpoint, such as {EXAMPLE}."
        )
    if found and not (found.isascii() and found.isprintable() and " " not in found):
        raise BackendError(f"{KEY} holds a character that no key has, such as a line break; set it anew.")
    return found or None


def secrets(address: str) -> list[str]:
    """Return what must not be shown: the key, and a password in the address."""
    password = urlsplit(address).password
    return [text for text in (os.environ.get(KEY), password) if text]
