"""The dataset card and its Croissant description, written beside the shards.

in      a root with finished shards
out     6_shards/README.md: what it is, the funnel, how it was made, how to read it, how to be taken out
        6_shards/croissant.json: Croissant 1.0 JSON-LD: each index and tar with its sha256, and a record set of the index
law     every count is read from a manifest; no time of day: equal datasets give equal cards
source  MLCommons, "Croissant Format Specification" 1.0
"""

import json
from typing import Any

import pyarrow as pa

from pipeline import overlap, schema, storage
from pipeline.errors import InputError
from pipeline.manifest import Dataset, Manifest
from pipeline.report import FOLDERS, WHY

SHARDS = "6_shards"
CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source",
    "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
MEANINGS = {
    "key": "name of the members in the tar", "url": "where the picture was", "caption": "its text, cleaned",
    "sha256": "of the picture as served", "page_url": "the page that showed it", "attribute": "where the text stood on the page",
    "archive": "the archive file with the page", "record_offset": "of the page's record in the archive, in bytes",
    "pair_id": "names the pair; a function of URL and text", "phash": "64-bit perceptual hash",
    "image_offset": "of the picture's bytes in the tar beside the index", "image_bytes": "of the picture in the tar",
}  # fmt: skip


def write(root: str, name: str) -> list[str]:
    """Write both files; their paths. `name`: of the dataset."""
    manifests = {}
    for folder in FOLDERS:
        try:
            manifests[folder] = Dataset(storage.join(root, folder)).manifest
        except InputError:
            if folder == SHARDS:
                raise
    paths = [storage.join(root, SHARDS, file) for file in ("README.md", "croissant.json")]
    storage.write(paths[0], card(name, manifests, overlap.summary(root)).encode())
    storage.write(paths[1], json.dumps(croissant(name, manifests[SHARDS]), indent=1).encode())
    return paths


def croissant(name: str, manifest: Manifest) -> dict[str, Any]:
    """The JSON-LD of a dataset of shards."""
    files = [file for part in manifest.parts for file in part.files if not file.name.startswith("_")]
    kinds = {".parquet": "application/x-parquet", ".tar": "application/x-tar"}
    objects = [
        {
            "@type": "cr:FileObject", "@id": file.name, "name": file.name, "contentUrl": file.name, "sha256": file.sha256,
            "contentSize": f"{file.num_bytes} B", "encodingFormat": kinds[file.name[file.name.rindex(".") :]],
        }
        for file in sorted(files, key=lambda file: file.name)
    ]  # fmt: skip
    indexes = [item["@id"] for item in objects if item["@id"].endswith(".parquet")]
    records = [_record_set(index) for index in indexes]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": f"{manifest.rows_out} pairs of an image and a text from the web, found by queries and balanced over them.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": f"1.0.0+{manifest.hash[:12]}",
        "distribution": objects,
        "recordSet": records,
    }


def _record_set(index: str) -> dict[str, Any]:
    """The rows of one shard's index."""
    stem = index.removesuffix(".parquet")
    fields = []
    for field in schema.join(schema.SHARDS, schema.PLACE_FIELDS):
        is_list = pa.types.is_list(field.type)
        kind = "sc:Integer" if pa.types.is_integer(field.type.value_type if is_list else field.type) else "sc:Text"
        described = {
            "@type": "cr:Field", "@id": f"{stem}/{field.name}", "name": field.name, "dataType": kind,
            "description": MEANINGS.get(field.name, field.name.replace("_", " ")),
            "source": {"fileObject": {"@id": index}, "extract": {"column": field.name}},
        }  # fmt: skip
        fields.append({**described, "repeated": True} if is_list else described)
    return {"@type": "cr:RecordSet", "@id": stem, "name": stem, "field": fields}


def card(name: str, manifests: dict[str, Manifest], sets: Any) -> str:
    """The card in Markdown. `sets`: overlap.summary, or None."""
    shards = manifests[SHARDS]
    files = [file for part in shards.parts for file in part.files if file.name.endswith(".tar")]
    lines = [
        f"# {name}", "",
        f"{shards.rows_out:,} pairs of an image and a text, in {len(files):,} WebDataset shards of "
        f"{sum(file.num_bytes for file in files):,} bytes; hash `{shards.hash}`.", "",
        "## Where they come from", "",
        "| folder | what is done | rows in | rows out | dropped |", "| --- | --- | ---: | ---: | --- |",
    ]  # fmt: skip
    for folder, manifest in manifests.items():
        drops = ", ".join(f"{reason} {count:,} ({WHY.get(reason, 'see the stage')})" for reason, count in manifest.drops.items())
        lines.append(f"| {folder} | {FOLDERS[folder]} | {manifest.rows_in:,} | {manifest.rows_out:,} | {drops} |")
    if sets is not None:
        lines += ["", "## Evaluation sets whose near copies were left out", ""]
        lines += [
            "| set | pictures | unreadable | found | pairs that left | of them mirrored |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        lines += [f"| {' | '.join(str(value) for value in row)} |" for row in sets.rows()]
    lines += ["", "## What it was made with", ""]
    for folder, manifest in manifests.items():
        config = json.dumps(manifest.fingerprint.get("config", {}), sort_keys=True)
        lines.append(f"* {folder}: {manifest.stage} version {manifest.fingerprint.get('version')}, `{config}`")
    lines += [
        "", "## Reading, rights, removal", "",
        "Each `NNNNN.tar` holds `key.jpg`, `key.txt`, `key.json`; `NNNNN.parquet` beside it has a row a pair, with the place of "
        "the picture in the tar. `croissant.json` describes both. Pictures and texts belong to their owners and come from the "
        "public web, machine-selected and not looked at by a person: expect errors, bias and offence. To be taken out, send "
        "the URL, the domain or the pair_id to who gave you this dataset, who runs `jobs/remove.py`.", "",
    ]  # fmt: skip
    return "\n".join(lines)
