"""The report over HTTP: that and nothing else of the study, to this machine alone."""

import http.client
import threading
from contextlib import contextmanager

import pytest

from voxloss.report.page.server import report_server
from voxloss.utilities.errors import InputError


@pytest.fixture
def study(tmp_path):
    folder = tmp_path / "study"
    for name in ("report/index.html", "report/tables/a.csv", "scores.csv", "study.yaml", "runs/x/checkpoint.pt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "secret").write_text("secret")
    (folder / "report" / "link").symlink_to(tmp_path / "secret")
    return folder


@contextmanager
def served(study):
    with report_server(study) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def get(server, path, host=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request(method, path, headers={"Host": host} if host else {})
    response = connection.getresponse()
    return response.status, response.read().decode(), response


def test_the_report_is_served(study):
    with served(study) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert get(server, "/report/index.html")[:2] == (200, "report/index.html")
        assert get(server, "/report/tables/a.csv?x=1")[:2] == (200, "report/tables/a.csv")
        status, _, response = get(server, "/")
        assert status == 302 and response.getheader("Location") == "/report/index.html"
        assert get(server, "/report/index.html", method="HEAD")[:2] == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        "/study.yaml", "/scores.csv", "/runs/x/checkpoint.pt", "/report/tables/", "/report/../study.yaml",
        "/report/%2e%2e/study.yaml",
        "/report/link", "/../secret", "/nowhere", "/report/%00", "//report/nothing",
    ],
)  # fmt: skip
def test_nothing_else_is(study, path):
    with served(study) as server:
        status, body, _ = get(server, path)
        assert status in (400, 404) and "study.yaml" != body != "secret"


def test_another_sites_name_gets_nothing(study):
    with served(study) as server:
        assert get(server, "/report/index.html", host=f"evil.example:{server.server_port}")[0] == 403
        assert get(server, "/report/index.html", host=f"localhost:{server.server_port}")[0] == 200


def test_a_port_in_use_is_named(study):
    with served(study) as server, pytest.raises(InputError, match=rf"--port {server.server_port} cannot be used"):  # noqa: SIM117
        with report_server(study, server.server_port):
            pass
