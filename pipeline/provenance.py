"""Provenance: the record of an archive that a pair comes from, read again.

in      a row of candidates and the format of its archive; the archive, hostile
out     what the record says: the page, its base, and the image link with its texts as written
law     never raises for what an archive holds or lacks: what cannot be read is told in words
cost    one record of an archive, read from its place on; the whole of an HTML file
"""

from typing import Any

from pipeline import archives, links, responses, urls, wat
from pipeline.errors import InputError
from pipeline.pages import Link

MAX_HEAD_CHARS = 400  # of a record's block, that are shown


def record(row: dict[str, Any], kind: str) -> dict[str, Any]:
    """The record of a row with archive, record_offset, link_index and image_url; `unreadable` says why there is none."""
    try:
        found = _record(row["archive"], row["record_offset"], kind)
    except InputError as error:
        return {"unreadable": str(error)}
    if found is None:
        return {"unreadable": f"the record at byte {row['record_offset']} of {row['archive']} is none with image links"}
    page, links_there, block = found
    told = {
        "page_url": page.url, "base": page.base, "num_links": len(links_there), "record_bytes": len(block),
        "starts_with": block[:MAX_HEAD_CHARS].decode("utf-8", "replace"),
    }  # fmt: skip
    if not 0 <= row["link_index"] < len(links_there):
        return told | {"unreadable": f"it has {len(links_there)} image links, none of number {row['link_index']}"}
    link = links_there[row["link_index"]]
    is_same = urls.canonical(link.url, urls.canonical(page.base)) == row["image_url"]
    return told | {"url_as_written": link.url, "texts_as_written": dict(link.texts), "is_the_same_url": is_same}


def _record(archive: str, offset: int, kind: str) -> tuple[links.Page, list[Link], bytes] | None:
    """The page of a record, its image links and the record's bytes; None where it has none."""
    if kind == "html":
        html = archives.read_html(archive)
        return (*links.in_file(archive, html), html)
    found = archives.read_record(archive, offset, kind)
    if found is None:
        return None
    if kind == "wat":
        read = wat.links(found.block)
        return (
            None
            if read is None
            else (links.Page(found.target, urls.base_url(found.target, read[0]), offset), read[1], found.block)
        )
    page = responses.page(found.block)
    return None if page is None else (*links.in_response(found.target, offset, page), found.block)
