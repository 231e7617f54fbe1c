"""A real language model server here: SmolLM2-135M behind `transformers serve`, killed and started at will."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from instructedit.base.smollm2 import converted_folder

START_SECONDS = 120


def folder_to_serve(folder: Path) -> Path:
    """Lay the files of the alias smollm2-135m out as a server wants them: with its class's name, and sampling."""
    source = converted_folder()
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.name != "config.json":
            os.symlink(file, folder / file.name)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    # Without do_sample the server ignores the temperature and always says the same.
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "top_p": 0.95, "eos_token_id": 2}))
    return folder


class Served:
    """One server process on one port.

    Args:
        folder: the model, as ``folder_to_serve`` makes it.
        port: a free one.
        log: where its output goes.
    """

    def __init__(self, folder: Path, port: int, log: Path) -> None:
        self.folder, self.port, self.log = folder, port, log
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self.port}/v1"

    def start(self) -> None:
        program = shutil.which("transformers", path=str(Path(sys.executable).parent)) or "transformers"
        command = [program, "serve", str(self.folder), "--port", str(self.port), "--device", "cpu"]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        limit = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"the server did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """As a machine that goes down does it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def asked(self) -> int:
        """How many completions it was asked for, over all starts."""
        return self.log.read_text(errors="replace").count("[Request received]")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://localhost:{self.port}/health", timeout=2) as said:
                return bool(said.status == 200)
        except (urllib.error.URLError, OSError):
            return False
