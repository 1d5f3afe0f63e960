"""Serve a study's report over HTTP to the browser of this machine only."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from voxloss.utilities.errors import InputError

LOOPBACK = "127.0.0.1"


class ReportServer(ThreadingHTTPServer):
    """A server of STUDY/report and nothing else of the study."""

    daemon_threads = True

    def __init__(self, study: Path, port: int) -> None:
        self.study = study.resolve()
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def named_port(self) -> tuple[str, ...]:
        """Return how a browser names the port after the host; it omits HTTP's default port."""
        return (f":{self.server_port}", "") if self.server_port == 80 else (f":{self.server_port}",)

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{LOOPBACK}:{self.server_port}/report/index.html"


class _Handler(SimpleHTTPRequestHandler):
    server: ReportServer

    def __init__(self, request: Any, client_address: Any, server: ReportServer) -> None:  # as the base class passes on
        super().__init__(request, client_address, server, directory=str(server.study))

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        # Another site's name that points to this address must not read the report (DNS rebinding).
        if self.headers.get("Host", "") not in {
            f"{name}{port}" for name in (LOOPBACK, "localhost") for port in self.server.named_port
        }:
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        if urlsplit(self.path).path in ("/", "/report", "/report/"):
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", "/report/index.html")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        try:
            path = Path(self.translate_path(self.path)).resolve()
        except ValueError:  # a null byte
            path = Path()
        if not path.is_relative_to(self.server.study / "report") or not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")  # a report that was built again is shown
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing: a line per request would hide the address."""


@contextmanager
def report_server(study: Path, port: int = 0) -> Iterator[ReportServer]:
    """Serve the study's report on a port of the loopback address (0: a free one), until the end of the block.

    Raises:
        InputError: The port cannot be had.
    """
    try:
        server = ReportServer(study, port)
    except (OSError, OverflowError) as error:
        raise InputError(f"--port {port} cannot be used: {getattr(error, 'strerror', None) or error}.") from None
    try:
        yield server
    finally:
        server.server_close()
