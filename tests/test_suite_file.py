import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchctl import suite_file
from benchctl.errors import BenchctlError, SuiteError, UsageError

GOOD = """\
name: memory
task: profile
methods: [timesformer-b, videomae-b]
sweep:
  - {resolution: [224, 336], frames: 8, batch_size: 1}
  - {frames: [8, 16], resolution: 224, batch_size: 16}
precision: fp32
memory_cap_gib: 48
"""


def parse(text: str, *settings: str) -> suite_file.LoadedSuite:
    return suite_file.parse(text, Path("s.yaml"), settings)


def test_a_good_suite():
    suite = parse(GOOD).suite
    assert [m.name for m in suite.methods] == ["timesformer-b", "videomae-b"]
    assert suite.sweep[0].resolution == (224, 336)
    assert suite.sweep[1].frames == (8, 16)
    assert suite.memory_cap_gib == 48


def test_yaml_1_2_rules():
    suite = parse(GOOD + "recipe: {learning_rate: 1e-3}\ndescription: on\n").suite
    assert suite.recipe.learning_rate == 1e-3
    assert suite.description == "on"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("frames: 8", "fames: 8", "s.yaml:5:30: sweep[0].fames: unknown key (and 1 more); did you mean 'frames'?"),
        (
            "task: profile",
            "task: profle",
            "s.yaml:2:1: task[0]: 'profle' is not one of 'profile', 'train' or 'evaluate'; did you mean 'profile'?",
        ),
        (
            "precision: fp32",
            "precision: fp31",
            "s.yaml:7:1: precision[0]: 'fp31' is not one of 'fp32', 'fp16' or 'bf16'; did you mean 'fp32'?",
        ),
        ("[224, 336]", "[224, -1]", "s.yaml:5:24: sweep[0].resolution[1]: input should be greater than 0, not -1"),
        ("[224, 336]", "[224, true]", "s.yaml:5:24: sweep[0].resolution[1]: input should be a valid integer, not True"),
        ("name: memory\n", "", "s.yaml: name: is missing"),
        ("precision: fp32", "task: train", "s.yaml:7:1: found duplicate key 'task'; keep one of the two"),
        ("methods: [", "methods: [{name: x, option: 3}, ", "s.yaml:3:21: methods[0].option: unknown key; did you mean 'options'?"),
        ("task: profile", "task: train", "s.yaml: a suite that trains or evaluates needs 'dataset'"),
        ("precision: fp32", "recipe: {optimiser: sgd}", "s.yaml:7:10: recipe.optimiser: unknown key; did you mean 'optimizer'?"),
        ("precision: fp32", "recipe: {learning_rate: 0}", "s.yaml:7:10: recipe.learning_rate: input should be greater than 0, not 0"),
    ],
)
def test_one_line_says_where_what_and_the_fix(old: str, new: str, message: str):
    assert old in GOOD
    with pytest.raises(SuiteError) as error:
        parse(GOOD.replace(old, new, 1))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml: the file is empty; a suite needs at least name, task, methods and sweep"),
        ("- a\n", "s.yaml:1:1: a suite is a mapping of keys to values; begin with 'name: ...'"),
        ("a: [1,\n", "s.yaml:2:1: not valid YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_what_is_not_a_suite(text: str, message: str):
    with pytest.raises(SuiteError) as error:
        parse(text)
    assert str(error.value) == message


def test_set_changes_and_adds_values():
    suite = parse(GOOD, "memory_cap_gib=80", "sweep.0.frames=[4,8]", "recipe.optimizer=sgd").suite
    assert suite.memory_cap_gib == 80
    assert suite.sweep[0].frames == (4, 8)
    assert suite.recipe.optimizer == "sgd"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("x", "--set x: expected KEY=VALUE; for example --set memory_cap_gib=80"),
        ("=3", "--set =3: expected KEY=VALUE; for example --set memory_cap_gib=80"),
        ("sweep.7.frames=3", "--set sweep.7.frames=3: there is no '7' to set"),
        ("sweep.0.frmes=3", "--set sweep.0.frmes=3: sweep[0].frmes: unknown key; did you mean 'frames'?"),
        (
            "memory_cap_gib=many",
            "--set memory_cap_gib=many: memory_cap_gib: input should be a valid number, unable to parse string as a number, not 'many'",
        ),
    ],
)
def test_a_wrong_set_names_itself(setting: str, message: str):
    with pytest.raises(UsageError) as error:
        parse(GOOD, setting)
    assert str(error.value) == message


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    (tmp_path / "suite.yaml").write_text(GOOD)
    for name, message in [
        (tmp_path / "latin.yaml", "not UTF-8 text (byte 9); save it as UTF-8"),
        (tmp_path, "this is a folder; name a suite file in it"),
        (tmp_path / "suit.yaml", f"no such suite file; did you mean '{tmp_path / 'suite.yaml'}'?"),
    ]:
        with pytest.raises(SuiteError) as error:
            suite_file.load(str(name))
        assert str(error.value) == f"{name}: {message}"


def test_shipped_suites_are_found_by_name_with_near_misses():
    assert suite_file.load("memory_scaling").suite.name == "memory_scaling"
    with pytest.raises(UsageError, match=r"unknown suite 'memory_scalin'; did you mean 'memory_scaling'"):
        suite_file.load("memory_scalin")


@pytest.mark.parametrize("path", suite_file.shipped().values(), ids=lambda p: p.stem)
def test_a_shipped_suite_is_called_as_its_file(path: Path):
    assert suite_file.load(str(path)).suite.name == path.stem


def test_the_published_schema_is_up_to_date():
    published = json.loads((suite_file.find("memory_scaling").parent / "schema.json").read_text())
    assert published == suite_file.schema(), "run: benchctl schema > suites/schema.json"


@given(st.text(max_size=200) | st.lists(st.sampled_from(GOOD.splitlines()), max_size=12).map("\n".join))
def test_any_text_is_a_suite_or_a_one_line_error(text: str):
    try:
        parse(text)
    except BenchctlError as error:
        assert "\n" not in str(error)
        assert error.exit_code == 2
