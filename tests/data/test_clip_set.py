from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchctl import lookup
from benchctl.data import clip_set, egogestar, list_file, manifest
from benchctl.errors import BenchctlError, DataMissing, UnknownName, UsageError
from benchctl.spec import DatasetRef


def files(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * (number + 1))
    return root


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    files(tmp_path, "v/a b.mp4", "v/c.mp4", "v/d.mp4")
    (tmp_path / "train.txt").write_text("# comment\nv/a b.mp4 0\n\nv/c.mp4\t1\n")
    (tmp_path / "test.txt").write_text("v/d.mp4 1\n")
    return tmp_path


def message(error: pytest.ExceptionInfo[BenchctlError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


# ---- list files ----


def test_a_list_file(listed: Path) -> None:
    clips = list_file.load(listed, list_file.Options())
    assert clips.classes == ("0", "1")
    assert [(r.id, r.label, r.split) for r in clips.train + clips.test] == [
        ("v/a b.mp4", 0, "train"),
        ("v/c.mp4", 1, "train"),
        ("v/d.mp4", 1, "test"),
    ]
    assert clips.train[0].path == listed / "v/a b.mp4"
    assert clips.missing == ()
    assert "2 train and 1 test clips of 2 classes" in clips.summary


def test_separator_folder_and_class_names(listed: Path) -> None:
    (listed / "train.csv").write_text("a b.mp4,0\nc.mp4,1\n")
    (listed / "val.csv").write_text("d.mp4,0\n")
    (listed / "names.txt").write_text("wave\npoint\n")
    options = list_file.Options(train="train.csv", test="val.csv", separator=",", videos="v", class_names="names.txt")
    assert list_file.load(listed, options).classes == ("wave", "point")
    assert list_file.load(listed, options).test[0].id == "v/d.mp4"


def test_the_fingerprint_knows_labels_splits_and_sizes_but_not_the_folder(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = list_file.load(listed, list_file.Options()).fingerprint
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    listed.rename(elsewhere)
    assert list_file.load(elsewhere, list_file.Options()).fingerprint == before
    (elsewhere / "v/d.mp4").write_bytes(b"longer than before")
    changed = list_file.load(elsewhere, list_file.Options()).fingerprint
    (elsewhere / "test.txt").write_text("v/d.mp4 0\n")
    assert len({before, changed, list_file.load(elsewhere, list_file.Options()).fingerprint}) == 3


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("v/c.mp4 one", "label 'one' is not an integer"),
        ("v/c.mp4 -1", "label '-1' is not an integer"),
        ("v/c.mp4 1.0", "label '1.0' is not an integer"),
        ("v/c.mp4", "not 'path label'"),
        ("v/a b.mp4 0", "'v/a b.mp4' is listed twice"),
        ("v/../v/d.mp4 0", "'v/d.mp4' is listed twice"),
        ("v/e.mp4 3", "no clip to train class '2', '3'"),
    ],
)
def test_bad_lines_are_named(line: str, says: str, listed: Path) -> None:
    (listed / "train.txt").write_text(f"v/a b.mp4 0\nv/c.mp4 1\n{line}\n")
    with pytest.raises(UsageError) as error:
        list_file.load(listed, list_file.Options())
    assert says in message(error)
    assert error.value.exit_code == 2
    if "no clip" not in says:
        assert ".txt:" in message(error)


def test_a_label_beyond_the_class_names(listed: Path) -> None:
    (listed / "names.txt").write_text("only\n")
    with pytest.raises(UsageError, match=r"train.txt:4: label 1 is outside the 1 classes"):
        list_file.load(listed, list_file.Options(class_names="names.txt"))


def test_missing_files_are_counted_and_named(listed: Path) -> None:
    (listed / "v/d.mp4").unlink()
    clips = list_file.load(listed, list_file.Options())
    assert clips.missing == ("v/d.mp4",)
    assert clips.test == ()
    assert "1 missing (first: v/d.mp4)" in clips.summary
    (listed / "v/c.mp4").unlink()
    with pytest.raises(UsageError, match=r"no clip to train class '1' of 'list_file' \(2 listed files are missing\)"):
        list_file.load(listed, list_file.Options())
    (listed / "v/a b.mp4").unlink()
    with pytest.raises(DataMissing, match=r"none of the 3 listed clips exists.*BENCHCTL_DATA") as error:
        list_file.load(listed, list_file.Options())
    assert error.value.exit_code == 3


@pytest.mark.parametrize("name", ["zero\0byte.mp4", "x" * 5000])
def test_names_that_no_file_can_have(name: str, listed: Path) -> None:
    (listed / "train.txt").write_text(f"v/c.mp4 0\n{name} 0\n")
    with pytest.raises(DataMissing, match=r"train\.txt:2: .*cannot be looked up") as error:
        list_file.load(listed, list_file.Options())
    message(error)


def test_lists_that_are_not_there_not_text_or_empty(listed: Path) -> None:
    (listed / "test.txt").write_bytes(b"v/d.mp4 \xff\n")
    with pytest.raises(UsageError, match="byte 8 is not UTF-8"):
        list_file.load(listed, list_file.Options())
    with pytest.raises(DataMissing, match=r"val\.txt: no such file"):
        list_file.load(listed, list_file.Options(test="val.txt"))
    (listed / "empty.txt").write_text("\n")
    with pytest.raises(DataMissing, match="names no clip"):
        list_file.load(listed, list_file.Options(train="empty.txt", test="empty.txt"))


# ---- csv manifests ----


def test_a_manifest(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4")
    # a byte-order mark, quotes, a split that is not used
    (tmp_path / "m.csv").write_bytes(b'\xef\xbb\xbfsubset;file;kind\n1;a.mp4;"wave; left"\n1;b.mp4;point\n2;c.mp4;point\n0;d.mp4;other\n')
    options = manifest.Options(
        file="m.csv", delimiter=";", path_column="file", class_column="kind", split_column="subset", train=("1",), test=("2",)
    )
    clips = manifest.load(tmp_path, options)
    assert clips.classes == ("point", "wave; left")
    assert [(r.id, r.label) for r in clips.train] == [("a.mp4", 1), ("b.mp4", 0)]
    assert [(r.id, r.label) for r in clips.test] == [("c.mp4", 0)]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("path,clas,split\na.mp4,x,train\n", UnknownName, "m.csv:1: unknown column 'class'; did you mean 'clas'?"),
        ("", UnknownName, "unknown column 'path'"),
        ("path,class,split\na.mp4,x\n", UsageError, "m.csv:2: 2 fields, and the header has 3"),
        ("path,class,split\na.mp4,x,train,extra\n", UsageError, "m.csv:2: 4 fields"),
        ('path,class,split\na.mp4,"x,train\n', UsageError, "torn csv"),
        ("path,class,split\na.mp4,,train\n", UsageError, "m.csv:2: empty class"),
        ("path,class,split\n,x,train\n", UsageError, "m.csv:2: empty path"),
        ("path,class,split\na.mp4,x,training\n", UnknownName, "'train'; did you mean 'training'?"),
        ("path,class,split\na.mp4,x,train\na.mp4,x,test\n", UsageError, "m.csv:3: 'a.mp4' is listed twice"),
        ("path,class,split\na.mp4,x,train\nb.mp4,y,test\n", UsageError, "no clip to train class 'y' of 'manifest'"),
    ],
)
def test_bad_manifests(text: str, error: type[BenchctlError], says: str, tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(error) as caught:
        manifest.load(tmp_path, manifest.Options(file="m.csv"))
    assert says in message(caught)
    assert caught.value.exit_code == 2


def test_one_split_cannot_be_both(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="split 'x' is both train and test"):
        manifest.load(tmp_path, manifest.Options(train=("x",), test=("y", "x")))


# ---- what all families share ----


def test_every_family_has_the_same_doors_and_costs_no_torch() -> None:
    names = sorted(lookup.entries("dataset"))
    assert {"egogestar", "list_file", "manifest", "motion_shapes"} <= set(names)
    script = f"""
import sys
from benchctl import lookup
for name in {names}:
    module = lookup.load("dataset", name)
    assert isinstance(module.FLIP_SAFE, bool) and isinstance(module.DATASET, str), name
    assert callable(module.locate) and callable(module.load), name
    module.Options()
loaded = {{"torch", "av", "decord", "pandas"}} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(lookup.entries("dataset")))
def test_options_are_closed_and_a_folder_is_found_or_not(name: str, tmp_path: Path) -> None:
    module = lookup.load("dataset", name)
    with pytest.raises(ValidationError):
        module.Options(no_such_option=1)
    assert module.locate(DatasetRef(name=name), None) is None
    assert module.locate(DatasetRef(name=name), tmp_path) is None
    (tmp_path / name).mkdir()
    assert module.locate(DatasetRef(name=name), tmp_path) == tmp_path / name
    assert module.locate(DatasetRef(name=name, root=str(tmp_path)), None) == tmp_path
    assert module.locate(DatasetRef(name=name, root=str(tmp_path / "absent")), tmp_path) is None
    with pytest.raises(DataMissing):
        module.load(tmp_path / name, module.Options())


def test_a_csv_may_hold_line_breaks_inside_quotes(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('a,b\n"x\ny",1\n\nz,2\n')
    rows = list(clip_set.read_csv(tmp_path / "m.csv", ("b", "a")))
    assert rows == [(f"{tmp_path}/m.csv:3", {"b": "1", "a": "x\ny"}), (f"{tmp_path}/m.csv:5", {"b": "2", "a": "z"})]


# ---- egogestar ----


def test_egogestar_is_split_by_session(real_egogestar: Path) -> None:
    clips = egogestar.load(real_egogestar, egogestar.Options())
    assert (len(clips.classes), len(clips.train), len(clips.test), clips.missing) == (10, 140, 77, ())
    assert clips.flip_safe is False
    session = {row["path"]: row["session"] for _, row in clip_set.read_csv(real_egogestar / "manifest.csv", ("path", "session"))}
    assert {session[r.id] for r in clips.train} == {"A", "C", "F"}
    assert {session[r.id] for r in clips.test} == {"B", "D", "E", "G"}
    kept = egogestar.load(real_egogestar, egogestar.Options(keep_unclassified=True))
    assert (len(kept.classes), len(kept.train), len(kept.test)) == (11, 160, 77)
