"""The download by img2dataset's own code: its fetcher, resizer and writer, the result in our columns.

in      balanced, as for our own fetcher; an interpreter that has img2dataset (its pins differ from ours, so it has a process
        and an environment of its own)
out     images: the JPEG that img2dataset wrote, byte for byte; phash and colors are ours, sha256 and original sizes its own
drops   its messages, mapped to the classes of download.DROPS; what it fetched and could not decode is `decode`
law     what robots.txt forbids and what is at no public address is not handed to it; what it does then is its own: redirects
        are followed wherever they lead, a body has no limit, a time-out is one of each socket operation, there is no limit for
        a host and no Retry-After. Use it to compare, not to crawl
source  img2dataset 1.47.0
"""

import asyncio
import json
import os
import re
import ssl
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import answers, fetch, foreign_tars, hosts, robots, schema
from pipeline.config import DownloadConfig
from pipeline.decoders import Decoders
from pipeline.errors import InputError
from pipeline.foreign_tars import Row

PEER = "img2dataset==1.47.0"
CODE = """
import json, sys
from img2dataset import download
if __name__ == "__main__":
    download(**json.loads(sys.argv[1]))
"""
STATUS = re.compile(r"HTTP Error (\d{3})")
MESSAGES = (  # what img2dataset's message holds, and which class that is; the first that fits
    ("X-Robots-Tag", answers.OPT_OUT),
    ("redirect error", answers.REDIRECT),
    ("too small", "too_small"),
    ("area too large", "bomb"),
    ("aspect ratio", "aspect"),
    ("Image decoding error", "decode"),
    ("timed out", answers.TIMEOUT),
    ("name resolution", answers.DNS),
    ("Name or service not known", answers.DNS),
    ("No address associated", answers.DNS),
    ("nodename nor servname", answers.DNS),
    ("SSL", answers.TLS),
    ("CERTIFICATE", answers.TLS),
    ("certificate", answers.TLS),
)


