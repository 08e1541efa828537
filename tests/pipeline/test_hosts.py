"""What stands before the path of a URL, against ada, which reads the whole of it."""

import ada_url
import pytest

from pipeline import hosts, urls


@pytest.mark.parametrize(
    "given",
    [
        "http://example.org", "https://example.org:443/a:b@c", "http://e.org:8080/x?y=http://z:1/", "https://u:p@e.org:81/?", "http://[::1]/",
        "https://[2001:db8::1]:8443/a", "http://127.1:80/", "http://u@EXAMPLE.org/#f", "https://xn--bcher-kva.example:1/",
    ],
)  # fmt: skip
def test_host_port_and_origin_are_those_of_a_whole_parse(given: str) -> None:
    url = urls.canonical(given)
    assert url
    parts = ada_url.URL(url)
    assert hosts.host(url) == parts.hostname
    assert hosts.port(url) == int(parts.port or {"http:": 80, "https:": 443}[parts.protocol])
    assert hosts.origin(url) == parts.origin
