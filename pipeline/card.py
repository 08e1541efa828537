"""The dataset card and its Croissant description, written beside the shards.

in      a root with finished shards
out     6_shards/README.md: what it is, the funnel, how it was made, how to read it, how to be taken out
        6_shards/croissant.json: Croissant 1.0 JSON-LD: each index and tar with its sha256, and one record set, of all indexes
        6_shards/sizes.json and NNNNN_stats.json: see sizes.py
law     every count is read from a manifest; no time of day: equal datasets give equal cards. Written again whenever the shards
        change; in no manifest, so that no hash depends on them
cost    350 bytes of croissant.json a file
source  MLCommons, "Croissant Format Specification" 1.0
"""

import json
from typing import Any

import pyarrow as pa

from pipeline import overlap, schema, sizes, storage
from pipeline.errors import InputError
from pipeline.manifest import Dataset, Manifest
from pipeline.report import FOLDERS, WHY

SHARDS = "6_shards"
INDEXES, PAIRS = "indexes", "pairs"  # names of the file set and the record set
FORMATS = {".parquet": "application/x-parquet", ".tar": "application/x-tar"}
CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet", "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated",
    "replace": "cr:replace", "samplingRate": "cr:samplingRate", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
MEANINGS = {
    "key": "name of the members in the tar", "url": "where the picture was", "caption": "its text, cleaned",
    "sha256": "of the picture as served", "page_url": "the page that showed it", "attribute": "where the text stood on the page",
    "archive": "the archive file with the page", "record_offset": "of the page's record in the archive, in bytes",
    "pair_id": "names the pair; a function of URL and text", "phash": "64-bit perceptual hash",
    "image_offset": "of the picture's bytes in the tar beside the index", "image_bytes": "of the picture in the tar",
}  # fmt: skip


def write(root: str) -> None:
    """Write the files. The dataset has the root's name."""
    manifests, name = {}, root.rstrip("/").rsplit("/", 1)[-1].strip(".") or "dataset"
    for folder in FOLDERS:
        try:
            manifests[folder] = Dataset(storage.join(root, folder)).manifest
        except InputError:
            if folder == SHARDS:
                raise
    folder = storage.join(root, SHARDS)
    storage.write(storage.join(folder, "README.md"), card(name, manifests, overlap.summary(root)).encode())
    storage.write(storage.join(folder, "croissant.json"), json.dumps(croissant(name, manifests[SHARDS]), indent=1).encode())
    sizes.write(Dataset(folder))


def croissant(name: str, manifest: Manifest) -> dict[str, Any]:
    """The JSON-LD of a dataset of shards."""
    files = [file for part in manifest.parts for file in part.files if not file.name.startswith("_")]
    objects = [
        {
            "@type": "cr:FileObject", "@id": file.name, "name": file.name, "contentUrl": file.name, "sha256": file.sha256,
            "contentSize": f"{file.num_bytes} B", "encodingFormat": FORMATS[file.name[file.name.rindex(".") :]],
        }
        for file in sorted(files, key=lambda file: file.name)
    ]  # fmt: skip
    indexes = {
        "@type": "cr:FileSet", "@id": INDEXES, "name": INDEXES, "includes": "[0-9]*.parquet",
        "encodingFormat": FORMATS[".parquet"],
        "description": "a row for each pair; beside NNNNN.parquet lies NNNNN.tar with the pictures",
    }  # fmt: skip
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": name,
        "description": f"{manifest.rows_out} pairs of an image and a text from the web, found by queries and balanced over them.",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "version": f"1.0.0+{manifest.hash[:12]}",
        "distribution": [*objects, indexes],
        "recordSet": [_record_set()],
    }


def _record_set() -> dict[str, Any]:
    """The rows of all indexes."""
    fields = []
    for field in schema.join(schema.SHARDS, schema.PLACE_FIELDS):
        is_list = pa.types.is_list(field.type)
        kind = "sc:Integer" if pa.types.is_integer(field.type.value_type if is_list else field.type) else "sc:Text"
        described = {
            "@type": "cr:Field", "@id": f"{PAIRS}/{field.name}", "name": field.name, "dataType": kind,
            "description": MEANINGS.get(field.name, field.name.replace("_", " ")),
            "source": {"fileSet": {"@id": INDEXES}, "extract": {"column": field.name}},
        }  # fmt: skip
        fields.append({**described, "repeated": True} if is_list else described)
    return {"@type": "cr:RecordSet", "@id": PAIRS, "name": PAIRS, "key": {"@id": f"{PAIRS}/pair_id"}, "field": fields}


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
        lines += [f"| {' | '.join(str(value).replace('|', '%7C') for value in row)} |" for row in sets.rows()]
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
