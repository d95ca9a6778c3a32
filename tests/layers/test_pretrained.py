"""Finding, reading and fitting weight files; all of them are made here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from time import monotonic

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchctl.errors import WeightsMissing
from benchctl.layers.pretrained import HUB_TIMEOUT_S, find, load_pretrained, published, read
from benchctl.spec import MethodConfig

HUB_ID = "somebody/some-model"


class Model(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Linear(4, classes)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of HUB_ID under $BENCHCTL_WEIGHTS."""
    monkeypatch.setenv("BENCHCTL_WEIGHTS", str(tmp_path / "weights"))
    folder = tmp_path / "weights" / HUB_ID
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("BENCHCTL_WEIGHTS", raising=False)
    # the client is kept from one call to the next, offline or not
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


#: nothing listens there
NO_HUB = "http://127.0.0.1:9"


def save_torch(state: dict[str, Tensor], folder: Path) -> None:
    torch.save(state, folder / "pytorch_model.bin")


def save_safetensors(state: dict[str, Tensor], folder: Path) -> None:
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("save", [save_torch, save_safetensors])
def test_every_tensor_arrives(weights: Path, save: Callable[[dict[str, Tensor], Path], None]) -> None:
    source, target = Model(), Model()
    save(source.state_dict(), weights)
    assert load_pretrained(target, HUB_ID, head="head") == HUB_ID
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)


def test_safetensors_come_before_torch(weights: Path) -> None:
    save_torch(Model().state_dict(), weights)
    save_safetensors(Model().state_dict(), weights)
    assert find(HUB_ID) == weights / "model.safetensors"


@pytest.mark.parametrize("key", ["model", "module", "state_dict"])
def test_wrapped_torch_checkpoints_are_unwrapped(weights: Path, key: str) -> None:
    torch.save({key: Model().state_dict(), "epoch": 3}, weights / "pytorch_model.bin")
    assert load_pretrained(Model(), HUB_ID) == HUB_ID


def test_a_head_for_other_classes_stays_random_and_is_reported(weights: Path) -> None:
    source, target = Model(classes=5), Model(classes=7)
    save_safetensors(source.state_dict(), weights)
    own_head = target.head.weight.clone()
    assert load_pretrained(target, HUB_ID, head="head") == f"{HUB_ID}, head random (7 classes, published 5)"
    assert torch.equal(target.body.weight, source.body.weight)
    assert torch.equal(target.head.weight, own_head)


def test_conversion_comes_before_the_fit(weights: Path) -> None:
    source, target = Model(), Model()
    save_safetensors({f"old.{name}": tensor for name, tensor in source.state_dict().items()}, weights)
    load_pretrained(target, HUB_ID, convert=lambda state: {name.removeprefix("old."): tensor for name, tensor in state.items()})
    assert torch.equal(target.body.weight, source.body.weight)


def test_a_file_that_cannot_be_converted_is_named(weights: Path) -> None:
    save_safetensors(Model().state_dict(), weights)
    with pytest.raises(WeightsMissing, match="does not fit this model") as error:
        load_pretrained(Model(), HUB_ID, convert=lambda state: {"body.weight": state["body.weight"].view(5, 5)})
    assert str(weights) in str(error.value)
    assert "\n" not in str(error.value)


def without_body_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != "body.bias"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_body_bias, "body.bias is missing"),
        (lambda state: {**state, "tail.weight": torch.zeros(1)}, "tail.weight is unexpected"),
        (lambda state: {**state, "body.weight": torch.zeros(4, 9)}, r"body.weight is \(4, 9\), not \(4, 3\)"),
        (lambda state: {**state, "head.weight": torch.zeros(9, 4)}, r"head.weight is \(9, 4\), not \(5, 4\)"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    weights: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], said: str
) -> None:
    save_safetensors(change(Model().state_dict()), weights)
    target = Model()
    before = target.body.weight.clone()
    with pytest.raises(WeightsMissing, match=said):
        load_pretrained(target, HUB_ID)
    assert torch.equal(target.body.weight, before)


def test_many_misfits_stay_one_line(weights: Path) -> None:
    save_safetensors({f"x{i}": torch.zeros(1) for i in range(9)}, weights)
    with pytest.raises(WeightsMissing, match="and 10 more") as error:
        load_pretrained(Model(), HUB_ID)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\xff" * 64])
def test_a_torn_file_is_named(weights: Path, name: str, content: bytes) -> None:
    (weights / name).write_bytes(content)
    with pytest.raises(WeightsMissing, match="cannot be read") as error:
        load_pretrained(Model(), HUB_ID)
    assert str(weights / name) in str(error.value)


def test_a_truncated_torch_file_is_named(weights: Path) -> None:
    save_torch(Model().state_dict(), weights)
    file = weights / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(WeightsMissing, match="cannot be read"):
        read(file)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2)])
def test_a_file_without_named_tensors_is_refused(weights: Path, content: object) -> None:
    torch.save(content, weights / "pytorch_model.bin")
    with pytest.raises(WeightsMissing, match="holds no tensors by name"):
        load_pretrained(Model(), HUB_ID)


def test_code_in_a_torch_file_does_not_run(weights: Path) -> None:
    torch.save({"body": nn.Linear(1, 1)}, weights / "pytorch_model.bin")
    with pytest.raises(WeightsMissing, match="cannot be read"):
        load_pretrained(Model(), HUB_ID)


def test_a_preset_without_published_weights_says_so() -> None:
    with pytest.raises(WeightsMissing, match="no weights are published"):
        published(MethodConfig())
    assert published(MethodConfig(weights=HUB_ID)) == HUB_ID


@pytest.mark.usefixtures("empty_cache")
def test_an_unreachable_hub_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, NO_HUB)
    start = monotonic()
    with pytest.raises(WeightsMissing, match=r"the hub cannot be used .*ConnectError") as error:
        find(HUB_ID)
    assert monotonic() - start < HUB_TIMEOUT_S
    assert f"put model.safetensors (or pytorch_model.bin) in $BENCHCTL_WEIGHTS/{HUB_ID}" in str(error.value)


@pytest.mark.usefixtures("empty_cache")
def test_offline_mode_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsMissing, match=r"the hub cannot be used .*OfflineModeIsEnabled"):
        find(HUB_ID)


@pytest.mark.usefixtures("empty_cache")
def test_the_message_names_the_folder_that_is_set(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, NO_HUB)
    with pytest.raises(WeightsMissing, match=str(weights)):
        find(HUB_ID)


class Hub(BaseHTTPRequestHandler):
    """A hub with one answer to everything."""

    status = 404
    code: str | None = None

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        if self.code:
            self.send_header("X-Error-Code", self.code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    use_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "EntryNotFound", "the hub has no such file"),
        (401, "RepoNotFound", "the hub has no such file"),
        (503, None, "the hub cannot be used .*503"),
    ],
)
def test_what_the_hub_answers_is_said(hub: type[Hub], monkeypatch: pytest.MonkeyPatch, status: int, code: str | None, said: str) -> None:
    monkeypatch.setattr(hub, "status", status)
    monkeypatch.setattr(hub, "code", code)
    with pytest.raises(WeightsMissing, match=said) as error:
        find(HUB_ID)
    assert "\n" not in str(error.value)


def test_a_cached_file_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0" * 40
    repository = tmp_path / "cache" / f"models--{HUB_ID.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    save_safetensors(Model().state_dict(), snapshot)
    monkeypatch.delenv("BENCHCTL_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    use_hub(monkeypatch, NO_HUB)
    assert find(HUB_ID) == snapshot / "model.safetensors"
