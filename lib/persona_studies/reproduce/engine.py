"""The papermill engine of the runner: this interpreter's own kernel, with an environment of its own."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

NAME = "persona-studies"


class Client(PapermillNotebookClient):
    """Leaves a kernel that has nothing more to do.

    papermill's last question is answered a moment before the kernel is done with it, and the interrupt with which
    jupyter_client begins to shut it down would then print a harmless error message.
    """

    def set_widgets_metadata(self) -> None:
        super().set_widgets_metadata()
        with contextlib.suppress(TimeoutError):
            run_sync(self.kc.execute_interactive)("", silent=True, allow_stdin=False, timeout=self.startup_timeout)


class Engine(NBClientEngine):
    """Starts a kernel with given environment variables, without touching this process's own.

    The kernel is this interpreter's: a kernel specification named ``python3`` in a user's home, which Jupyter
    would prefer, may point to another Python.
    """

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        environment: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> Any:
        manager = AsyncKernelManager(
            kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
        )
        folder = tempfile.TemporaryDirectory(prefix="kernel-", ignore_cleanup_errors=True)
        connect(manager, Path(folder.name))
        client = Client(
            nb_man, km=manager, timeout=execution_timeout, startup_timeout=start_timeout, log_output=log_output
        )
        # papermill would write the whole notebook twice a cell; it is written when it is done, or has failed.
        path, nb_man.output_path = nb_man.output_path, None
        try:
            return client.execute(env=environment, cleanup_kc=True)
        finally:
            nb_man.output_path = path
            folder.cleanup()


def connect(manager: AsyncKernelManager, folder: Path) -> None:
    """Say by which way the kernel is spoken to: sockets in ``folder``, or local ports where there are none.

    A port is chosen before the kernel binds it. In between another program may take it, another study's kernel
    among them, and the kernel dies. A socket in a folder of its own cannot be taken, nor read by other users.
    """
    sockets = folder / "kernel.json"
    named = os.fsencode(sockets.with_name("kernel-ipc-5"))
    if os.name == "posix" and zmq.has("ipc") and len(named) <= zmq.IPC_PATH_MAX_LEN:
        manager.transport = "ipc"
        manager.connection_file = str(sockets)
    # Others on the same machine can read what goes over local ports; older jupyter_client cannot encrypt.
    elif zmq.has("curve") and manager.has_trait("transport_encryption"):
        manager.transport_encryption = "required"


def register() -> None:
    """Make the engine known to papermill."""
    papermill_engines.register(NAME, Engine)
