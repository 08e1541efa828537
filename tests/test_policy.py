"""The laws of the tree: who imports whom, no broad except, no chance without a seed, files that a person can read."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
STAGES = {"crawl", "match", "balance", "download", "dedupe", "shard", "queries"}
MAY_IMPORT = {  # package -> the packages of ours that it may import
    "pipeline": {"pipeline"},
    "model": {"model"},
    "infra": {"infra", "pipeline", "model"},
    "jobs": {"jobs", "pipeline", "model"},
}
ONLY_IN = {"ray": ("pipeline/runner.py", "jobs/", "infra/"), "torch": ("model/", "jobs/")}
LOWER = {  # support below the runner, each may import only what stands before it and support that is not named here
    "pipeline.errors": set(),
    "pipeline.hashing": set(),
    "pipeline.storage": {"pipeline.errors"},
    "pipeline.manifest": {"pipeline.storage", "pipeline.errors", "pipeline.hashing"},
}
TOP = {"pipeline", "model", "jobs", "infra", "tests"}
RANDOM_CALLS = {"numpy.random", "np.random", "random"}
SEEDED = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "Random"}


def sources(*folders: str) -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    paths = [REPOSITORY / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.exists() and path.relative_to(REPOSITORY).parts[0] in folders]


CODE = sources("pipeline", "model", "jobs", "infra")
ALL = CODE + sources("tests")
TREES = {path: ast.parse(path.read_text()) for path in ALL}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_imports_run_one_way() -> None:
    wrong = []
    modules = {name_of(path) for path in CODE}
    for path in CODE:
        here, relative = name_of(path), path.relative_to(REPOSITORY).as_posix()
        for line, name in imports(path):
            top = name.split(".")[0]
            if top in TOP and top not in MAY_IMPORT[here.split(".")[0]]:
                wrong.append(f"{relative}:{line}: {here} imports {name}")
            if top in ONLY_IN and not relative.startswith(ONLY_IN[top]):
                wrong.append(f"{relative}:{line}: {top} is imported only in {', '.join(ONLY_IN[top])}")
            stage = here.removeprefix("pipeline.")
            other = name.removeprefix("pipeline.").split(".")[0]
            if here.startswith("pipeline.") and stage in STAGES and other in STAGES - {stage} and name.startswith("pipeline."):
                wrong.append(f"{relative}:{line}: a stage imports a stage: {name}")
            if here in LOWER and name in modules and name.startswith("pipeline.") and name not in LOWER[here]:
                wrong.append(f"{relative}:{line}: {here} imports {name}")
            if (
                here.startswith("pipeline.")
                and name in ("pipeline.runner", "pipeline.parts")
                and stage not in ("runner", "parts")
            ):
                wrong.append(f"{relative}:{line}: only jobs import the runner")
    assert not wrong, "\n".join(wrong)


def test_no_except_is_broad() -> None:
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds):
                wrong.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_no_chance_is_without_a_seed() -> None:
    wrong = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner, call = ast.unparse(node.func.value), node.func.attr
            unseeded = call in SEEDED and not node.args and not node.keywords
            if owner in RANDOM_CALLS and (call not in SEEDED or unseeded):
                wrong.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {owner}.{call}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", ["code", "tests"])
def test_a_person_can_read_every_file(kind: str) -> None:
    wrong = []
    for path, tree in TREES.items():
        if (path in CODE) != (kind == "code"):
            continue
        lines, limit = len(path.read_text().splitlines()), 350 if kind == "code" else 500
        if lines > limit:
            wrong.append(f"{path.relative_to(REPOSITORY)}: {lines} lines, {limit} at most")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.name} has 60 lines or more")
    assert not wrong, "\n".join(wrong)


def test_every_module_and_public_name_says_what_it_is() -> None:
    wrong = []
    for path in CODE:
        tree = TREES[path]
        if tree.body and not ast.get_docstring(tree):
            wrong.append(f"{path.relative_to(REPOSITORY)}: no docstring")
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                wrong.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.name} has no docstring")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is None:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.name} does not say what it returns")
    assert not wrong, "\n".join(wrong)


def test_every_module_imports_without_ray_or_torch_where_it_should() -> None:
    """A stage or a command line that drags Ray or torch in makes every start slow."""
    names = [name_of(path) for path in CODE if path.relative_to(REPOSITORY).parts[0] == "pipeline"]
    program = f"import sys\nfor name in {names!r}: __import__(name)\nprint(sorted({{'ray', 'torch'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
