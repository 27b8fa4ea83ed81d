"""The search: every strategy's slots filled in turn, each strategy asked by its own Optuna study."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from harness.atomic import atomic_write
from harness.config.space import space, tried
from harness.config.trial import Strategy, TrialConfig
from harness.results.event_types import Duplicate, SearchFinished, StrategyExhausted
from harness.results.names import SEARCH_SPLIT
from harness.results.paths import StudyFolder
from harness.results.records import TrialJob, TrialRecord
from harness.results.study_state import Slot
from harness.results.trial_id import TrialId
from harness.search.optuna_journal import OptunaMirror
from harness.search.optuna_params import params_of
from harness.search.strategy_search import StrategySearch
from harness.seeds import derive
from harness.study.executors.base import Died, EpochMessage, Message, Trained
from harness.study.session import Session
from harness.study.sync import open_mirror
from harness.study.time_budget import Budget

MAX_REDRAWS = 10  # duplicates in a row after which a strategy is exhausted


class SlotSearch:
    """Equal budgets: slot k of every strategy comes before slot k + 1 of any."""

    def __init__(self, session: Session) -> None:
        self._session, self._study, self._state = session, session.study, session.state
        self._searches = {
            strategy: StrategySearch(
                space(self._study, strategy), self._study.objective, self._study.seed, self._study.epochs
            )
            for strategy in self._study.strategies
        }
        for strategy, search in self._searches.items():
            search.replay(one for name, one in self._state.ended if name == strategy)
        self._mirror = self._open_mirror()
        self._mirror.start(self._state.ended)
        self._always: dict[str, list[TrialConfig]] = {}
        self._kept: dict[str, TrialRecord] = {}  # each strategy's best trial so far
        self._settled = 0  # slots before this one are filled in every strategy, or will never be
        for strategy in self._study.strategies:  # a kill may have left what an earlier session was about to remove
            for record in self._state.searched(strategy):
                self._keep_best_checkpoint(record)

    def _open_mirror(self) -> OptunaMirror:
        session = self._session
        created = next(iter(session.log))  # the first event
        return open_mirror(session.folder, self._study, created, session.observer.message, session.tracker.run_of)

    def finish(self, within: float = math.inf) -> None:
        """Bring Optuna's storage to what the event log says, as far as these seconds allow."""
        self._mirror.finish(within)

    def run(self) -> None:
        """Fill the slots until the budget, the time or the space is used up; returns with nothing in flight."""
        if (self._state.search_finished or 0) >= self._study.trials:
            return
        budget = Budget(self._study, self._state, self._session.started)
        out_of_time = False
        while True:
            out_of_time = out_of_time or budget.used_up()
            self._fill_places(started_only=out_of_time)
            self._tell_progress()
            if not self._session.jobs:
                break
            self._session.poll(self._handle)
        exhausted = all(strategy in self._state.exhausted for strategy in self._study.strategies)
        self._session.append(
            SearchFinished("exhausted" if exhausted else "time" if out_of_time else "budget", self._study.trials)
        )

    def _fill_places(self, *, started_only: bool) -> None:
        while len(self._session.jobs) < self._session.places:
            place = self._next_slot(started_only=started_only)
            if place is None:
                return
            self._ask(*place)

    def _next_slot(self, *, started_only: bool) -> tuple[str, int] | None:
        """The first free slot, k by k and strategy by strategy.

        With `started_only` (time is up) just the slots of a k that some strategy has already had, so that all
        have had the same number.
        """
        while self._settled < self._study.trials and all(self._is_settled(s, self._settled) for s in self._searches):
            self._settled += 1
        for k in range(self._settled, self._study.trials):
            if started_only and not any(k in self._state.slots[s] for s in self._study.strategies):
                return None
            for strategy in self._study.strategies:
                slot = self._state.slots[strategy].get(k)
                free = slot is None or (slot.record is None and _id(strategy, k) not in self._session.jobs)
                if free and strategy not in self._state.exhausted:
                    return strategy, k
        return None

    def _is_settled(self, strategy: str, k: int) -> bool:
        slot = self._state.slots[strategy].get(k)
        return (slot is not None and slot.record is not None) or strategy in self._state.exhausted

    def _ask(self, strategy: str, k: int) -> None:
        """Start a trial in this slot; where only known configurations come, the strategy is exhausted."""
        search = self._searches[strategy]  # type: ignore[index]
        slot = self._state.slots[strategy].get(k, Slot())
        own = self._own(strategy)
        params, redraw = slot.params, slot.redraw
        while redraw < MAX_REDRAWS:
            if params is None and redraw == 0 and k < len(own):
                params = params_of(own[k], search.space)
            asked = search.ask(k, redraw, params)
            twin = self._state.same_config(asked.config)
            in_flight = next((job for job in self._session.jobs.values() if job.config == asked.config), None)
            if twin is None and in_flight is None:
                job = TrialJob(
                    _id(strategy, k),
                    "search",
                    strategy,
                    k,
                    asked.config,
                    derive(self._study.seed, "search"),
                    SEARCH_SPLIT,
                    slot.attempt,
                )
                search.accept(asked, job.key)
                self._session.start(job, redraw, asked.params)
                return
            search.tell_duplicate(asked, twin.score if twin is not None and twin.state == "complete" else None)
            other = twin or in_flight
            assert other is not None
            self._session.append(Duplicate(strategy, k, redraw, asked.config, asked.params, other.trial_id))
            self._mirror.add(*self._state.ended[-1])
            redraw, params = redraw + 1, None
        self._session.append(StrategyExhausted(strategy, k))
        self._session.observer.message(
            f"{strategy} is exhausted after {k} slots: {MAX_REDRAWS} draws in a row were known configurations"
        )

    def _own(self, strategy: str) -> list[TrialConfig]:
        """The configurations that are always evaluated: the default, then the user's `try` list."""
        if strategy not in self._always:
            here = self._searches[strategy].space  # type: ignore[index]
            self._always[strategy] = list(dict.fromkeys([here.default(), *tried(self._study, here.strategy)]))
        return self._always[strategy]

    def _handle(self, message: Message) -> bool:
        job = self._session.jobs[message.task_id]
        search = self._searches[job.strategy]  # type: ignore[index]
        match message:
            case EpochMessage(_, record):
                self._session.note_epoch(job, record)
                may = self._study.pruning and job.slot >= len(self._own(job.strategy))
                score = record.validation[self._study.objective]
                return not search.should_prune(job.key, record.epoch, score, may=may)
            case Trained(_, trial):
                self._session.finish(job, trial)
                search.tell(job.key, trial)
                self._mirror.add(*self._state.ended[-1])
                self._keep_best_checkpoint(trial)
            case Died(_, reason):
                self._session.died(job, reason)
                search.drop(job.key)  # a trial that failed teaches the sampler nothing
        return True

    def _keep_best_checkpoint(self, trial: TrialRecord) -> None:
        """Only each strategy's best trial keeps its tensors: of the one before and this one, one goes."""
        best = self._state.best(trial.strategy)
        for other in (trial, self._kept.get(trial.strategy)):
            if other is not None and other.checkpoint and (best is None or other.trial_id != best.trial_id):
                (self._session.folder.checkpoints / other.checkpoint).unlink(missing_ok=True)
        if best is not None:
            self._kept[trial.strategy] = best

    def _tell_progress(self) -> None:
        total = self._study.trials * len(self._study.strategies)
        self._session.observer.phase("Search", self._state.filled, total)

    def write_importances(self) -> None:
        """Write `importance.json`, from all trials so far."""
        write_importances(self._session.folder, self._searches)


def write_importances(folder: StudyFolder, searches: Mapping[Strategy, StrategySearch]) -> None:
    """Write what each parameter mattered, where a strategy has enough complete trials to say so."""
    found = {s: i for s, search in searches.items() if (i := search.importances()) is not None}
    if found:
        atomic_write(folder.importance, json.dumps(found, indent=1))


def _id(strategy: str, slot: int) -> str:
    return str(TrialId("search", strategy, slot))