def check(config: DownloadConfig) -> None:
    """InputError unless the engine that is asked for can be run."""
    if config.engine != "img2dataset":
        return
    hint = (
        f"img2dataset's pins differ from ours; make an environment for it (python3 -m venv peer && peer/bin/pip install {PEER} "
        "'setuptools<81') on every node and give --download.img2dataset-python peer/bin/python"
    )
    if not config.img2dataset_python:
        raise InputError(f"download: engine img2dataset needs an interpreter that has it, found none given; {hint}")
    try:
        found = subprocess.run(
            [config.img2dataset_python, "-c", "import img2dataset"], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise InputError(f"download: cannot run {config.img2dataset_python}: {error.strerror}; {hint}") from error
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise InputError(f"download: {config.img2dataset_python} cannot import img2dataset ({last}); {hint}")


def reason_of(status: str, message: str) -> tuple[str, int]:
    """Our class and the HTTP status of what img2dataset says of a row that did not succeed."""
    for words, reason in MESSAGES:
        if words in message:
            return reason, 0
    if found := STATUS.search(message):
        number = int(found[1])
        return {4: answers.HTTP_4XX, 5: answers.HTTP_5XX}.get(number // 100, answers.REDIRECT), number
    return ("decode" if status == "failed_to_resize" else answers.CONNECT), 0


class Engine:
    """Runs parts through img2dataset."""

    def __init__(self, config: DownloadConfig, tls: ssl.SSLContext):
        check(config)
        self.config, self.tls = config, tls
        self.decoders = Decoders(replace(config, resize_mode="no", min_image_size=1, max_aspect_ratio=1e9))
        weakref.finalize(self, self.decoders.close)

    def __call__(self, pairs: pa.Table) -> pa.Table:
        """The labelled rows of a part."""
        urls = list(dict.fromkeys(pairs["image_url"].to_pylist()))
        fates = asyncio.run(self.refused(urls))
        with tempfile.TemporaryDirectory(prefix="wit-img2dataset-") as folder:
            fates |= self.run([url for url in urls if url not in fates], folder)
        rows = []
        for pair in pairs.to_pylist():
            fate = fates[pair["image_url"]]
            known = {name: fate.get(name) for name in (*schema.IMAGE_FIELDS.names, "image", "http_status", "drop")}
            rows.append({**pair, **known, "key": None if fate["drop"] else pair["pair_id"]})
        columns = [*schema.IMAGES, schema.IMAGE, schema.HTTP_STATUS, schema.DROP]
        return pa.Table.from_pylist(rows, pa.schema(columns))

    async def refused(self, urls: Sequence[str]) -> dict[str, Row]:
        """The URLs that it is not given, with the reason: the address or robots.txt."""
        fates: dict[str, Row] = {}
        async with fetch.Client(self.config, self.tls) as client:

            async def ask(url: str) -> None:
                try:
                    await client.resolver.lookup(hosts.host(url), hosts.port(url))
                    if self.config.robots and not await client.robots.allowed(url):
                        raise answers.Failed(answers.ROBOTS)
                except answers.Failed as failure:
                    fates[url] = {"drop": failure.reason, "http_status": failure.status or None}
                except OSError as error:
                    fates[url] = {"drop": answers.reason_of(error)}

            limit = asyncio.Semaphore(self.config.concurrency)

            async def one(url: str) -> None:
                async with limit:
                    await ask(url)

            await asyncio.gather(*(one(url) for url in urls))
        return fates

    def run(self, urls: Sequence[str], folder: str) -> dict[str, Row]:
        """What img2dataset makes of the URLs, one shard in `folder`."""
        if not urls:
            return {}
        pq.write_table(pa.table({"url": urls, "number": list(range(len(urls)))}), os.path.join(folder, "list.parquet"))
        config, out = self.config, os.path.join(folder, "out")
        options = {
            "url_list": os.path.join(folder, "list.parquet"), "input_format": "parquet", "url_col": "url", "output_folder": out,
            "output_format": "webdataset", "save_additional_columns": ["number"], "number_sample_per_shard": len(urls),
            "processes_count": 1, "thread_count": min(config.concurrency, len(urls)), "retries": config.max_retries,
            "timeout": max(1, round(config.connect_timeout_seconds)), "image_size": config.image_size,
            "resize_mode": config.resize_mode, "resize_only_if_bigger": config.resize_only_if_bigger,
            "encode_quality": config.encode_quality, "min_image_size": config.min_image_size,
            "max_aspect_ratio": config.max_aspect_ratio, "max_image_area": config.max_image_pixels, "extract_exif": False,
            "user_agent_token": robots.product_token(config.user_agent), "enable_wandb": False,
            "disallowed_header_directives": list(config.disallowed_directives),
        }  # fmt: skip
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": ""}
        program = Path(folder, "run.py")
        program.write_text(CODE, encoding="utf-8")
        command = [config.img2dataset_python, str(program), json.dumps(options)]
        found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        listed = Path(out, "00000.parquet")
        if found.returncode or not listed.exists():
            last = "; ".join((found.stdout + found.stderr).strip().splitlines()[-3:])
            raise InputError(f"download: img2dataset failed with exit code {found.returncode}, this part is not made: {last}")
        return self.fates(urls, pq.read_table(listed).to_pylist(), os.path.join(out, "00000.tar"))

    def fates(self, urls: Sequence[str], listed: list[Row], tar: str) -> dict[str, Row]:
        """The fate of each URL, from the list and the tar that img2dataset wrote."""
        rows: dict[str, Row] = {}
        for row in listed:
            reason, status = (None, 0) if row["status"] == "success" else reason_of(row["status"], row["error_message"] or "")
            sizes = {f"listed_{name}": row.get(name) for name in ("sha256", "original_width", "original_height")}
            rows[urls[int(row["number"])]] = {"foreign_key": row["key"], "drop": reason, "http_status": status or None, **sizes}
        limit = self.config.max_image_bytes
        asyncio.run(foreign_tars.take_pictures(tar, list(rows.values()), self.decoders, limit))
        for row in rows.values():
            row["drop"] = "decode" if row["drop"] == foreign_tars.NO_MEMBER else row["drop"]
        lost = {url: {"drop": answers.CONNECT} for url in urls if url not in rows}  # rows that it loses in silence
        return rows | lost
