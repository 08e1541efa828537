"""The server, asked over real connections."""

import http.client
import json
import socket
import time

import polars as pl
import pytest

from infra.mini.server import STATS_URL, serving


@pytest.fixture(scope="module")
def port(mini_web):
    with serving(str(mini_web)) as port:
        yield port


def ask(port, url, timeout=5.0):
    """Status, headers and body of one GET, redirects not followed."""
    _, _, host, path = url.split("/", 3)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", f"/{path}", headers={"Host": host})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def first(truth, kind):
    return truth.filter(pl.col("kind") == kind)["image_url"][0]


def test_a_kept_picture_comes_with_its_type(port, truth):
    for url, sha256 in truth.filter(pl.col("kind") == "head").select("image_url", "sha256").head(5).iter_rows():
        status, headers, body = ask(port, url)
        assert status == 200
        assert headers["Content-Type"].startswith("image/")
        assert int(headers["Content-Length"]) == len(body)
        assert len(sha256) == 64


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_an_error_that_passes_is_gone_the_second_time(port, truth, status):
    url = first(truth, f"once_{status}")
    refused, headers, _ = ask(port, url)
    assert refused == status
    assert ("Retry-After" in headers) == (status in (429, 503))
    status, headers, body = ask(port, url)
    assert status == 200
    assert "Retry-After" not in headers
    assert headers["Content-Type"].startswith("image/")
    assert body


def test_redirects_arrive_and_loops_do_not(port, truth):
    for kind, arrives in (("redirect", True), ("redirect_loop", False), ("redirect_chain", False)):
        url, statuses = first(truth, kind), []
        for _ in range(6):
            status, headers, _ = ask(port, url)
            statuses.append(status)
            if status == 200:
                break
            location = headers["Location"]
            host = url.split("/")[2]
            url = f"http://{host}/{location.lstrip('./')}" if not location.startswith("http") else location
        assert (statuses[-1] == 200) == arrives
        assert all(300 < status < 400 for status in statuses[:-1])


def test_every_promised_error_is_answered(port, truth):
    rows = truth.filter(pl.col("reason").is_in(["http_4xx", "http_5xx"]))
    for url, reason in rows.select("image_url", "reason").iter_rows():
        assert ask(port, url)[0] // 100 == int(reason[5])


def test_robots_files_say_what_the_truth_says(port):
    assert ask(port, "http://forbidden.mini.test/robots.txt")[2] == b"User-agent: *\nDisallow: /\n"
    assert ask(port, "http://robots-broken.mini.test/robots.txt")[0] == 500
    assert ask(port, "http://robots-missing.mini.test/robots.txt")[0] == 404
    assert ask(port, "http://garden1.mini.test/robots.txt")[0] == 404


def test_opt_outs_are_in_the_header(port, truth):
    for kind in ("opt_out", "no_opt_out"):
        for url in truth.filter(pl.col("kind") == kind)["image_url"]:
            status, headers, _ = ask(port, url)
            assert status == 200
            assert headers["X-Robots-Tag"]


def test_a_silent_host_says_nothing_and_a_dripping_one_little(port, truth):
    with pytest.raises(TimeoutError):
        ask(port, first(truth, "timeout_never"), timeout=0.5)
    _, _, host, path = first(truth, "timeout_drip").split("/", 3)
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        started, received = time.monotonic(), 0
        while time.monotonic() - started < 1.0:
            received += len(connection.recv(4096))
    assert 0 < received < 1000


def test_an_endless_body_goes_on_fast(port, truth):
    url = first(truth, "too_large_endless")
    _, _, host, path = url.split("/", 3)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        received = 0
        while received < 3_000_000:
            received += len(connection.recv(65_536))


def test_requests_are_counted_by_url(port):
    url = "http://garden1.mini.test/counted.png"
    for _ in range(3):
        assert ask(port, url)[0] == 404
    counts = json.loads(ask(port, STATS_URL)[2])
    assert counts[url] == 3
    assert "http://garden1.mini.test/never.png" not in counts


def test_one_connection_serves_several_hosts(port, truth):
    urls = truth.filter(pl.col("kind") == "head")["image_url"].head(8)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    for url in urls:
        _, _, host, path = url.split("/", 3)
        connection.request("GET", f"/{path}", headers={"Host": f"{host}:{port}"})
        response = connection.getresponse()
        assert response.status == 200
        assert response.read()
    connection.close()


def test_the_hosts_file_has_every_host_but_the_unknown_ones(mini_web, truth):
    lines = [line.split() for line in (mini_web / "hosts").read_text().splitlines() if not line.startswith("#")]
    names = {name: address for address, name in lines}
    for url, reason in truth.filter(~pl.col("stage").is_in(["crawl", "match"])).select("image_url", "reason").iter_rows():
        host = url.split("/")[2]
        if reason == "dns":
            assert host not in names
        elif reason == "connect":
            assert names[host] == "127.0.0.9"
        elif host.endswith(".mini.test"):
            assert names[host] == "127.0.0.1"
