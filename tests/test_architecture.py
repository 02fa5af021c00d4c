"""The rules of the house that a machine can check."""

import ast
import importlib
import resource
import subprocess
import sys
from pathlib import Path

import pullback
from pullback.space import Transform

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
    words = ("import pickle\n", "pickle.load", "Unpickler", "torch.load(", "joblib", "allow_pickle=True")
    assert set.union(*map(mentions, words)) == {"files/images/pickled.py"}, "which allows NumPy's arrays alone"


def test_no_hasattr():
    assert mentions("hasattr(") == set()


def test_kinds_of_transform_are_told_apart_in_space_and_in_files_alone():
    """A transform describes itself, so that a new kind needs no edit elsewhere."""
    kinds = {c.__name__ for c in (Transform, *descendants(Transform)) if c.__module__.startswith("pullback.space")}
    assert {"Affine", "Composite", "Dense", "Linear", "Velocity"} < kinds
    asked = []
    for path in MODULES:
        if path.relative_to(SOURCE).parts[0] in ("space", "files"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
                named = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                if named & kinds - {"Transform"}:
                    asked.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert asked == []


def descendants(kind: type) -> list[type]:
    return [each for child in kind.__subclasses__() for each in (child, *descendants(child))]


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


def raised(function: ast.FunctionDef) -> set[str]:
    """The errors that its own lines raise, without those of functions within it."""
    within, found = list(ast.iter_child_nodes(function)), set()
    while within:
        node = within.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
            found.add(node.exc.func.id)
        within += ast.iter_child_nodes(node)
    return found


def public(body: list[ast.stmt], name: str = "", about: str = "") -> list[tuple[str, ast.FunctionDef, str]]:
    """Functions and methods with their docstrings; of what makes an object, the docstring of its class."""
    found = []
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found += public(node.body, f"{name}{node.name}.", ast.get_docstring(node) or "")
        elif isinstance(node, ast.FunctionDef):
            made = node.name in ("__init__", "__post_init__")
            if made or node.name == "__call__" or not node.name.startswith("_"):
                found.append((name + node.name, node, (ast.get_docstring(node) or "") + (about if made else "")))
    return found


def test_public_docstrings_name_the_errors_that_are_raised():
    silent = [
        f"{path.relative_to(SOURCE)}: {name}: {error}"
        for path in MODULES
        if path.parent.name != "cli"
        for name, function, about in public(ast.parse(path.read_text()).body)
        for error in raised(function)
        if error not in about
    ]
    assert silent == []


def test_packages_export_what_they_say():
    for package in ("data", "energies", "files", "metrics", "networks", "solvers", "space", "training"):
        module = importlib.import_module(f"pullback.{package}")
        assert sorted(module.__all__) == sorted(set(module.__all__))
        assert all(getattr(module, name) is not None for name in module.__all__)


def test_help_does_not_wait_for_torch():
    code = "import sys, pullback.cli; sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'nibabel')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_files_are_aligned_without_what_only_trainings_and_studies_need(tmp_path):
    """Nor torch's compiler, which the first optimiser of `torch.optim` loads; nor the other methods."""
    code = f"""
import sys
import numpy as np, nibabel as nib
for name in ("a", "b"):
    values = np.add.outer(np.arange(12.0), np.arange(14.0) ** 2)[..., None] + np.hanning(10) * 50
    nib.Nifti1Image(values.astype(np.float32), np.eye(4)).to_filename(f"{tmp_path}/{{name}}.nii.gz")
from pullback.cli import app
app(["register", "-f", "{tmp_path}/a.nii.gz", "-m", "{tmp_path}/b.nii.gz", "--preset", "fast", "-o", "{tmp_path}/o"],
    standalone_mode=False)
names = ("torch._dynamo", "lightning_fabric", "tensorboardX", "pandas", "sklearn", "scipy.stats", "scipy.ndimage",
         "pullback.methods.pair.voxelmorph")
print("loaded:", *[name for name in names if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert (tmp_path / "o" / "moved.nii.gz").is_file()


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
