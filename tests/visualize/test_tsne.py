"""Clip embeddings, their neighbours and their picture; and the commands of `benchctl.cli.visualize_models`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchctl.cli import app
from benchctl.data.clip_set import ClipRecord, ClipSet
from benchctl.errors import DataMissing, UsageError
from benchctl.spec import MethodConfig
from benchctl.visualize import tsne, tsne_figure
from benchctl.visualize.model import LoadedModel, load_model
from benchctl.visualize.tsne import Panel

SMALL = {"train_clips_per_class": 1, "test_clips_per_class": 2, "frames": 4, "size": 32}


def records(*labels: int) -> ClipSet:
    test = tuple(ClipRecord(f"{i}.mp4", Path(f"{i}.mp4"), label, "test") for i, label in enumerate(labels))
    return ClipSet("set", ("a", "b", "c"), (), test, True, "")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shapes(cache: Path) -> ClipSet:
    return tsne.test_clips("motion_shapes", SMALL, None, cache)


def slow_accuracy(embeddings: np.ndarray, labels: np.ndarray, neighbours: int) -> float:
    right = 0
    for i in range(len(labels)):
        others = sorted((float(((embeddings[i] - embeddings[j]) ** 2).sum()), j) for j in range(len(labels)) if j != i)
        near = [int(labels[j]) for _, j in others[:neighbours]]
        most = max(Counter(near).values())
        right += next(label for label in near if near.count(label) == most) == labels[i]
    return right / len(labels)


@pytest.mark.parametrize("neighbours", [1, 4, 5])
def test_neighbour_accuracy_is_the_definition(neighbours: int):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    embeddings = rng.normal(size=(40, 6)) + labels[:, None]
    found = tsne.neighbour_accuracy(embeddings, labels, neighbours)
    assert found == slow_accuracy(embeddings, labels, neighbours)
    assert 0.4 < found < 1


def test_separate_classes_are_all_right_and_stay_apart_in_the_picture():
    labels = np.repeat([0, 1], 12)
    embeddings = np.random.default_rng(0).normal(size=(24, 8)) + 50.0 * labels[:, None]
    assert tsne.neighbour_accuracy(embeddings, labels) == 1
    points = tsne.project(embeddings, 5)
    assert points.shape == (24, 2)
    assert tsne.neighbour_accuracy(points, labels) == 1
    assert np.array_equal(points, tsne.project(embeddings, 5))


def test_an_embedding_is_what_the_classifier_is_given():
    loaded = load_model("moss-tiny", frames=4, resolution=64)
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    found = tsne.embedding(loaded, frames)
    with torch.inference_mode():
        logits = loaded.model(loaded.prepare(frames))
    assert torch.allclose(loaded.model.classifier(found), logits[0], atol=1e-5)


def test_a_model_without_a_linear_classifier_is_refused():
    class Convolution(nn.Module):
        def forward(self, clip_BTCHW: Tensor) -> Tensor:
            return clip_BTCHW.mean((1, 3, 4))

    loaded = LoadedModel(Convolution(), MethodConfig(), "toy", "no weights", ((0.0,) * 3, (1.0,) * 3))
    with pytest.raises(UsageError, match="the logits of 'toy' come from no linear layer"):
        tsne.embedding(loaded, np.zeros((2, 8, 8, 3), np.uint8))


def test_a_limit_is_spread_over_the_classes():
    chosen = tsne.limited(records(0, 0, 0, 0, 1, 1, 2), 5).test
    assert [record.label for record in chosen] == [0, 0, 1, 1, 2]
    assert len(tsne.limited(records(0, 1), 9).test) == 2


def test_unreadable_clips_are_left_out_and_named(shapes: ClipSet, tmp_path: Path):
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    torn = ClipRecord("torn.mp4", tmp_path / "torn.mp4", 0, "test")
    some = ClipSet(shapes.name, shapes.classes, (), (torn, *shapes.test[:2]), False, "")
    models = [load_model("moss-tiny", frames=4, resolution=32), load_model("videomae-tiny", frames=4, resolution=32)]
    found = tsne.embed(models, some, frames=4, resolution=32)
    assert [len(each) for each in found.embeddings] == [2, 2]
    assert list(found.labels) == [record.label for record in shapes.test[:2]]
    assert list(found.unreadable) == ["torn.mp4"]
    with pytest.raises(DataMissing, match=r"none of 1 clips can be decoded \(first: torn\.mp4"):
        tsne.embed(models, ClipSet("set", ("a",), (), (torn,), False, ""), frames=4, resolution=32)


@pytest.mark.parametrize(
    ("clips", "perplexity", "message"),
    [(5, 2, "--limit: 5 clips have no 5 neighbours"), (8, 8, "--perplexity 8: 8 clips cannot"), (8, 0.5, "--perplexity 0.5: 8 clips")],
)
def test_too_few_clips_are_refused_before_anything_is_computed(clips: int, perplexity: float, message: str):
    with pytest.raises(UsageError, match=message):
        tsne.check(clips, perplexity)


def picture(classes: int, panels: int) -> tsne_figure.Picture:
    rng = np.random.default_rng(0)
    labels = np.arange(3 * classes) % classes
    made = tuple(Panel(f"method-{i}", "random weights", rng.normal(size=(3 * classes, 2)), 0.25) for i in range(panels))
    return tsne_figure.Picture("set $x$", tuple(f"class {i}" for i in range(classes)), labels, made, 7, 1, 8, 96)


@pytest.mark.parametrize(("classes", "panels"), [(2, 1), (8, 3), (20, 5)])
def test_each_panel_has_every_point_and_the_legend_every_class_in_its_own_style(classes: int, panels: int):
    drawn = picture(classes, panels)
    made = tsne_figure.figure(drawn)
    assert len(made.axes) == panels
    for axes, panel in zip(made.axes, drawn.panels):
        points = np.concatenate([np.asarray(dots.get_offsets()) for dots in axes.collections])
        assert {tuple(point) for point in points} == {tuple(point) for point in panel.points}
        assert "25.0 %" in " ".join(text.get_text() for text in axes.texts)
    texts = [text.get_text() for text in made.texts]
    assert [text for text in texts if text.startswith("class ")] == list(drawn.classes)
    assert len({tsne_figure.style(index) for index in range(classes)}) == classes
    assert "1 more could not be read" in texts[1].replace("\n", " ")


def test_more_classes_than_can_be_told_apart_have_no_legend():
    texts = [text.get_text().replace("\n", " ") for text in tsne_figure.figure(picture(60, 1)).texts]
    assert len(texts) == 2
    assert "60 classes are too many for a legend" in texts[1]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]):
    """Runs `benchctl visualize` in an empty folder, and gives its exit code and what it wrote to stdout and stderr."""
    import benchctl.cli.visualize_models  # noqa: F401  (importing registers)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCHCTL_CACHE", str(cache))
    monkeypatch.delenv("BENCHCTL_DATA", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["benchctl", "visualize", *arguments])
        with pytest.raises(SystemExit) as ended:
            app.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


OPTIONS = [text for key, value in SMALL.items() for text in ("--set", f"{key}={value}")]


def test_tsne_prints_the_file_and_a_number_for_each_method(command, shapes, tmp_path):
    arguments = ["--method", "moss-tiny", "--method", "videomae-tiny", "--frames", "4", "--resolution", "32", "--perplexity", "4"]
    code, out, _ = command("tsne", "motion_shapes", *OPTIONS, *arguments, "--limit", "12")
    assert code == 0
    file, first, second = out.splitlines()
    assert file == "tsne-motion_shapes.png"
    assert first.startswith("moss-tiny (random weights): ")
    assert second.endswith("% by 5 neighbours")
    assert matplotlib.image.imread(tmp_path / file).std() > 0.05


def test_a_method_may_come_with_its_checkpoint(command, shapes, tmp_path):
    loaded = load_model("moss-tiny", frames=4, resolution=32)
    torch.nn.init.normal_(next(loaded.model.video.side.parameters()))
    torch.save({"model": loaded.model.state_dict()}, tmp_path / "mine.pt")
    small = ["--frames", "4", "--resolution", "32", "--perplexity", "4", "--limit", "8"]
    code, out, _ = command("tsne", "motion_shapes", *OPTIONS, "--method", "moss-tiny=mine.pt", *small)
    assert code == 0
    assert out.splitlines()[1].startswith("moss-tiny (weights: mine.pt): ")


def test_gradcam_prints_the_file(command, tmp_path):
    code, out, err = command("gradcam", "toy", "--method", "moss-tiny", "--frames", "4", "--resolution", "64", "--class", "1")
    assert (code, out, err) == (0, "gradcam-toy-moss-tiny.png\n", "")
    assert (tmp_path / "gradcam-toy-moss-tiny.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tsne", "motion_shapes", *OPTIONS, "--method", "mos-tiny"], "--method: unknown method 'mos-tiny'; did you mean 'moss-tiny'"),
        (["tsne", "motion_shapes", *OPTIONS, "--method", "moss-tiny=a.pt"], "--method moss-tiny=a.pt: no such checkpoint"),
        (["tsne", "motion_shapes", *OPTIONS, "--method", "moss-tiny", "--perplexity", "16"], "--perplexity 16: 16 clips cannot"),
        (["tsne", "motion_shapes", "--set", "sise=3", "--method", "moss-tiny"], "--set sise: extra inputs are not permitted; options: "),
        (["tsne", "motion_shapes", "--set", "size", "--method", "moss-tiny"], "--set size: expected KEY=VALUE"),
        (["tsne", "motion_shape", "--method", "moss-tiny"], "unknown dataset 'motion_shape'; did you mean 'motion_shapes'"),
        (["gradcam", "toy", "--method", "moss-tiny", "--class", "9"], "--class 9: there is no such class; use 0 to 1"),
        (["gradcam", "toy", "--method", "moss-tiny", "-o", "a.pdf"], "--output a.pdf: the figure is a png"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line_that_names_the_option(command, shapes, tmp_path, arguments, message):
    small = ["--frames", "4", "--resolution", "32"]
    code, out, err = command(*arguments, *small)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"benchctl: {message}")
    assert not list(tmp_path.iterdir())
