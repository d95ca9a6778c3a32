"""Where a user's folders are."""

from pathlib import Path

import pytest

from benchctl.folders import cache_folder, data_root, flow_folder, index_folder, weights_folder


def test_each_is_named_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in (
        ("DATA", data_root),
        ("CACHE", cache_folder),
        ("FLOW", flow_folder),
        ("INDEX", index_folder),
        ("WEIGHTS", weights_folder),
    ):
        monkeypatch.setenv(f"BENCHCTL_{name}", str(tmp_path / name))
        assert folder() == tmp_path / name


def test_without_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BENCHCTL_DATA", "BENCHCTL_CACHE", "BENCHCTL_FLOW", "BENCHCTL_INDEX", "BENCHCTL_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (data_root(), weights_folder()) == (None, None)
    assert (cache_folder(), flow_folder()) == (tmp_path / ".cache" / "benchctl", tmp_path / ".cache" / "benchctl" / "flow")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert flow_folder() == tmp_path / "cache" / "benchctl" / "flow"
    assert index_folder() == tmp_path / "cache" / "benchctl" / "index"
