"""The command ``instruct``: a language model writes a task's descriptions, short trainings choose among them.

Knows flags, the order of the work and what is told. The rounds, `instructedit.instructions.loop` knows; the data set of
all pools, `instructedit.instructions.publish`.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instructedit.errors import InputError
from instructedit.instructions.trial_settings import TrialSettings
from instructedit.terminal import quoted

if TYPE_CHECKING:
    from instructedit.instructions.cards import TaskCard
    from instructedit.instructions.loop import Loop
    from instructedit.instructions.loop_record import LoopRecord
    from instructedit.instructions.loop_result import Result
    from instructedit.instructions.pools import InstructionPool
    from instructedit.instructions.trial import TrialEditor

Names = list[str] | str
"""A list, or names separated by commas."""

EXPERIMENTS = {"demo-": "configs/experiment/demo.yaml", "": "configs/experiment/instructedit-smollm2-135m.yaml"}
"""What the next command names, by how a task begins."""


def instruct(
    task: str = "",
    model: str = "",
    base_url: str = "",
    out: str = "",
    trial: TrialSettings = TrialSettings(),  # noqa: B008 - frozen
    instructions: str = "configs/instructions",
    from_scratch: bool = False,
    card: str = "configs/instructions/cards",
    rounds: int = 4,
    asks: int = 3,
    patience: int = 2,
    threshold: float = 0.005,
    max_tokens: int | None = None,
    max_minutes: float | None = None,
    answer_tokens: int = 1200,
    temperature: float = 1.0,
    timeout: float = 120.0,
    retries: int = 5,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dry_run: bool = False,
    publish: bool = False,
    runs: Names = "",
    repo: str = "OWNER/instructedit-instructions",
    private: bool = False,
) -> None:
    """Ask a model for descriptions of a task, try them, ask for better ones, and keep the best ten.

    Everything asked and measured is kept in OUT at once: stopped in any way, the same command goes on where it was.
    The key is taken from the environment variable OPENAI_API_KEY; a server of your own mostly needs none.

    Args:
        task: the task, such as counterfact.
        model: the model's name on the server.
        base_url: the server's address, such as http://localhost:8000/v1; OpenAI's own where it is left out.
        out: the run directory; runs/instruct-TASK where it is left out.
        trial: the Trial Editor, a short meta-training that measures descriptions; mostly from a file:
            --config configs/instruct/demo.yaml.
        instructions: the pools to begin with and to publish, a YAML file or a folder.
        from_scratch: begin with the model's first ten in place of the task's own pool.
        card: the tasks' cards, a YAML file or a folder; a task of your own needs one.
        rounds: the most rounds.
        asks: the most asks a round, where too few descriptions of an answer can be used.
        patience: stop after so many rounds in a row without a gain.
        threshold: a gain of the mean score (0 to 1) below this is none, nor is one that does not exceed its noise.
        max_tokens: budget of all messages and answers.
        max_minutes: budget of answers and trials, over all starts.
        answer_tokens: the most tokens of one answer.
        temperature: of the model's sampling.
        timeout: seconds to wait for an answer to begin, and again for it to end.
        retries: further tries of a request that fails in a way that may pass.
        seed: of the trials and the asks.
        device: where the base is; auto takes a GPU where there is one.
        dry_run: print the first prompt and stop; with --publish, show what would be sent and send nothing.
        publish: collect all pools and those of --runs as a data set and send it to the Hugging Face Hub.
        runs: with --publish: run directories of this command, separated by commas.
        repo: with --publish: the repository, as OWNER/NAME.
        private: with --publish: only its owner is to see the repository.
    """
    if publish:
        from instructedit.commands.instruct_publish import publish_pools

        publish_pools(instructions, card, _names(runs), repo, private, dry_run, out)
        return
    if not task:
        raise InputError("--task is missing. Say whose descriptions are wanted, such as counterfact.")
    from instructedit.instructions.cards import card_for, load_cards

    described = card_for(load_cards(card), task)
    if dry_run:
        _show_prompt(described)
        return
    if not model:
        raise InputError("--model is missing. Name the model as its server does; GET BASE_URL/models lists them.")
    from instructedit.instructions.client import Server
    from instructedit.instructions.loop import Loop
    from instructedit.instructions.loop_record import LoopRecord
    from instructedit.instructions.loop_settings import LoopSettings
    from instructedit.instructions.screen import Names as Known
    from instructedit.instructions.trial_progress import TrialProgress

    limits = LoopSettings(rounds, asks, patience, threshold, max_tokens, max_minutes, answer_tokens, trial.seeds, seed)
    server = Server(model, base_url, temperature, timeout, retries, told=_tell)
    pools, start = _start(instructions, described, from_scratch)
    editor, where = _editor(described, trial, pools, device), Path(out or f"runs/instruct-{task}")
    examples = list(editor.records.all_of(task))
    known = Known.of(examples, [*map(str, described.as_dict().values()), *start])
    settings = _settings(described, start, model, temperature, seed, trial, editor)

    def try_(texts: Any, own_seed: int) -> Any:
        with TrialProgress(f"{len(texts)} descriptions, seed {own_seed}") as progress:
            return editor.run(texts, own_seed, lambda work: progress.advance(work.phase, work.done, work.total))

    with LoopRecord.opened(where, settings) as record:

        def write(result: "Result") -> None:
            _write(where, described, result, record, editor, server.host, pools)

        loop = Loop(described, start, known, limits, record, server.ask, try_, told=print, on_round=write)
        try:
            result = loop.run()
        except KeyboardInterrupt:
            again = shlex.join(["instructedit", *sys.argv[1:]])  # whichever way it was started
            _tell(f"Stopped. Nothing answered or measured is lost; the same command goes on: {again}")
            raise
        write(result)
        _conclude(where, described, result, loop, f"{model} at {server.host}", trial.data)


def _names(given: Names) -> list[str]:
    parts = given.split(",") if isinstance(given, str) else given
    return [part.strip() for part in parts if part.strip()]


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show_prompt(described: "TaskCard") -> None:
    from instructedit.instructions.pools import POOL_SIZE
    from instructedit.instructions.propose import request

    for message in request(described, POOL_SIZE):
        print(f"{message['role']}:\n\n{message['content']}\n")
    print("Nothing was asked. The same command without --dry-run asks this first.")


def _start(
    instructions: str, described: "TaskCard", from_scratch: bool
) -> "tuple[Mapping[str, InstructionPool], tuple[str, ...]]":
    """Return all pools, and the descriptions to begin with: the task's pool or that of its family, or none."""
    from instructedit.instructions.pools import load_pools

    pools = load_pools(instructions)
    own = pools.get(described.task) or pools.get(described.task.removeprefix("demo-"))
    return pools, () if from_scratch or own is None else own.descriptions


