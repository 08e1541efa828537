"""Site: what the server serves, in two files.

out     site/bodies.bin: all bodies end to end; site/routes.json: URL -> status, media type, headers, behaviour and the
        place of its body; hosts: the names that resolve, in the format of hosts(5)
"""

import json
import os
from typing import Any

from infra.mini.distinct import Made
from infra.mini.plan import Plan, Route

TRUNCATED = 0.6  # of the bytes are left


def body_of(route: Route, made: dict[str, Made]) -> bytes:
    """The bytes that a route serves."""
    data = made[route.picture].data if route.picture else route.body
    return data[: int(len(data) * TRUNCATED)] if route.behavior == "truncated" else data


def write(plan: Plan, made: dict[str, Made], folder: str) -> None:
    """Write the bodies, the routes and the hosts file."""
    os.makedirs(os.path.join(folder, "site"), exist_ok=True)
    routes: dict[str, Any] = {}
    places: dict[bytes, int] = {}
    with open(os.path.join(folder, "site", "bodies.bin"), "wb") as file:
        for url, route in plan.routes.items():
            body = body_of(route, made)
            if body not in places:
                places[body] = file.tell()
                file.write(body)
            behavior = "" if route.behavior == "truncated" else route.behavior
            routes[url] = [route.status, route.media, dict(route.headers), behavior, places[body], len(body)]
    with open(os.path.join(folder, "site", "routes.json"), "w", encoding="utf-8") as file:
        json.dump(routes, file, separators=(",", ":"))
    plan.host("stats")
    with open(os.path.join(folder, "hosts"), "w", encoding="utf-8") as file:
        file.write("# the only names that the mini recipe resolves\n")
        file.writelines(f"{address} {name}\n" for name, address in sorted(plan.hosts.items()))
