"""The host of a canonical URL: what buckets, politeness and mixing go by."""


def host(url: str) -> str:
    """The host name in an absolute http(s) URL of WHATWG form, without user and port; IPv6 keeps its brackets."""
    authority = url.split("/", 3)[2].rpartition("@")[2]
    name, colon, port = authority.rpartition(":")
    return name if colon and port.isdigit() else authority
