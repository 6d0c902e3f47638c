"""Settings of the surroundings that keep programs from the network: proxies, certificates, package indices.

Needs nothing but Python: environments are made with it.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "PIP_PROXY")
INDICES = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
)
HUBS = ("HF_ENDPOINT",)
SCHEMES = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
CONNECT_SECONDS = 2


def wrong_settings() -> list[str]:
    """Return the environment variables that cannot work, each with its value and what is wrong with it.

    A proxy, an index or a hub is tried: its host must accept a connection within two seconds. Where a proxy is set,
    only the proxy is tried. Passwords in addresses are not shown.

    >>> before = os.environ.get("SSL_CERT_FILE")
    >>> os.environ["SSL_CERT_FILE"] = "/nowhere.pem"
    >>> wrong_settings()[0]
    'SSL_CERT_FILE=/nowhere.pem (no such file)'
    >>> _ = os.environ.pop("SSL_CERT_FILE") if before is None else os.environ.update(SSL_CERT_FILE=before)
    """
    wrong = []
    for name in CERTIFICATES:
        value = os.environ.get(name)
        if value and not _exists(value):
            wrong.append(f"{name}={value} (no such file)")
    proxies = [name for upper in PROXIES for name in (upper, upper.lower()) if os.environ.get(name)]
    for name in proxies or [name for name in (*INDICES, *HUBS) if os.environ.get(name)]:
        # An index variable may hold several addresses, in uv's way each behind its name.
        for value in os.environ[name].split():
            problem = _unreachable(value.partition("=")[2] if re.match(r"[\w-]+=", value) else value)
            if problem:
                wrong.append(f"{name}={without_password(value)} ({problem})")
    return wrong


def advice() -> str:
    """Return a sentence that names the settings which cannot work, behind a blank; nothing where all can."""
    wrong = wrong_settings()
    return f" What cannot work in the environment: {', '.join(wrong)}; correct or unset it." if wrong else ""


def without_password(address: str) -> str:
    """Return an address without the name and password in it.

    >>> without_password("http://me:secret@proxy:3128")
    'http://***@proxy:3128'
    """
    return re.sub(r"(^|//)[^/@\s]*@", r"\1***@", address)


def _exists(text: str) -> bool:
    """Return whether a text names a file or folder; one that cannot be a path, such as one too long, names none."""
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _unreachable(address: str) -> str | None:
    """Say why nothing can be had from an address, or None where its host accepts a connection."""
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme == "file":
        return None if _exists(parts.path) else "no such folder"
    if parts.scheme not in SCHEMES:
        return f"{parts.scheme}:// is no proxy or web address"
    try:
        host, port = parts.hostname, parts.port or SCHEMES[parts.scheme]
    except ValueError:
        return "its port is not a number from 0 to 65535"
    if not host:
        return "it names no host"
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except socket.gaierror:
        return f"no host is named {host}"
    except UnicodeError:
        return f"{host} cannot be the name of a host"
    except TimeoutError:
        return f"{host} does not answer at port {port}"
    except OSError as error:
        return f"{host} refuses at port {port}: {error.strerror or error}"
    return None
