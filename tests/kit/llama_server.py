"""llama-cpp-python's own server with the embedded model; skips whatever imports it where a package is missing."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from persona_studies.ask import models
from persona_studies.ask.backends.openai_compatible import OpenAICompatible
from persona_studies.ask.chat import CHATML
from persona_studies.paths import Project

for package, extra in {
    "llama_cpp": "extra `live`",
    "openai": "extra `api`",
    "uvicorn": "llama-cpp-python[server]",
    "fastapi": "llama-cpp-python[server]",
    "sse_starlette": "llama-cpp-python[server]",
    "starlette_context": "llama-cpp-python[server]",
    "pydantic_settings": "llama-cpp-python[server]",
}.items():
    pytest.importorskip(package, reason=f"{extra} is not installed")

PROJECT = Project(Path(__file__).parents[2])
MODEL = "smollm2-135m-instruct"


@contextmanager
def serve(log: Path) -> Iterator[str]:
    """Start the server on a free port, with the weights in f32, and yield its address."""
    from persona_studies.design.sources import cache_folder

    converting = models.load(PROJECT, MODEL, precision="f32")
    converting.close()
    [weights] = (cache_folder() / "weights").glob(f"{converting.info.model_hash[:16]}-f32.gguf")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": weights, "host": "127.0.0.1", "port": port, "n_ctx": 256, "logits_all": "true"}
    # Several threads wait for each other where the machine has other work.
    options |= {"n_threads": 1, "n_threads_batch": 1}
    options |= {"type_k": 0, "type_v": 0, "flash_attn": "false", "verbose": "false"}
    command = [sys.executable, "-m", "llama_cpp.server"]
    command += [text for name, value in options.items() for text in (f"--{name}", str(value))]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as server:
        try:
            while not _answers(f"http://127.0.0.1:{port}/v1/models"):
                assert server.poll() is None, log.read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address):
            return True
    except urllib.error.URLError:
        return False


def endpoint(address: str, api: str = "completions", **how: Any) -> OpenAICompatible:
    how = {"chat": CHATML, "concurrency": 2, "timeout": 600.0, "retries": 1, "extra": {"repeat_penalty": 1.0}} | how
    return OpenAICompatible(name="served", model=MODEL, base_url=address, api=api, **how)
