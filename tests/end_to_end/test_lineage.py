"""Of a dataset that the jobs built on Ray: pairs lead back to the links of the truth table, and to when they were fetched."""

from pathlib import Path

from pipeline import lineage, provenance
from pipeline.config import MiniConfig
from pipeline.manifest import Dataset
from tests.end_to_end import oracle
from tests.end_to_end.test_truth import truth_of

NUM_PAIRS = 200


def test_every_pair_leads_back_to_its_links(built: tuple[MiniConfig, Path]) -> None:
    config, web = built
    truth = {oracle.key_of(row): row for row in truth_of(web)}
    was = oracle.found(config.root)
    kinds = {row["archive"]: row["format"] for row in Dataset(f"{config.root}/0_sources").read().to_pylist()}
    ids = sorted(set(Dataset(f"{config.root}/1_candidates").read(("pair_id",))["pair_id"].to_pylist()))[:NUM_PAIRS]
    stages = {"1_candidates": "crawl", "2_matched": "match", "3_balanced": "balance", "4_images": "download"}
    stages |= {"5_unique": "dedupe", "5_unique/_trimmed": "shard", "6_shards": "kept"}
    for trace in lineage.trace(config.root, ids, (), lambda line: None):
        links = trace.rows("1_candidates")
        reason, folder = lineage.fate(trace).split()
        fates = {was[oracle.key_of(row)] for row in links} - {("balance", "repeated_pair")}
        assert fates == {(stages[folder], None if reason == "kept" else reason)}
        for row in links:
            link = truth[oracle.key_of(row)]
            found = provenance.record(row, kinds[row["archive"]])
            assert found["is_the_same_url"]
            assert (found["page_url"], row["image_url"]) == (link["page_url"], link["image_url"])
        asked = [fact for step in trace.steps if step.folder == "4_images" for fact in step.facts if "fetched_at" in fact]
        assert len(asked) == (folder not in ("2_matched", "3_balanced"))
        assert all(fact["last_status"] == 200 for fact in asked if reason == "kept")
