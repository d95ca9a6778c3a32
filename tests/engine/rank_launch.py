"""Starts one of this folder's scripts as several ranks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

#: longest that one launch takes, in seconds
LIMIT = 400


def start_ranks(script: str, arguments: list[str], folder: Path, ranks: int = 2) -> None:
    """Run `script` as CPU ranks that find each other, on one thread each; nothing may be compiled. Their logs lie in `folder`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks), "GLOO_SOCKET_IFNAME": "lo"}
    common |= {"OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": str(folder / "extensions")}
    logs = [folder / f"rank{rank}.log" for rank in range(ranks)]
    processes = []
    for rank, log in enumerate(logs):
        environment = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with log.open("wb") as output:
            command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
            processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True))
    try:
        codes = [process.wait(LIMIT) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert codes == [0] * ranks, "\n".join(log.read_text()[-2000:] for log in logs)
    assert not (folder / "extensions").exists(), "something was compiled"
