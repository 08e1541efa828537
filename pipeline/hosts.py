"""What stands before the path of a canonical URL: what buckets, politeness and mixing go by.

in      absolute http(s) URLs of WHATWG form
"""


def _authority(url: str) -> str:
    return url.split("/", 3)[2].rpartition("@")[2]


def _cut(url: str) -> tuple[str, str]:
    """Host and port, each as it is written; a default port is not."""
    authority = _authority(url)
    name, colon, port = authority.rpartition(":")
    return (name, port) if colon and port.isdigit() else (authority, "")


def host(url: str) -> str:
    """The host name, without user and port; IPv6 keeps its brackets."""
    return _cut(url)[0]


def port(url: str) -> int:
    """The port that is meant."""
    return int(_cut(url)[1] or (443 if url.startswith("https:") else 80))


def origin(url: str) -> str:
    """Scheme, host and port as they are written: what one robots.txt speaks for."""
    return f"{url.partition('/')[0]}//{_authority(url)}"
