"""Groups: the pairs that showed one picture, for one pair, out of the edges that dedupe wrote.

in      5_unique/_edges; a pair's id and the sha256 of its picture
out     the members of its group, the one that stays first; why the pair left
law     group, first member and reason are dedupe.Groups' and dedupe's, which hold every group in memory
cost    two columns of all edges for each step away from the pair; groups are a few steps wide
"""

from pipeline.dedupe import DUPLICATE, NEAR_DUPLICATE, PLACEHOLDER
from pipeline.lookup import Row, find
from pipeline.manifest import Dataset

MEMBER = ("pair_id", "sha256", "text_rank")


def group(edges: Dataset | None, pair_id: str) -> list[Row]:
    """The members of a pair's group with the columns MEMBER, the best first; none where it is alone."""
    members: dict[str, Row] = {}
    asked: set[str] = set()
    new = {pair_id}
    while new:
        found = [*find(edges, "pair_id", new), *find(edges, "other_id", new)]
        linked = [row for row in found if row["other_id"] is not None]
        members |= {row["pair_id"]: {name: row[name] for name in MEMBER} for row in linked}
        asked |= new
        new = {row[name] for row in linked for name in ("pair_id", "other_id")} - asked
    return sorted(members.values(), key=lambda member: (-member["text_rank"], member["pair_id"]))


def reason(edges: Dataset | None, pair_id: str, sha256: str, members: list[Row]) -> str | None:
    """Why the pair is not among the unique ones, as far as edges say."""
    if any(row["other_id"] is None for row in find(edges, "sha256", {sha256})):
        return PLACEHOLDER
    if not members or members[0]["pair_id"] == pair_id:
        return None
    return DUPLICATE if members[0]["sha256"] == sha256 else NEAR_DUPLICATE
