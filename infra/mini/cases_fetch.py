"""Cases that servers decide: robots.txt, names, addresses, statuses, redirects, headers, slow and endless answers."""

from itertools import pairwise

from infra.mini.plan import DEAD_ADDRESS, Plan, Route

PRIVATE = (
    "http://169.254.169.254/latest/meta-data/pic.png",
    "http://10.0.0.1/pic.png",
    "http://127.0.0.1:22/",
    "http://[::1]/pic.png",
    "http://192.168.1.1/pic.png",
    "http://0.0.0.0/pic.png",
)
OTHER_SCHEMES = ("file:///etc/passwd", "ftp://files.mini.test/pic.png", "javascript:alert(1)")


def _robots(plan: Plan, host: str, text: str, status: int = 200) -> str:
    full = plan.host(host)
    plan.routes[f"http://{full}/robots.txt"] = Route(body=text.encode(), status=status, media="text/plain")
    return full


def robots(plan: Plan) -> None:
    """What RFC 9309 forbids and allows."""
    bot, everyone, other = "User-agent: wit-bot\n", "User-agent: *\n", "User-agent: otherbot\n"
    hosts = {  # host -> (folder, ending to force or "", forbidden)
        _robots(plan, "forbidden", everyone + "Disallow: /\n"): ("pics", "", True),
        _robots(plan, "forbidden-named", bot + "Disallow: /\n\n" + everyone + "Allow: /\n"): ("pics", "", True),
        _robots(plan, "forbidden-path", everyone + "Disallow: /private/\n"): ("private", "", True),
        _robots(plan, "forbidden-ending", everyone + "Disallow: /*.gif$\n"): ("pics", "gif", True),
        _robots(plan, "robots-broken", "", 500): ("pics", "", True),
        _robots(plan, "robots-unavailable", "", 503): ("pics", "", True),
        _robots(plan, "allowed-path", everyone + "Disallow: /private/\n"): ("pics", "", False),
        _robots(plan, "allowed-other", other + "Disallow: /\n"): ("pics", "", False),
        _robots(plan, "allowed-longer", everyone + "Disallow: /pics/\nAllow: /pics/open/\n"): ("pics/open", "", False),
        _robots(plan, "allowed-named", everyone + "Disallow: /\n\n" + bot + "Disallow:\n"): ("pics", "", False),
        _robots(plan, "robots-missing", "", 404): ("pics", "", False),
        _robots(plan, "robots-refused", "", 403): ("pics", "", False),
    }
    for host, (folder, ending, forbidden) in hosts.items():
        for _ in range(plan.count(30 if forbidden else 14)):
            if forbidden:
                url = plan.url(ending or "png", host, folder)
                plan.lost(f"robots_{host.split('.')[0]}", "robots", url)
                plan.never.append(url)
            else:
                plan.good(f"robots_{host.split('.')[0]}", host=host, folder=folder)


def network(plan: Plan) -> None:
    """Names that do not resolve, addresses where nobody listens or that are not public, hosts that are slow."""
    for number in range(plan.count(80)):
        plan.lost("dns", "dns", plan.url("png", f"nowhere{number % 20}.mini.test"))
    for number in range(plan.count(18)):
        plan.lost("connect", "connect", plan.url("png", plan.host(f"dead{number % 6}", DEAD_ADDRESS)))
    for number in range(max(plan.count(60), len(PRIVATE))):
        url = PRIVATE[number % len(PRIVATE)]
        plan.lost("private_address", "address", url + (f"?{plan.number()}" if url != PRIVATE[2] else f"pic{plan.number()}.png"))
    for number, behavior in enumerate(("never", "drip") * (3 if plan.scale > 0.5 else 1)):
        url = plan.url("jpg", plan.host(f"stuck{number}"))
        plan.routes[url] = Route(behavior=behavior, media="image/jpeg")
        plan.lost(f"timeout_{behavior}", "timeout", url)
    for number in range(plan.count(12)):
        url = plan.url("jpg", plan.host(f"endless{number % 4}"))
        behavior = ("endless", "huge")[number % 2]
        plan.routes[url] = Route(behavior=behavior, media="image/jpeg")
        plan.lost(f"too_large_{behavior}", "too_large", url)
    for number in range(plan.count(40)):
        what, link = plan.good("slow", host=plan.host(f"slow{number % 8}"))
        plan.serve(link.url, what, behavior="slow")


