"""A running server: its socket, its thread, and a graceful stop."""

import errno
import math
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.routing import BaseRoute

from scanseg.errors import ScansegError, UsageError
from scanseg.inference import Predictor
from scanseg.serving.app import make_app
from scanseg.serving.jobs import JobQueue, wait_until
from scanseg.serving.limits import Limits
from scanseg.serving.security import LOOPBACK_NAMES, START_PATH, Access
from scanseg.serving.segmenting import segment_job
from scanseg.serving.viewer import Viewer

_MOST_CONNECTIONS = 500
_START_SECONDS = 30.0
_SECONDS_OF_RESPONSES = 5


class Server:
    """A server in threads of this process.

    As a context, it runs in the block and stops at its end.

    Args:
        models: The models by name.
        host: Address to listen on.
        port: Port, or 0 for a free one.
        token: Token that clients send. Required if the address is not of this machine alone.
        limits: Sizes, times and places in the queue.
        make_routes: Function of the queue that returns further routes.
        grace_seconds: Longest time for the running job after the request to stop.

    Raises:
        UsageError: The address needs a token.
        ScansegError: The port cannot be used.
    """

    def __init__(
        self,
        models: Mapping[str, Predictor],
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        token: str | None = None,
        limits: Limits | None = None,
        make_routes: "Callable[[JobQueue], Sequence[BaseRoute]] | None" = None,
        grace_seconds: float = 30.0,
    ) -> None:
        is_local = host in LOOPBACK_NAMES
        if not is_local and not token:
            raise UsageError(
                f"--host {host}: expected a token for an address that other machines reach, got none. Set "
                "SCANSEG_TOKEN or pass --token-file."
            )
        self._socket = listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        """Port that the server listens on."""
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        """Address for clients."""
        self.page = f"{self.url}/docs"
        """Address for a browser."""
        self._grace_seconds, self._is_stopped = grace_seconds, False
        limits = limits or Limits()
        self._folder = Path(tempfile.mkdtemp(prefix="scanseg-serve-"))
        self._jobs = JobQueue(self._folder, partial(segment_job, models=models, limits=limits), limits)
        access = Access(token, LOOPBACK_NAMES if is_local else None)
        routes = () if make_routes is None else make_routes(self._jobs)
        self.app = make_app(models, self._jobs, access, routes=routes)
        """The web application."""
        config = uvicorn.Config(
            self.app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_SECONDS_OF_RESPONSES,
        )
        self._server = uvicorn.Server(config)
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="scanseg-server", daemon=True)

    def __enter__(self) -> Self:
        """Start the server."""
        self._thread.start()
        try:
            wait_until(lambda: self._server.started or self._has_ended, seconds=_START_SECONDS)
        except BaseException:  # an interrupt
            self.stop()
            raise
        if not self._server.started:
            self.stop()
            raise ScansegError(f"{self.url}: the server did not start. Try again, or choose another port.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()

    def wait(self) -> None:
        """Wait until the server ends."""
        wait_until(lambda: self._has_ended, seconds=math.inf)

    def _run(self) -> None:
        """Run in the thread of the server."""
        try:
            self._server.run([self._socket])
        finally:
            self._has_ended = True

    def stop(self) -> None:
        """Stop gracefully.

        New jobs are refused and waiting ones are cancelled. The running job may finish within the grace time, and its
        client may fetch the result. All files are removed.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        try:
            self._jobs.close(grace_seconds=self._grace_seconds)
        except BaseException:  # a second interrupt
            self._jobs.close(grace_seconds=0.0)
            raise
        finally:
            self._server.should_exit = True
            if self._thread.ident is not None:
                wait_until(lambda: self._has_ended, seconds=2 * _SECONDS_OF_RESPONSES)
            self._socket.close()
            shutil.rmtree(self._folder, ignore_errors=True)


def serve_page(viewer: Viewer, models: Mapping[str, Predictor], *, port: int = 0) -> Server:
    """Return the loopback server of a viewer, with a random token.

    Args:
        viewer: The viewer.
        models: Its models.
        port: Port, or 0 for a free one.

    Raises:
        ScansegError: The port cannot be used.
    """
    token = secrets.token_urlsafe(24)
    limits = Limits(queue_size=2, voxels=2**31)
    server = Server(
        models, port=port, token=token, limits=limits, make_routes=viewer.make_routes, grace_seconds=0.0
    )
    server.page = f"{server.url}{START_PATH}?token={token}"
    return server


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port.

    Args:
        host: Address of this machine.
        port: Port, or 0 for a free one.

    Raises:
        ScansegError: The port is taken or not allowed, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere, the option would let two servers share the port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(128)
    except (OSError, OverflowError) as error:
        opened.close()
        raise ScansegError(f"{host}:{port}: {_explain(error)}") from error
    return opened


def _explain(error: OSError | OverflowError) -> str:
    """Return the reason why a port cannot be used, with advice."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return "expected a free port, but another program uses it. Choose another by --port, or 0 for any."
    if number == errno.EACCES:
        return "expected a port that this user may open, got another. Choose one above 1023 by --port."
    if isinstance(error, OverflowError):
        return "expected a port from 0 to 65535. Choose another one by --port."
    return f"expected an address of this machine, got another ({error}). Choose another one by --host."
