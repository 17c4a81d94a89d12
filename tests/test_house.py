"""The shape of the house: imports run one way, promises resolve, nothing unwanted is inside."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import dapo

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dapo"
EMBEDDED = PACKAGE / "embedded" / "config.json"

# Inner to outer; a file may import its own ring and those before it. A new file needs a place here.
RINGS = (
    ("errors", "config", "vocabulary", "whole"),
    (
        *("pages", "images", "tiles", "roi", "masks", "corruptions", "inspection", "regions"),
        *("calibration", "metrics", "data", "writers"),
    ),
    ("model",),
    ("inspector", "answering", "goodparts", "lint", "learning", "pretraining", "export"),
    ("demo", "evaluation", "serving", "scale"),
    ("cli", "__main__"),
)
RING = {name: number for number, names in enumerate(RINGS) for name in names}
TORCH_FROM = 2  # the first ring that may import torch
GENERATOR = (
    "fields", "materials", "patterns", "lettering", "surfaces", "marks", "outlines", "shapes", "parts",
    "flaws", "scenes", "captions", "lexicon", "sentences",
)  # fmt: skip
TORCH_FREE = tuple(f"pretraining/{name}" for name in GENERATOR)
UNWANTED = {"torchvision", "timm", "cv2", "pickle", "open_clip", "dill", "joblib"}


def sources() -> Iterator[tuple[str, str, ast.Module]]:
    """(path below the package, first part of its name, syntax tree) of every file but the package's face."""
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        if inside.as_posix() != "__init__.py":
            yield (
                inside.as_posix(),
                inside.parts[0].removesuffix(".py"),
                ast.parse(path.read_text(encoding="utf-8")),
            )


def imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read and walked"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "dapo")


def test_every_file_has_a_ring() -> None:
    homeless = {top for _, top, _ in sources() if top not in RING}
    assert not homeless, f"say in RINGS how far out they are: {sorted(homeless)}"


def test_imports_run_one_way() -> None:
    outward = [
        f"{path} imports {name}"
        for path, top, tree in sources()
        for name in imported(tree)
        if name.startswith("dapo.") and RING.get(name.split(".")[1], -1) > RING[top]
    ]
    assert not outward


def test_inner_rings_do_without_torch() -> None:
    heavy = [
        f"{path} imports {name}"
        for path, top, tree in sources()
        if RING[top] < TORCH_FROM or path.startswith(TORCH_FREE)
        for name in imported(tree)
        if name.split(".")[0] in ("torch", "transformers", "safetensors")
    ]
    assert not heavy


def test_transformers_stays_behind_the_towers() -> None:
    importers = {
        path for path, _, tree in sources() for name in imported(tree) if name.split(".")[0] == "transformers"
    }
    assert importers <= {"model/clip.py", "model/tokenizer.py", "pretraining/teacher.py"}


def test_nothing_unwanted_is_imported() -> None:
    found = [
        f"{path}: {name}"
        for path, _, tree in sources()
        for name in imported(tree)
        if name.split(".")[0] in UNWANTED
    ]
    assert not found


def modules() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(dapo.__path__, "dapo.")]
    return ["dapo", *(name for name in names if not name.endswith("__main__"))]


@pytest.mark.parametrize("name", modules())
def test_public_names_resolve(name: str) -> None:
    module = importlib.import_module(name)
    missing = [public for public in getattr(module, "__all__", []) if not hasattr(module, public)]
    assert not missing
    if hasattr(module, "__path__"):
        assert module.__doc__, f"the package {name} says what it is"


def test_lazy_names_are_the_public_names() -> None:
    assert set(dapo._PUBLIC) | {"__version__"} == set(dapo.__all__) == set(dir(dapo))
    with pytest.raises(AttributeError, match="Inspector"):
        _ = dapo.Inspectr


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules that a fresh Python has loaded after running ``arguments``."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}


@pytest.mark.parametrize(
    "arguments", [("-m", "dapo", "--help"), ("-m", "dapo", "inspect", "--help"), ("-c", "import dapo")]
)
def test_starting_is_light(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments)
    assert "dapo" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "scipy", "PIL", "rich", "pydantic"}


def test_inspecting_nothing_does_not_load_torch() -> None:
    loaded = loaded_by(
        "-c", "import dapo.inspection, dapo.images, dapo.metrics, dapo.vocabulary, dapo.writers"
    )
    assert "numpy" in loaded
    assert "torch" not in loaded


def test_no_torchvision() -> None:
    for name in ("torchvision", "timm", "cv2"):
        assert importlib.util.find_spec(name) is None, f"{name} is in the environment"


def test_nothing_asks_for_torchvision() -> None:
    seen: set[str] = set()
    extras = ("", "train", "demo", "test", "dev", "serve", "onnx", "track", "coco", "plot")
    waiting = [("dapo", extra) for extra in extras]
    while waiting:
        name, extra = waiting.pop()
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                if requirement.name not in seen:
                    waiting += [(requirement.name, inner) for inner in ("", *requirement.extras)]
                seen.add(requirement.name.lower())
    assert "torch" in seen
    assert not seen & {"torchvision", "timm", "opencv-python", "opencv-python-headless"}


def test_one_version() -> None:
    stated = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert stated is not None
    assert stated[1] == dapo.__version__ == importlib.metadata.version("dapo")


def test_torch_is_pinned_once() -> None:
    pins = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert len(pins) == 1
    assert pins[0] not in (ROOT / "Makefile").read_text(encoding="utf-8")


def tracked() -> list[Path]:
    """Files that are in the repository, or would be with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]


def test_nothing_about_the_machine_is_inside() -> None:
    private = re.compile(r"(?<![\w.*])/(?:work|root|home|opt)/|(?:pypi|pythonhosted|download\.pytorch)\.org")
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in private.finditer(text)]
    assert not found


def test_no_file_is_empty_or_large() -> None:
    for path in tracked():
        if path.is_file() and path.name != "py.typed":
            assert 0 < path.stat().st_size <= 41_943_040, path  # 40 MiB, the embedded model's limit


def test_command_line_page_is_current() -> None:
    from dapo.cli.reference import reference

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "run make docs"


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="no docs")
def test_links_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not dead


@pytest.mark.skipif(
    not ((ROOT / "README.md").is_file() and EMBEDDED.is_file()), reason="needs the README and its model"
)
def test_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.effect_noise((320, 240), 40).convert("RGB").save("part.png")
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