def statuses(plan: Plan) -> None:
    """Errors that stay and errors that pass."""
    for number in range(plan.count(480)):
        url = plan.url("png")
        status = (404, 410, 403, 404, 401, 451)[number % 6]
        if number % 2 or status != 404:  # every other 404 is simply a URL that the server does not know
            plan.routes[url] = Route(body=b"<html>not here</html>", status=status, media="text/html")
        plan.lost(f"http_{status}", "http_4xx", url)
    for number in range(plan.count(40)):
        url = plan.url("png")
        plan.routes[url] = Route(status=(500, 502, 503)[number % 3], media="text/html", body=b"error")
        plan.lost("http_5xx", "http_5xx", url)
    for _ in range(plan.count(4)):
        url = plan.url("png")
        plan.routes[url] = Route(status=429, headers=(("Retry-After", "0"),), media="text/plain")
        plan.lost("http_429_always", "http_4xx", url)
    once = (("500", ""), ("503", "1"), ("429", "0"), ("429", "1"), ("502", ""))
    for number in range(max(plan.count(40), len(once))):
        status, wait = once[number % len(once)]
        what, link = plan.good(f"once_{status}")
        headers = (("Retry-After", wait),) if wait else ()
        plan.serve(link.url, what, behavior=f"once:{status}", headers=headers)


def _redirect(plan: Plan, url: str, target: str, status: int = 302) -> None:
    plan.routes[url] = Route(status=status, headers=(("Location", target),) if target else ())


def redirects(plan: Plan) -> None:
    """Redirects that arrive, that do not, and that lead where nobody may go."""
    for number in range(plan.count(150)):
        what, link = plan.good("redirect")
        status = (301, 302, 307, 303, 308)[number % 5]
        target, link.url = link.url, plan.url(what.suffix)
        host = link.url.split("/")[2]
        if number % 3 == 0:  # relative: the target moves to the link's own host
            plan.routes[f"http://{host}/moved/{number}.x"] = plan.routes.pop(target)
            target = (f"/moved/{number}.x", f"../moved/{number}.x")[number % 2]
        elif number % 3 == 1:  # over a second redirect
            middle = plan.url("x")
            _redirect(plan, middle, target, 301)
            target = middle
        _redirect(plan, link.url, target, status)
    for number in range(plan.count(36)):
        first, second = plan.url("png"), plan.url("png")
        _redirect(plan, first, first if number % 3 == 0 else second)
        _redirect(plan, second, first, 301)
        plan.lost("redirect_loop", "redirect", first)
    for _ in range(plan.count(18)):
        chain = [plan.url("png") for _ in range(9)]
        for url, target in pairwise(chain):
            _redirect(plan, url, target)
        plan.lost("redirect_chain", "redirect", chain[0])
    for _ in range(plan.count(8)):
        url = plan.url("png")
        _redirect(plan, url, "")
        plan.lost("redirect_nowhere", "redirect", url)
    targets = (*PRIVATE, *OTHER_SCHEMES)
    for number in range(max(plan.count(60), len(targets))):
        url = plan.url("png")
        _redirect(plan, url, targets[number % len(targets)], (301, 302, 307)[number % 3])
        plan.lost("redirect_private", "address", url)


def opt_outs(plan: Plan) -> None:
    """X-Robots-Tag: for us, for others, past and future."""
    refuse = (
        "noai", "noimageai", "noindex", "none", "noimageindex", "index, noai", "NoAI", "wit-bot: noimageai",
        "otherbot: all, wit-bot: noai", "unavailable_after: 25 Jun 2010 15:00:00 GMT", "noarchive, noindex",
    )  # fmt: skip
    allow = ("all", "noarchive", "otherbot: noai", "unavailable_after: 25 Jun 2099 15:00:00 GMT", "nosnippet, nofollow")
    for number in range(max(plan.count(160), len(refuse))):
        what, link = plan.good("opt_out")
        link.stage, link.reason, link.picture = "download", "opt_out", ""
        plan.kept[what.concept] -= 1
        plan.serve(link.url, what, headers=(("X-Robots-Tag", refuse[number % len(refuse)]),))
    for number in range(max(plan.count(60), len(allow))):
        what, link = plan.good("no_opt_out")
        plan.serve(link.url, what, headers=(("X-Robots-Tag", allow[number % len(allow)]),))