def _editor(
    described: "TaskCard", trial: TrialSettings, pools: "Mapping[str, InstructionPool]", device: str
) -> "TrialEditor":
    import torch

    from instructedit.instructions.trial import TrialEditor, TrialRecords

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU here. Choose cpu or auto.")
    where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return TrialEditor(described.task, described.label, trial, TrialRecords(described.task, trial, pools), where)


def _settings(
    described: "TaskCard",
    start: tuple[str, ...],
    model: str,
    temperature: float,
    seed: int,
    trial: TrialSettings,
    editor: "TrialEditor",
) -> dict[str, Any]:
    """What a loop that goes on must have in common with the one that began; budgets and addresses may change."""
    given = {f"trial.{name}": value for name, value in asdict(trial).items() if name not in ("data", "edits_at_once")}
    given["trial.base"] = editor.fingerprint
    return {
        **given,
        "task card": described.as_dict(),
        "first descriptions": start,
        "model": model,
        "temperature": temperature,
        "seed": seed,
        "data": editor.hashes,
    }


def _write(
    where: Path,
    described: "TaskCard",
    result: "Result",
    record: "LoopRecord",
    editor: "TrialEditor",
    host: str,
    pools: "Mapping[str, InstructionPool]",
) -> None:
    """Write the pool, where there are ten, and the card."""
    from instructedit.instructions.pool_card import CARD, POOL, card_of, make_pool, write_card, write_pool
    from instructedit.instructions.provenance import provenance

    made = card_of(described, result, provenance(record, editor, host))
    pool = make_pool(described, result)
    try:
        if pool is not None:
            note = f"Written by {made['provenance']['model']} and chosen by `instructedit instruct`; see {CARD}."
            write_pool(where / POOL, pool, pools, note)
        write_card(where, made, result)
    except OSError as error:
        raise InputError(f"Cannot write to {where}: {error.strerror}. The same command goes on.") from error


def _conclude(where: Path, described: "TaskCard", result: "Result", loop: "Loop", model: str, data: str) -> None:
    """Say what came of it, where it lies and what to do next; an end without anything new is an error."""
    from instructedit.instructions.loop_record import EVENTS
    from instructedit.instructions.loop_result import START
    from instructedit.instructions.pool_card import CARD_PAGE, POOL
    from instructedit.instructions.pools import POOL_SIZE
    from instructedit.tasks import TASKS

    ready = len(result.best) == POOL_SIZE
    new = sum(result.origin[text] != START for text in result.best)
    if not ready:
        far = f"{len(loop.usable)} of the {POOL_SIZE} descriptions a pool needs are there"
    elif not result.trials:
        far = f"the best so far is the pool it began with, unmeasured: {where / POOL}"
    else:
        far = f"the best so far, {new} of them new: {where / POOL}"
    again = "The same command goes on."
    if result.ended == "server":
        raise InputError(f"{result.why.rstrip('.')}. After {result.asks} answers {far}. {again}")
    if not result.usable or not ready:
        used = f"{result.usable or 'No'} description{'s' * (result.usable > 1)} could be used in {result.asks} asks"
        raise InputError(
            f"{used} of {model} ({result.why}); {far}. The reasons are in {where / EVENTS}. Try a larger model, or "
            "more --rounds: the same command goes on."
        )
    gains = [number for number, found in result.gains.items() if found.told]
    print(f"ended   {result.why}; {result.asks} answers, {result.tokens} tokens, {result.seconds:.0f} s")
    beyond = f"beyond the noise in round {', '.join(map(str, gains))}" if gains else "none beyond the noise"
    print(f"gain    {beyond}; {new} of the ten are new")
    print(f"pool    {quoted(where / POOL)}")
    print(f"card    {quoted(where / CARD_PAGE)}")
    experiment = next(file for start, file in EXPERIMENTS.items() if described.task.startswith(start))
    own = (
        ""
        if described.task in TASKS
        else f" --data.folder {quoted(data)} --data.tasks '[{described.task}]' --data.held_out '[]' "
        "--data.balance equal --data.caps null"
    )
    print(
        f"next    instructedit fit --config {experiment} --config configs/trainer/cpu.yaml --data.instructions "
        f"{quoted(where / POOL)} --run.name {quoted(where.name)}-fit{own}"
    )
