"""A small hub: data sets and models in memory, over HTTP, as far as uploading and downloading files needs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_canary_of_the_user"


class LocalHub:
    """Commits by id, each the whole tree; ``broken`` maps a path to the bytes that are served instead.

    A ``gated`` hub hands out nothing without :data:`TOKEN`, and answers as its owners' conditions ask: 401 without
    a token, 403 with another one. With ``cut``, a file ends after so many bytes, and nothing is handed out
    afterwards. ``ranges`` lists what ranges were asked for. ``datasets`` maps a data set to its present commit and
    its files, which the Hub tells whoever asks about it.
    """

    def __init__(self) -> None:
        self.empty()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                if "Content_Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def say(self, told: object) -> None:
                self.answer(200, json.dumps(told).encode(), Content_Type="application/json")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path = urlsplit(self.path).path
                if hub.refuse or self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    self.answer(hub.refuse or 401)
                elif path == "/api/repos/create":
                    self.say({"url": f"{hub.address}/datasets/someone/recordings", "id": "someone/recordings"})
                elif path == "/api/validate-yaml":
                    self.say({"errors": [], "warnings": []})
                elif "/preupload/" in path:
                    files = json.loads(body)["files"]
                    self.say(
                        {
                            "files": [
                                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
                            ]
                        }
                    )
                elif "/commit/" in path:
                    tree = dict(hub.head)
                    for line in body.splitlines():
                        entry = json.loads(line)
                        if entry["key"] == "file":
                            tree[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                    oid = hashlib.sha1(repr(sorted(tree.items())).encode()).hexdigest()
                    hub.commits[oid] = hub.head = tree
                    self.say(
                        {
                            "success": True,
                            "commitOid": oid,
                            "commitUrl": f"{hub.address}/datasets/someone/recordings/commit/{oid}",
                        }
                    )
                else:
                    self.answer(404)

            def do_GET(self) -> None:
                about = unquote(urlsplit(self.path).path).removeprefix("/api/datasets/")
                if about in hub.datasets:
                    revision, names = hub.datasets[about]
                    self.say({"id": about, "sha": revision, "siblings": [{"rfilename": name} for name in names]})
                    return
                parts = unquote(urlsplit(self.path).path).removeprefix("/datasets").split("/")
                # /OWNER/NAME/resolve/REVISION/PATH..., of a data set with /datasets before it
                if parts[1] == "api" and hub.listed(parts) is not None and not hub.refuse:
                    self.say(hub.listed(parts))
                    return
                tree = hub.commits.get(parts[4], {}) if len(parts) > 5 and parts[3] == "resolve" else {}
                path = "/".join(parts[5:])
                token = self.headers.get("Authorization")
                if hub.gated and token != f"Bearer {TOKEN}":
                    self.answer(403 if token else 401, **({"X_Error_Code": "GatedRepo"} if token else {}))
                    return
                if hub.refuse or path not in tree:
                    code = {"X_Error_Code": "EntryNotFound"} if not hub.refuse else {}
                    self.answer(hub.refuse or 404, **code)
                    return
                data = hub.broken.get(path, tree[path])
                etag = hashlib.sha1(data).hexdigest()
                self.hand_out(data, ETag=f'"{etag}"', X_Repo_Commit=parts[4])

            def hand_out(self, data: bytes, **headers: str) -> None:
                status, asked = 200, self.headers.get("Range")
                if asked is not None and self.command == "GET":
                    hub.ranges.append(asked)
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                    status, data = 206, data[start:]
                headers["Content_Length"] = str(len(data))
                if hub.cut is not None and self.command == "GET":
                    data, hub.cut, hub.refuse = data[: hub.cut], None, 503
                    self.close_connection = True
                self.answer(status, data, **headers)

            def do_HEAD(self) -> None:
                self.do_GET()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def listed(self, parts: list[str]) -> object:
        """Return the files of a commit: of ``/api/.../OWNER/NAME/tree/REVISION``, or ``.../revision/REVISION``."""
        kind, revision = parts[-2:]
        tree = self.commits.get(revision)
        if tree is None:
            return None
        if kind == "revision":
            siblings = [{"rfilename": path} for path in tree]
            return {"id": "someone/recordings", "sha": revision, "siblings": siblings}
        served = {path: self.broken.get(path, data) for path, data in tree.items()}
        return [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in served.items()
        ]

    def empty(self) -> None:
        """Forget everything, as a hub that has just been made."""
        self.commits: dict[str, dict[str, bytes]] = {}
        self.head: dict[str, bytes] = {}
        self.broken: dict[str, bytes] = {}
        self.datasets: dict[str, tuple[str, list[str]]] = {}
        self.refuse = 0
        self.gated = False
        self.cut: int | None = None
        self.ranges: list[str] = []

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Done:
    """What a call in another process ended with; its code is 1 where it raised an error of this package."""

    returncode: int
    stdout: str
    stderr: str


class Client:
    """A process for calls to one hub: the library reads its address when it is imported, so never in this process.

    Args:
        hub: Whose address it is told.
        home: Folder for what the library keeps.
    """

    def __init__(self, hub: LocalHub, home: Path) -> None:
        settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_settle, initargs=({**settings, "HF_TOKEN": TOKEN},)
        )

    def call(self, function: Callable[..., object], *arguments: object) -> Done:
        """Call a function of a module there, under the environment of now, and print what it returns."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        done = self._pool.submit(_called, inherited, function, *arguments).result(timeout=120)
        assert TOKEN not in done.stdout + done.stderr
        return done

    def close(self) -> None:
        self._pool.shutdown()


def _settle(settings: dict[str, str]) -> None:
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING"))]:
        del os.environ[name]
    os.environ.update(settings)


def _called(environment: dict[str, str], function: Callable[..., object], *arguments: object) -> Done:
    from persona_studies.errors import PersonaStudiesError

    own = {name: value for name, value in os.environ.items() if name.startswith("HF_")}
    os.environ.clear()
    os.environ.update(environment | own)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            out.write(f"{function(*arguments)}\n")
        except PersonaStudiesError as error:
            code = 1
            err.write(f"{type(error).__name__}: {error}\n")
        except Exception:
            code = 2
            traceback.print_exc()
    return Done(code, out.getvalue(), err.getvalue())
