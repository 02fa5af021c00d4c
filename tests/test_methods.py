"""Methods by name: their pages, their papers, and the commands that run them."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
import yaml

import pullback as pb
from pullback import cli, recipes, studies
from pullback.errors import InputError
from pullback.methods.method import Paper, find_method, methods
from pullback.methods.pair.classical import FAST, Classical
from pullback.methods.pair.convex_adam import ConvexAdam
from pullback.methods.pair.voxelmorph import VoxelMorph
from pullback.methods.pose.cross_ngf import CrossNGF
from pullback.solvers import DeformableStage
from pullback.study.recipe import as_data, changed, to_yaml
from pullback.workflows.catalogue import cited, overview, page, text_of
from pullback.workflows.how import How, clouds_of, register_of

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = typer.main.get_command(cli.app).commands
LINES = [
    (name, line)
    for name in methods()
    for block in re.findall(r"```sh\n(.*?)```", text_of(name), re.DOTALL)
    for part in block.splitlines()
    for line in part.split(" && ")
]


def braced(text: str, at: int) -> str:
    """What stands between the brace at `at` and its partner."""
    depth, end = 1, at + 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[at + 1 : end - 1]


def parsed(bibtex: str) -> list[tuple[str, str, dict[str, str]]]:
    """Kind, key and fields of each entry, by a reader that balances braces."""
    entries, at = [], 0
    while at < len(bibtex):
        head = re.compile(r"\s*@(\w+)(?=\{)").match(bibtex, at)
        assert head, bibtex[at:]
        body = braced(bibtex, head.end())
        key, _, rest = body.partition(",")
        fields = {}
        while rest.strip(", \n"):
            name, _, rest = rest.lstrip(", \n").partition(" = ")
            fields[name] = braced(rest, 0)
            rest = rest[len(fields[name]) + 2 :]
        entries.append((head[1], key, fields))
        at = head.end() + len(body) + 2
        at += len(bibtex[at:]) - len(bibtex[at:].lstrip())
    return entries


# ---- pages and papers


@pytest.mark.parametrize("name", methods())
def test_a_method_has_a_page(name):
    """Write `src/pullback/pages/NAME.md`: what it is for, how it is used, what was claimed and measured."""
    heads = re.findall(r"^## (.*)$", text_of(name), re.MULTILINE)
    assert heads[:3] == ["What it is for", "Use", "Claims and measurements"], name
    assert find_method(name)[1].papers


def test_a_page_is_of_a_method():
    assert {path.stem for path in (ROOT / "src/pullback/pages").glob("*.md")} == set(methods())


def test_names_and_keys_mean_one_method():
    known = [key for name, method in methods().items() for key in (name, *method.keys)]
    assert len(known) == len(set(known))
    papers = {paper.key: paper for method in methods().values() for paper in method.papers}
    assert all(paper == papers[paper.key] for method in methods().values() for paper in method.papers)


@pytest.mark.parametrize(("name", "line"), LINES, ids=[f"{name}: {line}" for name, line in LINES])
def test_what_a_page_types_is_understood(name, line):
    """The options are there, and so are methods, recipes and settings that it names."""
    word, command, *words = shlex.split(line)
    assert word == "pullback"
    said = COMMANDS[command].make_context(command, words).params
    settings = dict(item.split("=", 1) for item in said.get("setting") or ())
    if command == "train":
        recipe = recipes.find(said["recipe"], said["network"], said["on"], read=said["data"] is not None)
        assert changed(recipe, settings).about
    if command == "study":
        assert {table.split("/")[0] for table in said["tables"] or ()} <= set(studies.find(said["name"]).tables)
    if command == "register" and said["network"] is None:
        how = How(method=said["method"], settings=settings, start=said["start"], aligned=said["aligned"])
        assert register_of(how)


def test_scripts_that_pages_name_are_there():
    named = {path for name in methods() for path in re.findall(r"\bbenchmarks/\w+\.py", text_of(name))}
    assert {path for path in named if not (ROOT / path).is_file()} == set()


def test_bibtex_is_read_back():
    paper = Paper("a2020b", "Ö, Ä and {van} B, C", "On {MRI}", "J", 2020, "10.1/x_y", "article", "3", "1--2")
    ((kind, key, fields),) = parsed(paper.bibtex())
    assert (kind, key) == ("article", "a2020b")
    assert (fields["author"], fields["title"]) == (paper.authors, "{On {MRI}}")
    assert (fields["journal"], fields["year"], fields["doi"], fields["pages"]) == ("J", "2020", "10.1/x_y", "1--2")
    assert "doi" not in replace(paper, doi="").bibtex()


@pytest.mark.parametrize(
    ("authors", "said"),
    [
        ("Xin, A", "Xin 2024"),
        ("Xin, A and Chen, B", "Xin and Chen 2024"),
        ("Xin, A and B, C and D, E", "Xin et al. 2024"),
    ],
)
def test_a_paper_in_brief(authors, said):
    assert Paper("k", authors, "t", "v", 2024).brief == said


@pytest.mark.parametrize("name", methods())
def test_cite_a_method(pullback, name):
    code, out, _ = pullback("cite", name)
    assert code == 0
    entries = parsed(out)
    assert [key for _, key, _ in entries] == [paper.key for paper in find_method(name)[1].papers]
    for kind, _, fields in entries:
        assert {"author", "title", "year"} < set(fields)
        assert {"article": "journal", "inproceedings": "booktitle", "misc": "howpublished"}[kind] in fields
        assert all(" " in author for author in fields["author"].split(" and "))


def test_cite_a_run_by_its_parts(tmp_path):
    """Method and network; by names of before, too; and a registration by its settings."""
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipes.find("ofg", "transmorph")))
    assert {paper.key for paper in cited(str(tmp_path))} == {"xin2024ofg", "chen2022transmorph"}
    tree = yaml.safe_load(to_yaml(recipes.find("cyclical")))
    tree["network"]["partial"] = "pullback.methods.pair.correlated.Correlated"
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert [paper.key for paper in cited(str(tmp_path / "old.yaml"))] == ["bigalke2023cyclical"]
    (tmp_path / "empty").mkdir()
    for what, says in (("empty", "no run"), ("nothing", "no method")):
        with pytest.raises(InputError, match=says):
            cited(str(tmp_path / what) if what == "empty" else what)
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InputError, match="cannot be read"):
        cited(str(tmp_path / "bad.yaml"))


# ---- the table of all


def test_the_table_names_commands_that_are_there(pullback):
    code, out, _ = pullback("methods", "--json")
    assert code == 0
    rows = json.loads(out)
    assert [row["name"] for row in rows] == list(methods())
    for row in rows:
        for line in row["commands"]:
            _, command, *words = line.split()
            pair = ["-f", "f", "-m", "m", "-o", "o"]
            needed = {"register": pair, "match": pair, "uncertainty": pair, "segment": ["-t", "t", "-o", "o"]}
            needed["dose"] = ["--plan", "p", "--dose", "d", "-t", "t", "--structures", "s"]
            assert COMMANDS[command].make_context(command, [*words, *needed.get(command, [])])


def test_who_learns_has_a_recipe_or_says_why_not():
    for row in overview():
        trains = any(line.startswith("pullback train") for line in row.commands)
        assert trains == (row.learns != "no") or row.name == "self-training"


def test_what_a_page_lists_can_be_set():
    for name, method in methods().items():
        if method.register is None:
            continue
        numbers = next(iter(page(name).settings.values()))
        assert numbers
        for key, value in numbers.items():
            if value[0] in "0123456789":
                assert as_data(changed(method.register, {key: value})) == as_data(method.register)


@pytest.mark.slow
@pytest.mark.parametrize("columns", [80, 120])
def test_tables_and_pages_keep_within_the_terminal(columns):
    from rich.console import Console  # noqa: PLC0415

    from pullback.workflows.catalogue import layout  # noqa: PLC0415

    console = Console(width=columns, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(layout(overview(), columns))
    table = console.export_text()
    for name in methods():
        assert re.search(rf"^ *{name} +(yes|no|may) ", table, re.MULTILINE), name
        assert all(line.removeprefix("pullback ") in table for line in page(name).content()["commands"])
        console.print(page(name).layout())
    assert max(map(len, table.splitlines())) <= columns


# ---- methods that need no training, as registers


def test_a_method_takes_the_place_of_the_deformable_stage():
    chosen = register_of(How(method="convex-adam", preset="fast", settings={"spacing": "4"}))
    assert isinstance(chosen, Classical)
    assert chosen.linear == FAST.linear
    assert chosen.deformable == ConvexAdam(spacing=4)
    alone = register_of(How(method="convex-adam", aligned=True))
    assert isinstance(alone, Classical)
    assert (alone.initialise, alone.linear, alone.deformable) == (None, (), ConvexAdam())
    assert register_of(How(method="classical")) == register_of(How())
    assert register_of(How(method="cross-ngf", seed=3, settings={"overlap": "0.6"})) == CrossNGF(seed=3, overlap=0.6)


def test_settings_reach_the_classical_method():
    chosen = register_of(How(preset="fast", settings={"deformable.steps.2": "7", "initialise.sure": "5"}))
    assert isinstance(chosen, Classical)
    assert isinstance(chosen.deformable, DeformableStage)
    assert chosen.deformable.steps == (24, 16, 7)
    assert chosen.initialise is not None
    assert chosen.initialise.sure == 5


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"method": "convexadam"}, "did you mean 'convex-adam'"),
        ({"method": "voxelmorph"}, "has to learn first; `pullback train voxelmorph"),
        ({"method": "graph-propagation"}, "aligns points, and `pullback register` pair or pose"),
        ({"method": "convex-adam", "energy": "mi"}, "--energy: is of the classical method"),
        ({"method": "convex-adam", "settings": {"spacng": "4"}}, "did you mean 'spacing'"),
        ({"method": "convex-adam", "start": "center"}, "did you mean 'centres'"),
        ({"method": "cross-ngf", "aligned": True}, "--aligned: cross-ngf searches all poses"),
        ({"method": "cross-ngf", "start": "masses"}, "--start: cross-ngf searches"),
        ({"method": "convex-adam", "network": "runs/x"}, "--method: not together with --network"),
        ({"network": "runs/x", "settings": {"a": "1"}}, "--set: not together with --network"),
        ({"method": "convex-adam", "refine": 3}, "there is no --network"),
    ],
)
def test_combinations_without_sense_are_refused(how, says):
    with pytest.raises(InputError, match=says):
        register_of(How(**how))


def test_methods_of_points():
    register, network = clouds_of(How(settings={"register.smoothing": "50"}))
    assert network is None
    assert register.register.smoothing == 50
    with pytest.raises(InputError, match="aligns pair, and `pullback match` points"):
        clouds_of(How(method="convex-adam"))
    with pytest.raises(InputError, match="did you mean 'smoothing'"):
        clouds_of(How(settings={"register.smooting": "50"}))


@pytest.fixture(scope="module")
def bumps(tmp_path_factory):
    """Two images of one ball of texture, which lies two voxels farther along the first axis in the moving one."""
    folder = tmp_path_factory.mktemp("bumps")
    texture = np.kron(np.random.default_rng(4).random((8, 7, 7)), np.ones((4, 4, 4)))
    texture *= sum((n - size / 2) ** 2 for n, size in zip(np.indices(texture.shape), texture.shape, strict=True)) < 100
    for _ in range(2):
        texture = sum(np.roll(texture, k, axis) for axis in range(3) for k in (-1, 0, 1)) / 9
    for name, by in (("fixed", 0), ("moving", 2)):
        nib.save(nib.Nifti1Image(np.roll(texture, by, 0).astype(np.float32), np.eye(4)), folder / f"{name}.nii.gz")
    return folder


@pytest.mark.slow
def test_register_by_another_method(pullback, bumps, tmp_path):
    pair = ("-f", bumps / "fixed.nii.gz", "-m", bumps / "moving.nii.gz", "-o", tmp_path / "out")
    words = ("--method", "convex-adam", "--aligned", "--set", "spacing=4", "--set", "descent.solver.steps=10")
    code, out, err = pullback("register", *pair, *words, "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content["method"] == "convex-adam"
    assert content["settings"]["deformable"]["spacing"] == 4
    assert list(content["seconds"]) == ["deformable"]
    assert content["numbers"]["after"]["ncc"] > 0.95 > 0.9 > content["numbers"]["before"]["ncc"]
    code, out, _ = pullback("cite", tmp_path / "out")
    assert code == 0
    assert {paper.key for paper in find_method("convex-adam")[1].papers} < {key for _, key, _ in parsed(out)}


@pytest.mark.slow
def test_register_from_a_file_or_a_name(pullback, bumps, tmp_path):
    """A written transform is where the next one starts; the method goes on from there."""
    pair = ("-f", bumps / "fixed.nii.gz", "-m", bumps / "moving.nii.gz")
    first = ("--transform", "rigid", "--preset", "fast", "--start", "header", "-o", tmp_path / "rigid")
    code, _, err = pullback("register", *pair, *first)
    assert code == 0, err
    start = tmp_path / "rigid" / "fixed_to_moving.h5"
    words = ("--start", start, "--aligned", "--method", "convex-adam", "--set", "spacing=4", "-o", tmp_path / "out")
    code, out, err = pullback("register", *pair, *words, "--json")
    assert code == 0, err
    content = json.loads(out)
    assert content["start"] == str(start)
    assert content["numbers"]["before"]["ncc"] > 0.98


# ---- help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_narrow_terminal(pullback, command):
    code, out, _ = pullback(command, "--help")
    assert code == 0
    assert "--json" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_an_option_expects(command):
    """Every option has a sentence about it, which says its default where that is not shown, and what it takes."""
    for parameter in COMMANDS[command].params:
        text = parameter.help or ""
        assert text.endswith((".", "…")), f"{command} {parameter.name}: {text}"
        flag = getattr(parameter, "is_flag", False)
        told = parameter.required or (parameter.show_default and parameter.default is not None)
        said = flag or told or parameter.multiple or "default" in text or parameter.metavar in ("FILE", "RUN")
        assert said, f"{command} {parameter.name}: which default?"
        assert flag or parameter.metavar or parameter.name == "device", (
            f"{command} {parameter.name}: what does it take?"
        )


def test_help_stands_in_groups(pullback):
    out = pullback("--help")[1]
    places = [out.index(f"─ {group} ─") for group in cli.GROUPS]
    assert places == sorted(places)
    assert {command.__name__ for commands in cli.GROUPS.values() for command in commands} == set(COMMANDS)


def test_help_of_a_command_does_not_wait_for_torch():
    code = (
        "import sys, pullback.cli\n"
        "sys.argv = ['pullback', 'register', '--help']\n"
        "try:\n    pullback.cli.main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'nibabel', 'pandas', 'jinja2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_classes_of_methods_are_found_at_the_front_door_though_no_list_names_them():
    assert pb.VoxelMorph is VoxelMorph
    assert "VoxelMorph" not in dir(pb)
    for name in ("VoxelMorf", "voxelmorph", "METHOD", "replace"):
        with pytest.raises(AttributeError):
            getattr(pb, name)
