"""What the failures of a download say together: the one line that names a systematic trouble and what to do.

in      rows in and drops by reason of the images' manifest
out     a line for each class of failure that is more frequent than a healthy crawl has it, most frequent first
law     a function of counts that a manifest holds: the job that downloads and the report say the same
source  users of img2dataset with success rates of 1% to 15%: nearly always the resolver, and nobody told them; DESIGN.md

A class is systematic when it took a larger share of all URLs than USUAL has for it. The shares are what lists of pictures lose
by age and by their owners' wishes, rounded up: link rot alone takes 10 to 30% of a list that is some years old.
"""

from collections.abc import Mapping

from pipeline import retries

MIN_ROWS = 200  # of fewer, shares say nothing
USUAL = {  # share of URLs that a healthy crawl may lose, and what to do where it is more
    "dns": (
        0.10,
        "names do not resolve: run a caching resolver (unbound, knot-resolver) on every node and name it in /etc/resolv.conf, or "
        "lower --download.concurrency",
    ),
    "connect": (
        0.10,
        "servers cannot be reached: look for a firewall, a full NAT table or too few local ports, or lower "
        "--download.concurrency",
    ),
    "tls": (
        0.05,
        "certificates are not trusted: check the clock and the certificate authorities of every node (package "
        "ca-certificates), and for a proxy that opens TLS",
    ),
    "timeout": (
        0.10,
        "answers come too slowly: the network of a node is probably full; lower --download.concurrency or use more, smaller "
        "nodes",
    ),
    "http_4xx": (
        0.50,
        "servers refuse or have nothing there: the list is old, or hosts block this crawler; look at the samples in "
        "4_images/_dropped",
    ),
    "http_5xx": (
        0.10,
        "servers fail or are overloaded: raise --download.host-delay-seconds, lower --download.concurrency-per-host",
    ),
    "robots": (
        0.40,
        "robots.txt forbids them: their owners' decision; look at the samples for hosts that shut out this user agent alone",
    ),
    "opt_out": (0.30, "their owners opt out of such use: their decision"),
    "address": (
        0.02,
        "names lead to private addresses: a resolver that blocks or splits its answers (a filter, a captive portal, a company's "
        "own zone); use another one",
    ),
    "redirect": (0.10, "redirects lead nowhere: perhaps a portal that wants a login; look at the samples in 4_images/_dropped"),
    "too_large": (0.10, "bodies are over --download.max-image-bytes: raise it where memory allows (needs a new --root)"),
    "not_an_image": (
        0.20,
        "bodies are pages, not pictures: hosts that answer with an error page, or a proxy or portal in between; look at the "
        "samples in 4_images/_dropped",
    ),
    "decode": (0.10, "pictures arrive broken: look at the samples in 4_images/_dropped, and at proxies that alter bodies"),
}
NAMES = {"dns": "DNS", "tls": "TLS", "http_4xx": "HTTP 4xx", "http_5xx": "HTTP 5xx"}


def diagnose(rows_in: int, drops: Mapping[str, int]) -> list[str]:
    """A sentence for each systematic class; none where the losses are ordinary."""
    failures = sum(drops.values())
    found = []
    for reason, count in sorted(drops.items(), key=lambda item: (-item[1], item[0])):
        usual, advice = USUAL.get(reason, (1.0, ""))
        if rows_in >= MIN_ROWS and count > usual * rows_in:
            name = NAMES.get(reason, reason)
            again = "; then run again with --retry-failed" if retries.POLICIES[reason].later else ""
            shares = f"{count / failures:.0%} of {failures:,} failures are {name} ({count / rows_in:.0%} of URLs)"
            found.append(f"{shares}: {advice}{again}")
    return found
