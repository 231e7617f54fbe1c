"""The acceptance from the job's script: phases of real processes, one ``srun`` after the other. Loads no torch.

What has been done is remembered in the state folder, because the job is started again in the midst of it: a phase whose
results are there is not repeated.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

import yaml

from instructedit.errors import InputError
from lightning_modules.acceptance.results import Result, passed, read_results, table, write_results
from lightning_modules.acceptance.setting import Setting

STRATEGIES = ("ddp", "zero_2", "zero_3", "fsdp2")
REQUEUE_SECONDS = 180.0
"""How long SLURM may take to end a job that was requeued."""

MOST_RESTARTS = 4
"""A job that was started again more often is not going to end well by itself."""


class Driver:
    """Runs the phases.

    Args:
        setting: the job's.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.folder = setting.folder
        self.marker = setting.folder / "told-to-stop"

    def run(self) -> list[Result]:
        """Run what has not been run yet, and return all results in order."""
        setting, found = self.setting, []
        self.folder.mkdir(parents=True, exist_ok=True)
        for phase in setting.phases:
            if not (self.folder / f"done-{phase}").exists():
                print(f"acceptance: {phase} ...", flush=True)
                results = self._phase(phase)
                write_results(self.folder, phase, results)
                (self.folder / f"done-{phase}").touch()
            found += read_results(self.folder, phase)
        return found

    def _phase(self, phase: str) -> list[Result]:
        if self.setting.restarts > MOST_RESTARTS:
            return [
                Result(phase, "FAIL", f"the job was started again {self.setting.restarts} times before this was done")
            ]
        return {"ranks": self._ranks, "strategies": self._strategies, "requeue": self._requeue}[phase]()

    # --- the phases --------------------------------------------------------------------------------------------------
    def _ranks(self) -> list[Result]:
        shutil.rmtree(self.folder / "states", ignore_errors=True)
        fault = self._srun("ranks", self.setting.ranks, ["lightning_modules.acceptance", "ranks"])
        found = read_results(self.folder, "ranks")
        if fault:
            found.append(
                Result("ranks" if found else "ranks meet", "FAIL", f"the ranks have not come to their end: {fault}")
            )
        return found

    def _strategies(self) -> list[Result]:
        setting = self.setting
        fault = self._prepare() or self._train("alone", "auto", 1)
        if fault:
            return [Result("one process", "FAIL", fault)]
        if setting.ranks == 1:
            return [Result(name, "SKIP", "the job has one rank") for name in STRATEGIES]
        found: dict[str, Result] = {}
        for name in STRATEGIES:
            needed = ("deepspeed", "accelerate") if name.startswith("zero") else ()
            missing = [package for package in needed if find_spec(package) is None]
            more = ["--model.placement", "sharded"] if name == "zero_3" else []
            if missing:
                found[name] = Result(name, "SKIP", f"{missing[0]} is not installed")
            elif fault := self._train(name, name, setting.ranks, *more):
                found[name] = Result(name, "FAIL", fault)
        compared = self._compared("strategies", [name for name in STRATEGIES if name not in found])
        return sorted([*compared, *found.values()], key=lambda result: (*STRATEGIES, result.name).index(result.name))

    def _requeue(self) -> list[Result]:
        setting = self.setting
        strategy = "ddp" if setting.ranks > 1 else "auto"
        control = "ddp" if setting.ranks > 1 else "alone"
        first = not self.marker.exists()
        if first:
            fault = self._prepare()
            if not fault and not self._is_trained(control):
                fault = self._train(control, strategy, setting.ranks)
            if fault:
                return [Result("requeue", "FAIL", fault)]
        self._write("requeue.yaml", setting.interrupted(self.marker))
        fault = self._train("requeue", strategy, setting.ranks, config="requeue.yaml")
        if fault:
            return [Result("requeue", "FAIL", fault)]
        if first:
            if not self.marker.exists():
                return [Result("requeue", "FAIL", "the training has ended without being told to stop")]
            # The job has been given back: this process ends here, with the others.
            time.sleep(REQUEUE_SECONDS)
            told = f"the training was saved, but SLURM has not started the job again in {REQUEUE_SECONDS:.0f} s"
            return [Result("requeue", "FAIL", f"{told}: see JobRequeue in `scontrol show config`")]
        if setting.restarts == 0:
            return [Result("requeue", "FAIL", f"{self.marker} is of another job. Remove {self.folder}")]
        return self._compared("requeue", [control])

    # --- processes ---------------------------------------------------------------------------------------------------
    def _prepare(self) -> str:
        """Make the demo tasks, once; return what is wrong."""
        if (self.folder / "data" / "demo-counterfact" / "card.json").is_file():
            return ""
        arguments = ["prepare", "--source", "demo", "--tasks", "demo-recent,demo-counterfact"]
        return self._srun("prepare", 1, ["instructedit", *arguments, "--out", str(self.folder / "data")])

    def _train(self, name: str, strategy: str, ranks: int, *more: str, config: str = "experiment.yaml") -> str:
        """Train with some ranks, or go on; return what is wrong."""
        if config == "experiment.yaml":
            self._write(config, self.setting.experiment())
        per_node = self.setting.ranks_per_node if ranks > 1 else 1
        flags = ["--run.name", name, "--trainer.strategy", strategy, "--trainer.devices", str(per_node)]
        flags += ["--trainer.num_nodes", str(ranks // per_node)]
        return self._srun(name, ranks, ["instructedit", "fit", "--config", str(self.folder / config), *flags, *more])

    def _is_trained(self, name: str) -> bool:
        return (self.setting.runs / name / "editor" / "card.json").is_file()

    def _compared(self, phase: str, names: Sequence[str]) -> list[Result]:
        """Let a process of its own compare trainings: it loads torch."""
        if not names:
            return []
        fault = self._srun(f"compare-{phase}", 1, ["lightning_modules.acceptance", "compare", phase, *names])
        if fault:
            return [Result(phase, "FAIL", f"the trainings could not be compared: {fault}")]
        return read_results(self.folder, f"compared-{phase}")

    def _srun(self, name: str, ranks: int, module: Sequence[str]) -> str:
        """Run ``python -m`` something on all ranks, or on one; return what is wrong, empty where nothing is."""
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        nodes = self.setting.nodes if ranks > 1 else 1
        tasks = [f"--nodes={nodes}", f"--ntasks={ranks}", f"--ntasks-per-node={ranks // nodes}"]
        command = ["srun", "--kill-on-bad-exit=1", *tasks, *self.setting.python, "-m", *module]
        began = time.monotonic()
        with log.open("a", encoding="utf-8") as file, _started(command, file, self.setting.restarts) as process:
            try:
                status = process.wait(timeout=60 * self.setting.minutes)
            except subprocess.TimeoutExpired:
                return f"not done in {self.setting.minutes:g} minutes; see {log}"
        print(f"acceptance: {name}: status {status} after {time.monotonic() - began:.0f} s", flush=True)
        return f"status {status}: {_last_words(log)} ({log})" if status else ""

    def _write(self, name: str, content: object) -> None:
        (self.folder / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@contextlib.contextmanager
def _started(command: Sequence[str], log: TextIO, start: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that writes to a log and does not outlive the block."""
    log.write(f"=== start {start}: {' '.join(command)}\n")
    log.flush()
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _last_words(log: Path) -> str:
    """The line of a log that tells most: the last with an error in it, else the last one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("srun:", "slurmstepd:"))] or lines
    errors = [line for line in own if "error" in line.lower()]
    return (errors or own or ["it has said nothing"])[-1][:300]


def main(python: str = sys.executable) -> int:
    """Run the acceptance in a job's script; print the table and the verdict, and return the exit status."""
    try:
        setting = Setting.from_environment(python)
        found = Driver(setting).run()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shape = {"job": setting.job, "nodes": setting.nodes, "ranks": setting.ranks, "accelerator": setting.accelerator}
    verdict = "PASS" if passed(found) else "FAIL"
    content = {"verdict": verdict, **shape, "base": setting.base, "restarts": setting.restarts}
    content["results"] = [{**vars(result)} for result in found]
    path = setting.folder / "acceptance.json"
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"\nresults: {path}\n\n{table(found)}", flush=True)
    return 0 if verdict == "PASS" else 1
