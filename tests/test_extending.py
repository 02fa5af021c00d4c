"""The method that a page of the documentation adds, added: to a copy of the package, by new files alone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pullback.data import BrainPhantom
from pullback.files import write

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = {path: text for _, path, text in re.findall(r'^(`{3,})\w+ title="(\S+)"\n(.*?)^\1$', PAGE, re.S | re.M)}
OUTSIDE = re.sub(r"^````.*?^````$", "", PAGE, flags=re.S | re.M)  # what a block of Markdown tells is of another page
LINES = "".join(re.findall(r"^```sh\n(.*?)^```$", OUTSIDE, re.S | re.M)).splitlines()
IN_TURN = """
import shlex, sys
from pullback import cli
for line in sys.argv[1:]:
    sys.argv = shlex.split(line)
    print("$", line)
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code, line
"""
SITE = """
import sys
sys.path.insert(0, "docs")
import hook
pages = hook.made()
print("](demons.md)" in pages["methods/index.md"], pages["methods/demons.md"])
print(hook.on_config(type("Config", (), {"nav": [{"Methods": "methods"}]})).nav)
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the package with the page's files, and two images to align."""
    folder = tmp_path_factory.mktemp("tree")
    for part in ("src", "docs"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "HOUSE.md", "GLOSSARY.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder)
    (folder / "tests" / "methods").mkdir(parents=True)
    for test in (ROOT / "tests" / "methods").glob("test_*.py"):  # what has a check of its own is known by its test
        shutil.copy(test, folder / "tests" / "methods")
    for path, text in FILES.items():
        assert not (folder / path).exists(), "a method adds files and edits none"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    pair = next(iter(BrainPhantom(spacing=8.0).test))
    write(pair.fixed, folder / "fixed.nii.gz")
    write(pair.moving, folder / "moving.nii.gz")
    return folder


def run(tree: Path, *words: str) -> str:
    """Return what a process prints that knows the copy and not the package."""
    known = {**os.environ, "PYTHONPATH": str(tree / "src"), "COLUMNS": "120"}
    made = subprocess.run([sys.executable, *words], cwd=tree, env=known, text=True, capture_output=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


def test_the_method_is_short():
    code = FILES["src/pullback/methods/pair/demons.py"].split("@dataclass")[1].split("METHOD =")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 45


def test_the_commands_of_the_page(tree):
    told = dict(re.findall(r"^\$ (.*?)\n(.*?)(?=^\$ |\Z)", run(tree, "-c", IN_TURN, *LINES), re.S | re.M))
    assert set(told) == set(LINES)
    assert "register --method demons" in told["pullback methods"]
    assert "smoothing" in told["pullback methods demons"]
    assert told["pullback cite demons"].startswith("@article{thirion1998image")
    assert (tree / "out" / "moved.nii.gz").is_file()
    assert "demons" in (tree / "studies" / "demons" / "index.html").read_text()


def test_its_contract(tree):
    chosen = ("test_demons or every_class or solve_problems", "tests/methods")
    run(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-k", *chosen)


def test_the_site_has_its_page(tree):
    told = run(tree, "-c", SITE)
    assert told.startswith("True # demons")
    assert "{'demons': 'methods/demons.md'}" in told
