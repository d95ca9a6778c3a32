"""The rooms of the house: who may import whom, and what may be imported where."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import benchctl

PACKAGE = Path(benchctl.__file__).parent
VOCABULARY = {
    "atomic_file",
    "budget",
    "errors",
    "folders",
    "gpu_models",
    "gpu_rates",
    "launch",
    "spec",
    "record",
    "lookup",
    "pins",
    "pretrained_on",
    "recipe",
    "statistics",
    "suite_file",
    "vocabulary",
    "yaml_file",
}

#: room -> rooms it may import; `benchctl` is the package itself (its version)
ALLOWED: dict[str, set[str]] = {
    **{name: VOCABULARY | {"benchctl"} for name in VOCABULARY},
    "plan": VOCABULARY,
    "layers": VOCABULARY,
    "probes": VOCABULARY,
    "data": VOCABULARY,
    "metrics": VOCABULARY,
    "methods": VOCABULARY | {"layers"},
    "engine": VOCABULARY | {"methods", "data", "metrics", "probes"},
    "store": VOCABULARY,
    "gate": VOCABULARY,
    "claims": VOCABULARY,
    "report": VOCABULARY | {"store", "gate", "claims"},
    "visualize": VOCABULARY | {"methods", "data", "layers", "metrics"},
    "run": VOCABULARY | {"plan", "store", "benchctl"},
}
#: the only module of `run` that reaches the engine
WORKER = "run/worker.py"

#: third-party package -> where it may be imported
THIRD_PARTIES: dict[str, tuple[str, ...]] = {
    "typer": ("cli/",),
    "sqlalchemy": ("store/",),
    "matplotlib": ("report/", "visualize/"),
    "pandas": ("report/",),
    "torch": ("layers/", "methods/", "data/", "metrics/", "probes/", "engine/", "visualize/"),
    "timm": ("layers/", "methods/", "data/augment.py"),
    "torchvision": ("layers/", "methods/"),
    "cv2": ("layers/", "data/tracks.py", "data/track_files.py", "data/jpeg_folder.py", "data/depth_folder.py"),
    "sklearn": ("visualize/",),
    "transformers": ("layers/", "methods/"),
    "cotracker": ("data/tracks.py",),
    "pynvml": ("probes/",),
    "deepspeed": ("engine/deepspeed.py", "engine/rank_memory.py", "run/launch.py"),
    "decord": ("data/",),
    "av": ("data/",),
    "fvcore": ("probes/",),
    "rich": ("cli/",),
    "ruamel": ("yaml_file.py",),
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Every module that `file` names in an import anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import hides the room"
            found.add(node.module or "")
            if node.module == "benchctl":
                found |= {f"benchctl.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_rooms_import_only_what_they_may(file: Path):
    name = str(file.relative_to(PACKAGE))
    room = name.partition("/")[0].removesuffix(".py")
    if room in ("cli", "__init__", "__main__"):
        return
    for module in imports(file):
        parts = module.split(".")
        if parts[0] != "benchctl":
            continue
        other = parts[1] if len(parts) > 1 else "benchctl"
        if other == room or (other == "benchctl" and len(parts) == 1):
            continue
        assert other != "cli", f"{name} imports the command line"
        allowed = ALLOWED[room] | ({"engine"} if name == WORKER else set())
        assert other in allowed, f"{name} may not import benchctl.{other}"


@pytest.mark.parametrize("file", MODULES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_third_parties_stay_in_their_rooms(file: Path):
    name = str(file.relative_to(PACKAGE))
    for module in imports(file):
        rooms = THIRD_PARTIES.get(module.partition(".")[0])
        assert rooms is None or name.startswith(rooms), f"{name} may not import {module}"


def loaded_after(*arguments: str) -> set[str]:
    """The modules that the command has imported when it ends."""
    code = (
        "import sys\nfrom benchctl.cli.app import main\n"
        f"sys.argv = ['benchctl', *{list(arguments)!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *sys.modules, file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return set(ended.stderr.rpartition("MODULES ")[2].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["list", "methods"],
        ["list", "datasets"],
        ["list", "suites"],
        ["list", "tables"],
        ["list", "published"],
        ["report", "--table", "efficiency"],
        ["report", "--table", "efficiency", "--published"],
        ["schema"],
        ["check", "ci"],
        ["baseline", "accept", "pins.yaml", "--run", "x", "--reason", "x"],
        ["compare", "x", "y"],
        ["claims"],
    ],
    ids=" ".join,
)
def test_commands_that_read_never_import_torch(arguments: list[str], tmp_path: Path):
    reads = arguments[0] in ("report", "check", "baseline", "compare", "claims")
    database = ["--db", str(tmp_path / "none.db")] if reads else []
    modules = loaded_after(*arguments, *database)
    assert "benchctl.cli.app" in modules
    assert not modules & {"torch", "transformers", "timm", "matplotlib", "pandas", "decord", "av"}


def test_help_imports_nothing_heavy():
    assert not loaded_after("--help") & {"pydantic", "sqlalchemy", "ruamel.yaml", "rich", "numpy"}


def test_help_costs_little_more_than_the_library_that_prints_it():
    # the contract of the command line; the least of a few runs, since a busy machine only adds
    import resource

    def seconds(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    alone = min(seconds("-c", "import typer.main, typer.core") for _ in range(6))
    assert min(seconds("-m", "benchctl", "--help") for _ in range(6)) < 2.5 * alone
