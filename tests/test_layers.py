"""Data flows one way: a module imports only what stands to its left in the layer order."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "luce"
LAYERS = [
    "errors", "threads", "paths", "files", "seal", "parallel", "arrays", "maps", "links", "functions", "losses",
    "regression", "calibration", "metrics", "images", "datasets", "backbones", "heads", "card", "model_file",
    "evaluation", "classifier", "training", "report", "plots", "torch", "cli", "web", "__main__",
]  # fmt: skip
HEAVY = (
    "onnx",
    "onnxruntime",
    "sklearn",
    "scipy",
    "PIL",
    "matplotlib",
    "rich",
    "cyclopts",
    "torch",
    "jinja2",
)


def imports(source: str) -> set[str]:
    """The layers that a module imports from, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "luce" else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("luce.")}
    return found


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def wrong_imports(layer: str, source: str) -> set[str]:
    allowed = {*LAYERS[: LAYERS.index(layer) + 1], "_native", "__version__"}
    return imports(source) - allowed


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_back_along_the_flow(path: Path) -> None:
    layer = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert layer in LAYERS, f"{layer} has no place in the layer order"
    assert wrong_imports(layer, path.read_text()) == set()


def test_the_check_notices_a_wrong_import() -> None:
    assert wrong_imports("metrics", "def f():\n    from luce.training import fit") == {"training"}
    assert wrong_imports("links", "import luce.cli") == {"cli"}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in out.split()}


def test_import_loads_nothing_heavy() -> None:
    assert loaded_after("import luce; luce.softmax([1.0, 2.0])").isdisjoint(HEAVY)


def test_predicting_does_not_load_scikit_learn() -> None:
    assert loaded_after("import luce; luce.load, luce.train").isdisjoint({"sklearn", "scipy", "torch", "matplotlib"})


def test_the_public_names_are_there() -> None:
    import luce

    assert sorted(luce.__all__) == luce.__all__
    for name in luce.__all__:
        assert getattr(luce, name) is not None
