"""The rules of the house that a machine can check."""

import ast
import importlib
import resource
import subprocess
import sys
from pathlib import Path

import pullback

SOURCE = Path(pullback.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))


def mentions(word: str) -> set[str]:
    return {str(p.relative_to(SOURCE)) for p in MODULES if word in p.read_text()}


def test_there_is_something_to_check():
    assert len(MODULES) > 40


def test_grid_sample_has_one_caller():
    assert mentions("grid_sample(") == {"numerics/sample.py"}


def test_cuda_is_named_nowhere():
    assert mentions("cuda") == set()


def test_nothing_unpickles():
    assert mentions("import pickle") | mentions("torch.load(") | mentions("joblib") == set()


def test_no_hasattr():
    assert mentions("hasattr(") == set()


def test_lps_is_known_in_files_alone():
    outside = {name for name in mentions("lps") | mentions("LPS") if not name.startswith("files/")}
    assert outside == set()


def test_random_numbers_come_from_a_generator():
    """Every call that draws names its generator; the initial weights of a network are drawn within `seeded`."""
    draws = {"rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal"}
    careless = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in draws:
                base = node.func.value
                named = any(k.arg == "generator" for k in node.keywords)
                if isinstance(base, ast.Name) and base.id == "torch" and not named:
                    careless.append(f"{path.name}:{node.lineno}")
    assert careless == []


def test_public_names_exist_and_are_documented():
    assert len(pullback.__all__) > 30
    for name in pullback.__all__:
        assert getattr(pullback, name).__doc__, name


def test_packages_export_what_they_say():
    for package in ("data", "energies", "files", "metrics", "networks", "solvers", "space", "training"):
        module = importlib.import_module(f"pullback.{package}")
        assert sorted(module.__all__) == sorted(set(module.__all__))
        assert all(getattr(module, name) is not None for name in module.__all__)


def test_help_does_not_wait_for_torch():
    code = "import sys, pullback.cli; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'nibabel')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_is_quick():
    """By the processor's time, which is the answer's time where nothing else runs."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times = []
    for _ in range(3):
        start = spent()
        subprocess.run([sys.executable, "-m", "pullback.cli", "--help"], check=True, capture_output=True)
        times.append(spent() - start)
    assert min(times) < 0.5


def test_floors():
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=SOURCE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
