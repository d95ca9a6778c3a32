"""Published weights: where they come from, and what must fit before they are used.

A hub id is `owner/repository`, or `owner/repository:file` where a repository keeps several. The file is looked for in
`$BENCHCTL_WEIGHTS/<owner/repository>/<file>`, then in the Hugging Face cache, then on the hub. Nothing is loaded partly: every
tensor of the checkpoint has a place and every place gets a tensor, except those that the module adds to the published model, and
the classifier, which stays random where the number of classes differs; the description that `load_pretrained` returns says so.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from benchctl.errors import WeightsMissing
from benchctl.folders import weights_folder
from benchctl.spec import MethodConfig

State = dict[str, Tensor]

#: how results name weights that were not loaded from anywhere
RANDOM = "random"
#: names under which a hub's repository keeps its weights, the preferred one first
FILES = ("model.safetensors", "pytorch_model.bin")
#: one look at the hub may take this long, in seconds
HUB_TIMEOUT_S = 5.0
_OTHER_FILE = "put the file of this preset's 'weights' there"


def load_pretrained(
    module: nn.Module,
    hub_id: str,
    *,
    convert: Callable[[State], State] | None = None,
    head: str | None = None,
    added: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Load the published weights `hub_id` into `module`.

    Args:
        module: what is loaded into; its names are those of the converted checkpoint.
        hub_id: `owner/repository` on the hub, or `owner/repository:file`.
        convert: from the checkpoint's tensors to the module's names and shapes.
        head: name of the classifier in `module`; where its shape differs from the checkpoint's, it keeps its random weights.
        added: what each tensor of `module` is, in words, that the published model does not have: a checkpoint may lack it.

    Returns:
        What was loaded, one line for the result: the hub id, and what was left as it was, the head or what is added.

    Raises:
        WeightsMissing: the file is nowhere, cannot be read, or does not fit; the message names the file or the tensors.
    """
    file = find(hub_id)
    state = read(file)
    if convert:
        try:
            state = convert(state)
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            raise WeightsMissing(f"does not fit this model ({type(error).__name__}: {error})", where=str(file), fix=_OTHER_FILE) from error
    own = module.state_dict()
    other_classes = [
        name for name in state if head and name.startswith(f"{head}.") and name in own and own[name].shape != state[name].shape
    ]
    found = {name: tensor for name, tensor in state.items() if name not in other_classes}
    _require_fit(own, found, left_out=[*other_classes, *added], file=file)
    module.load_state_dict(found, strict=False)
    said = [hub_id]
    if other_classes:
        published, ours = state[other_classes[0]].shape[0], own[other_classes[0]].shape[0]
        said.append(f"{head} random ({ours} classes, published {published})")
    if initial := dict.fromkeys(words for name, words in added.items() if name not in found):
        said.append(f"{' and '.join(initial)} as initialised")
    return ", ".join(said)


def published(config: MethodConfig) -> str:
    """The hub id in a method's config.

    Raises:
        WeightsMissing: none is published.
    """
    if config.weights is None:
        raise WeightsMissing("no weights are published for this preset", fix="use 'pretrained: false', or name a checkpoint in 'weights'")
    return config.weights


def find(hub_id: str) -> Path:
    """The weight file of `hub_id` on this machine, fetched when it is not there yet.

    Raises:
        WeightsMissing: it is not on this machine and the hub does not give it; the message names the file and the folder.
    """
    repository, names = _named(hub_id)
    root = weights_folder()
    if root:
        for name in names:
            file = root / repository / name
            if file.is_file():
                return file
    import huggingface_hub

    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    for name in names:
        fetched = _fetch(hub_id, repository, name)
        if fetched:
            return fetched
    raise _missing(hub_id, "the hub has no such file")


def _named(hub_id: str) -> tuple[str, tuple[str, ...]]:
    """The repository of a hub id, and the names under which its weights may be there."""
    repository, _, name = hub_id.partition(":")
    return repository, (name,) if name else FILES


def _fetch(hub_id: str, repository: str, name: str) -> Path | None:
    """The file, downloaded into the hub's cache; None when the hub has no such file."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        # asked without the client's retries first, which otherwise go on for half a minute and more where there is no network
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repository, name), timeout=HUB_TIMEOUT_S)
        return Path(huggingface_hub.hf_hub_download(repository, name, etag_timeout=HUB_TIMEOUT_S))
    except (EntryNotFoundError, RepositoryNotFoundError) as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise _missing(hub_id, f"the hub went away during the download of {name}") from error
        return None
    except Exception as error:
        # no narrower kind: the client's HTTP library, and so its exceptions, differ between the client's versions
        raise _missing(hub_id, f"the hub cannot be used ({type(error).__name__}: {error})") from error


def _missing(hub_id: str, why: str) -> WeightsMissing:
    repository, names = _named(hub_id)
    folder = (weights_folder() or Path("$BENCHCTL_WEIGHTS")) / repository
    file = " (or ".join(names) + ")" * (len(names) - 1)
    return WeightsMissing(why, where=f"weights {hub_id}", fix=f"put {file} in {folder}, or use 'pretrained: false'")


def read(file: Path) -> State:
    """The tensors of a safetensors or torch checkpoint, on the CPU.

    A torch file may hold the tensors themselves or one of them under `model`, `module`, `state_dict` or `model_state`.

    Raises:
        WeightsMissing: the file is torn, is not a checkpoint, or holds other things than tensors.
    """
    content = contents(file)
    for key in ("model", "module", "state_dict", "model_state"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise WeightsMissing("holds no tensors by name", where=str(file), fix="put the published weight file there")
    return content


def contents(file: Path) -> Any:
    """All that a safetensors or torch file holds, on the CPU.

    Raises:
        WeightsMissing: the file is torn or holds other things than tensors and plain values.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise WeightsMissing(f"cannot be read ({type(error).__name__})", where=str(file), fix="fetch it again") from error


def _require_fit(own: State, found: State, *, left_out: list[str], file: Path) -> None:
    wrong = [
        f"{name} is {tuple(found[name].shape)}, not {tuple(own[name].shape)}"
        for name in found
        if name in own and found[name].shape != own[name].shape
    ]
    missing = [f"{name} is missing" for name in own if name not in found and name not in left_out]
    unexpected = [f"{name} is unexpected" for name in found if name not in own]
    problems = wrong + missing + unexpected
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsMissing(
            f"does not fit this model: {'; '.join(problems[:3])}{more}",
            where=str(file),
            fix=_OTHER_FILE,
        )
