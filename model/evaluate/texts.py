"""Class names, prompts and metric of a set that does not bring its own.

in      folder/set.toml; sets/NAME.toml in this package; clip-benchmark's data files where that package is installed. The
        first that has `classes`, and the first that has `templates`, is taken; sets/README.md says what is in such a file
        sets/registry.toml: the paper's 27 sets
law     what a file says and the registry says of the number of classes must agree; a metric is one of metrics.Metric
law     of clip-benchmark only its JSON files are read; nothing of it is run
"""

import importlib.util
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model import files
from model.evaluate.datasets import BadSet

SETS = Path(__file__).parent / "sets"
METRICS = ("accuracy", "mean_per_class", "map11", "roc_auc", "mean_1_5")
KEYS = {"metric", "classes", "templates", "folders"}
DEFAULT_TEMPLATES = ("a photo of a {c}.",)  # CLIP section 3.1.4


@dataclass(frozen=True, kw_only=True, slots=True)
class Texts:
    """What is known of a set before its pictures are."""

    names: tuple[tuple[str, ...], ...] = ()  # all names of each class; empty where nothing tells them
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    metric: str = "accuracy"
    folders: tuple[str, ...] = ()  # of pictures: which is which class
    num_classes: int = 0  # the registry's; 0: unknown


def registry() -> dict[str, dict[str, Any]]:
    """The paper's sets by name: title, classes, train, test, metric, prompts, benchmark, source."""
    return tomllib.loads((SETS / "registry.toml").read_text())


def read(name: str, folder: str) -> Texts:
    """The texts of a set. Raises BadSet for a file that is not what README.md says, and where the counts disagree."""
    entry = registry().get(name, {})
    found: dict[str, Any] = {}
    for path, data in _sources(name, folder, str(entry.get("benchmark", name))):
        for key, value in _checked(path, data).items():
            found.setdefault(key, value)
    texts = Texts(
        **{"metric": entry.get("metric", "accuracy"), **found},
        num_classes=int(entry.get("classes", 0)),
    )  # fmt: skip
    if texts.names:
        check_count(name, len(texts.names), texts)
    return texts


def check_count(name: str, found: int, texts: Texts) -> None:
    """Raise BadSet where a set has another number of classes than its texts or the registry say."""
    for expected, who in ((len(texts.names), "its file of class names says"), (texts.num_classes, "the registry says")):
        if expected and found != expected:
            raise BadSet(f"{name}: expected {expected} classes, as {who}, found {found}")


def _sources(name: str, folder: str, benchmark: str) -> list[tuple[str, dict[str, Any]]]:
    own = files.join(folder, "set.toml")
    found = [(own, _toml(own, files.read(own)))] if folder and "set.toml" in files.names(folder) else []
    path = SETS / f"{name}.toml"
    if name and path.parent == SETS and path.is_file() and name != "registry":
        found.append((str(path), _toml(str(path), path.read_bytes())))
    return [*found, ("clip-benchmark", _clip_benchmark(benchmark))]


def _toml(path: str, data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSet(f"{path}: expected TOML, found {error}") from None


def _clip_benchmark(name: str) -> dict[str, Any]:
    spec = importlib.util.find_spec("clip_benchmark")
    if not name or spec is None or not spec.submodule_search_locations:
        return {}
    folder, found = Path(spec.submodule_search_locations[0]) / "datasets", {}
    for key, file in (("classes", "en_classnames.json"), ("templates", "en_zeroshot_classification_templates.json")):
        values = json.loads((folder / file).read_text()).get(name)
        if values:
            found[key] = values
    return found


def _checked(path: str, data: dict[str, Any]) -> dict[str, Any]:
    """The fields of Texts that a file fills."""
    if strange := sorted(data.keys() - KEYS):
        raise BadSet(f"{path}: expected {', '.join(sorted(KEYS))}, found {', '.join(strange)}")
    found: dict[str, Any] = {}
    if "classes" in data:
        names = [one if isinstance(one, list) else [one] for one in _list(path, "classes", data["classes"])]
        found["names"] = tuple(tuple(_strings(path, "classes", one)) for one in names)
    for key in ("templates", "folders"):
        if key in data:
            found[key] = tuple(_strings(path, key, data[key]))
    if "metric" in data:
        if data["metric"] not in METRICS:
            raise BadSet(f"{path}: metric: expected one of {', '.join(METRICS)}, found {data['metric']!r}")
        found["metric"] = data["metric"]
    return found


def _list(path: str, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise BadSet(f"{path}: {key}: expected a list that is not empty, found {str(value)[:60]!r}")
    return value


def _strings(path: str, key: str, value: Any) -> list[str]:
    if any(not isinstance(one, str) or not one.strip() for one in _list(path, key, value)):
        raise BadSet(f"{path}: {key}: expected texts, found {str(value)[:60]}")
    return value
