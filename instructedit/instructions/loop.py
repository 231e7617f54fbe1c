"""The loop: ask for descriptions, screen them, try them, show what was measured, ask for better ones, until it ends.

Everything between two answers is decided by the answers, so a loop that was killed comes to the same place from its
lines. Knows rounds and budgets; how a server is asked and an editor trained, it is told.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict

from instructedit.errors import InputError
from instructedit.instructions.answers import descriptions_in
from instructedit.instructions.cards import TaskCard
from instructedit.instructions.client import Answer, ServerError, estimated_tokens
from instructedit.instructions.loop_record import LoopRecord
from instructedit.instructions.loop_result import START, Ended, Result
from instructedit.instructions.loop_settings import LoopSettings
from instructedit.instructions.pools import POOL_SIZE
from instructedit.instructions.propose import Measured, Message, request
from instructedit.instructions.scores import Gain, Scores, best, gain, means, told_gain
from instructedit.instructions.screen import Names, Verdict, screen
from instructedit.tasks.choice import stable_hash

Ask = Callable[[Sequence[Message], int, int], Answer]
"""Messages, the most tokens of the answer, a seed."""

Try = Callable[[Sequence[str], int], tuple[Scores, float]]
"""Descriptions and a seed; the scores, and the seconds they took."""

LEAST_ANSWER = 32
"""Tokens that are worth asking for."""

SHOWN_REJECTED = 4


class Loop:
    """One task's loop.

    Args:
        card: the task's.
        start: the ten descriptions to improve on; none to begin with the first answer.
        names: what an example would betray itself by.
        settings: budgets and the stop rule.
        record: the run directory.
        ask: asks the server.
        try_: trains and scores.
        told: is given a line about every ask and round.
        on_round: is given the result after every round.
    """

    def __init__(
        self,
        card: TaskCard,
        start: Sequence[str],
        names: Names,
        settings: LoopSettings,
        record: LoopRecord,
        ask: Ask,
        try_: Try,
        told: Callable[[str], None] = lambda line: None,
        on_round: Callable[[Result], None] = lambda result: None,
    ) -> None:
        self.on_round = on_round
        self.card, self.names, self.settings, self.record = card, names, settings, record
        self._ask, self._try, self._told = ask, try_, told
        self.result = Result(list(start), origin=dict.fromkeys(start, START))
        self._known = list(start)
        self._waiting: list[str] = []
        self._rejected: list[Verdict] = []
        self._without_gain = 0

    @property
    def usable(self) -> list[str]:
        """Descriptions that could be used so far, the first ones among them."""
        return list(self._known)

    def run(self) -> Result:
        """Go on from where the record is until the loop ends.

        Raises:
            InputError: a description cannot be tried.
        """
        result, round = self.result, 0
        while not result.ended:
            round += 1
            if round > self.settings.rounds:
                self._end("rounds", f"{self.settings.rounds} rounds were made")
            else:
                self._round(round)
        self.record.keep_once("end", {"ended": result.ended, "why": result.why}, tokens=result.tokens)
        return result

    def _round(self, round: int) -> None:
        """Ask, try and choose, once."""
        result, size = self.result, POOL_SIZE
        self._waiting += self._collect(round, size - len(self._waiting))
        if result.ended in ("server", "minutes"):
            return
        tried = [*result.best, *self._waiting]
        if not self._waiting or len(tried) < size:
            if result.ended:
                return
            asked = len(self.record.all("ask", round=round))
            note = f"only {len(tried)} of the first {size} are there" if self._waiting else "no new description"
            self._closed(round, None, f"{note} after {asked} asks")
            return
        trials = self._trials(round, tried)
        if trials is None:
            return
        found = gain(trials, result.best, size) if result.best else None
        result.shown, result.trials = best(trials, result.best, size), trials
        if found is None or found.told:
            # Without that, whatever noise favours would take the place of what is known to work.
            result.best = result.shown
        else:
            result.best = best(trials, result.best, len(tried), only=result.best)
        self._waiting = []
        self._closed(round, found, "")

    def _closed(self, round: int, found: Gain | None, note: str) -> None:
        """Write a round down, and see whether the loop stops."""
        result, limit = self.result, self.settings
        first = found is None and not note
        gained = found is not None and found.told and found.mean >= limit.threshold
        self._without_gain = 0 if gained or first else self._without_gain + 1
        if found is not None:
            result.gains[round] = found
        told = {"mean": found.mean, "noise": found.noise if found.n_seeds > 1 else None} if found else None
        self.record.keep_once("round", {"round": round}, gain=told, gained=gained, note=note, best=result.best)
        self.on_round(result)
        self._told(f"round {round}: {note or (told_gain(found) if found else 'the first ten were tried')}")
        if result.ended:
            return
        if self._without_gain >= limit.patience:
            if not result.usable:
                self._end("stopped", f"no description could be used in {result.asks} asks")
            else:
                self._end("stopped", f"no gain in {self._without_gain} rounds in a row")

    def _collect(self, round: int, wanted: int) -> list[str]:
        """Ask until enough usable descriptions are there, or the asks are used up."""
        found: list[str] = []
        for number in range(1, self.settings.asks + 1):
            if len(found) >= wanted or self.result.ended:
                break
            messages = self._messages(wanted - len(found), found)
            answer = self._answer(round, number, messages)
            if answer is None:
                break
            texts = descriptions_in(answer.text)
            cut = [Verdict(texts.pop(), "cut off, see --answer-tokens")] if answer.cut and texts else []
            verdicts = screen(texts, self.card, self.names, self._known) + cut
            usable = [verdict.text for verdict in verdicts if verdict.usable][: wanted - len(found)]
            found += usable
            self._known += usable
            self._rejected = [verdict for verdict in verdicts if not verdict.usable]
            self.result.usable += len(usable)
            for text in usable:
                self.result.origin[text] = f"round {round}, ask {number}"
            self.record.keep_once(
                "screened",
                {"round": round, "ask": number},
                kept=usable,
                rejected=[{"text": verdict.text, "reason": verdict.reason} for verdict in self._rejected],
            )
            self._told(
                f"round {round}, ask {number}: {len(usable)} of {len(verdicts)} descriptions can be used; "
                f"{answer.tokens} tokens, {answer.seconds:.1f} s"
            )
        return found

    def _messages(self, wanted: int, found: Sequence[str]) -> list[Message]:
        measured: list[Measured] = []
        if self.result.trials:
            values = means(self.result.trials)
            measured = [Measured(text, values[text]) for text in self.result.shown]
        else:
            found = [*self._waiting, *found]
        rejected = [(verdict.text, verdict.reason.partition(":")[0]) for verdict in self._rejected[:SHOWN_REJECTED]]
        return request(self.card, wanted, measured, found, rejected)

    def _answer(self, round: int, number: int, messages: Sequence[Message]) -> Answer | None:
        """Return the answer that is written down, or ask for one within the budget; None where there is none."""
        result = self.result
        line = self.record.find("ask", round=round, ask=number)
        if line is not None:
            answer = Answer(**line["answer"])
        elif self.record.find("trial", round=round) or self.record.find("round", round=round):
            return None  # an earlier start went on without this ask, for want of a budget it had then
        else:
            room = self._room(messages)
            if room is None:
                return None
            seed = stable_hash("ask", str(self.settings.seed), str(round), str(number)) % 2**31
            try:
                answer = self._ask(messages, room, seed)
            except ServerError as error:
                self.record.keep("failure", round=round, ask=number, error=str(error))
                self._end("server", str(error))
                return None
            self.record.keep("ask", round=round, ask=number, seed=seed, messages=messages, answer=asdict(answer))
        result.asks += 1
        result.tokens += answer.tokens
        result.seconds += answer.seconds
        return answer

    def _room(self, messages: Sequence[Message]) -> int | None:
        """Return how many tokens an answer may have; None where a budget is used up."""
        limit, spent = self.settings, self.result
        if self._late():
            return None
        if limit.max_tokens is None:
            return limit.answer_tokens
        room = min(limit.answer_tokens, limit.max_tokens - spent.tokens - estimated_tokens(messages))
        if room < LEAST_ANSWER:
            self._end("tokens", f"of the {limit.max_tokens} tokens {spent.tokens} are spent")
            return None
        return room

    def _trials(self, round: int, tried: Sequence[str]) -> list[Scores] | None:
        """Return each seed's scores, from the record or made now; None where the time is used up."""
        found: list[Scores] = []
        for number in range(self.settings.seeds):
            seed = self.settings.seed + number
            line = self.record.find("trial", round=round, seed=seed)
            if line is None:
                if self._late():
                    return None
                scores, seconds = self._try(tried, seed)
                line = self.record.keep("trial", round=round, seed=seed, seconds=seconds, scores=scores)
            if set(line["scores"]) != set(tried):
                raise InputError(
                    f"The trial of round {round} in {self.record.folder} is of other descriptions than its answers "
                    "give: it was made by another version of this program. Choose another --out."
                )
            found.append(line["scores"])
            self.result.seconds += line["seconds"]
        return found

    def _late(self) -> bool:
        limit = self.settings.max_minutes
        if limit is None or self.result.seconds < 60 * limit:
            return False
        self._end("minutes", f"of {limit:g} minutes {self.result.seconds / 60:.1f} are spent")
        return True

    def _end(self, ended: Ended, why: str) -> None:
        self.result.ended, self.result.why = ended, why
