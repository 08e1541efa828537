"""The files of infra/cluster, held against what will read them: Ray's schema, KubeRay's, and our own jobs.

KubeRay's CRDs (ray.io_rayclusters.yaml, ray.io_rayjobs.yaml; a megabyte each) are not ours to carry: KUBERAY_CRDS names the
folder that has them.
"""

import copy
import importlib
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs._cli import parse

CLUSTER = Path(__file__).parents[2] / "infra" / "cluster"
KUBERAY = sorted(CLUSTER.glob("kuberay-*.yaml"))
COMMAND = re.compile(r"python (?:/home/ray/wit/)?jobs/(\w+)\.py (.*)")


def aws() -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "aws.yaml").read_text())


def test_ray_takes_the_aws_cluster_as_it_is() -> None:
    config = prepare_config(aws())
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("mistake", ["unknown_field", "no_such_head"])
def test_the_check_of_the_aws_cluster_can_fail(mistake: str) -> None:
    config = prepare_config(copy.deepcopy(aws()))
    if mistake == "unknown_field":
        config["available_node_types"]["build_spot"]["prioritty"] = 1
    else:
        config["head_node_type"] = "hed"
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validate_config(config)


def test_each_spot_group_has_the_same_machine_on_demand_to_fall_back_to() -> None:
    types = aws()["available_node_types"]
    spot = [name for name in types if name.endswith("_spot")]
    assert len(spot) == 2
    for name in spot:
        other = types[name.replace("_spot", "_on_demand")]
        assert types[name]["priority"] > other["priority"]
        assert types[name]["resources"] == other["resources"]
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert "InstanceMarketOptions" not in other["node_config"]
        assert types[name]["node_config"]["InstanceType"] == other["node_config"]["InstanceType"]


def test_all_files_and_the_image_name_one_version_of_ray() -> None:
    pinned = re.search(r"^ray==(\S+)$", (CLUSTER.parents[1] / "requirements.lock").read_text(), re.M)
    assert pinned
    versions = {match for path in KUBERAY for match in re.findall(r'rayVersion: "(.*)"', path.read_text())}
    versions |= set(re.findall(r"rayproject/ray:([\d.]+)-", (CLUSTER.parent / "Dockerfile").read_text()))
    assert versions == {pinned[1]}


@pytest.mark.parametrize("path", [*KUBERAY, CLUSTER.parent / "README.md"], ids=lambda path: path.name)
def test_the_jobs_take_the_commands(path: Path) -> None:
    if path.suffix == ".md":
        commands = [line for line in path.read_text().splitlines() if COMMAND.search(line)]
    else:
        commands = [entrypoint] if (entrypoint := yaml.safe_load(path.read_text())["spec"].get("entrypoint")) else []
    for command in commands:
        found = COMMAND.search(command)
        assert found, command
        job = importlib.import_module(f"jobs.{found[1]}")
        assert parse(job.RECIPES, job.__doc__, shlex.split(found[2])).root == "s3://BUCKET/wit"
    assert commands or path.name == "kuberay-cluster.yaml"


def strict(schema: Any) -> Any:
    """A CRD's schema that refuses fields it does not know, as a server does that validates strictly."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items() if not str(key).startswith("x-kubernetes")}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


@pytest.mark.skipif("KUBERAY_CRDS" not in os.environ, reason="KUBERAY_CRDS names no folder of KubeRay's CRDs")
@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.name)
def test_kuberay_takes_the_manifest(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    crd = Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{manifest['kind'].lower()}s.yaml"
    version = next(v for v in yaml.safe_load(crd.read_text())["spec"]["versions"] if v["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"])
    jsonschema.validate(manifest["spec"], schema)
    wrong = copy.deepcopy(manifest["spec"])
    wrong.get("rayClusterSpec", wrong)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["imagee"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_a_node_may_do_what_the_runner_does_and_nothing_else() -> None:
    statements = json.loads((CLUSTER / "node-policy.json").read_text())["Statement"]
    assert {statement["Effect"] for statement in statements} == {"Allow"}
    assert not [action for statement in statements for action in statement["Action"] if "*" in action]
    writes = [s["Resource"] for s in statements if any(a.startswith(("s3:Put", "s3:Delete")) for a in s["Action"])]
    assert writes == ["arn:aws:s3:::BUCKET/*"]


def test_the_bucket_refuses_plain_http_and_strangers() -> None:
    statements = {s["Sid"]: s for s in json.loads((CLUSTER / "bucket-policy.json").read_text())["Statement"]}
    assert {s["Effect"] for s in statements.values()} == {"Deny"}
    assert statements["OnlyOverTls"]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert "ArnNotEquals" in statements["OnlyTheClusterAndItsOwners"]["Condition"]
