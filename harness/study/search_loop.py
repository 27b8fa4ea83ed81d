"""Run the search: fill the slots of all strategies in turn, with one Optuna study for each strategy."""

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
from harness.study.sync import given_location, open_mirror
from harness.study.time_budget import Budget

MAX_REDRAWS = 10  # after so many duplicates in a row a strategy is exhausted


class SlotSearch:
    """Fills the slots. Budgets are equal: slot k of every strategy comes before slot k + 1 of any strategy."""

    def __init__(self, session: Session) -> None:
        self._session, self._study, self._state = session, session.study, session.state
        self._searches = {
            strategy: StrategySearch(
                space(self._study, strategy), self._study.objective, self._study.seed, self._study.epochs
            )
            for strategy in self._study.strategies
        }
        for strategy, search in self._searches.items():
            search.replay(ended for name, ended in self._state.ended if name == strategy)
        self._mirror = self._open_mirror()
        self._mirror.start(self._state.ended)
        self._fixed_configs: dict[str, list[TrialConfig]] = {}  # by strategy; see `_configs_always_run`
        self._kept: dict[str, TrialRecord] = {}  # each strategy's best trial so far
        self._first_open = 0  # every strategy has filled the slots before this one, or will never fill them
        for strategy in self._study.strategies:  # a killed session may have left checkpoints that it had to remove
            for record in self._state.searched(strategy):
                self._keep_best_checkpoint(record)

    def _open_mirror(self) -> OptunaMirror:
        session = self._session
        created = next(iter(session.log))  # the first event
        location = given_location(session.folder, self._study)
        say, run_of = session.observer.message, session.tracker.run_of
        return open_mirror(session.folder, self._study, created, location, say, run_of)

    def finish(self, within: float = math.inf) -> None:
        """Write the trials that Optuna's storage lacks, or as many as `within` seconds allow."""
        self._mirror.finish(within)

    def run(self) -> None:
        """Fill the slots until the budget, the time or the search space is used up. No trial runs when this returns."""
        if (self._state.search_finished or 0) >= self._study.trials:
            return
        budget = Budget(self._study, self._state, self._session.started)
        out_of_time = False
        while True:
            out_of_time = out_of_time or budget.used_up()
            self._start_trials(begun_only=out_of_time)
            self._show_progress()
            if not self._session.jobs:
                break
            self._session.poll(self._handle)
        exhausted = all(strategy in self._state.exhausted for strategy in self._study.strategies)
        self._session.append(
            SearchFinished("exhausted" if exhausted else "time" if out_of_time else "budget", self._study.trials)
        )

    def _start_trials(self, *, begun_only: bool) -> None:
        """Start trials until every worker is busy or no slot is free."""
        while len(self._session.jobs) < self._session.places:
            slot = self._next_slot(begun_only=begun_only)
            if slot is None:
                return
            self._start_trial(*slot)

    def _next_slot(self, *, begun_only: bool) -> tuple[str, int] | None:
        """Return strategy and number of the first free slot, ordered by number and then by strategy.

        With `begun_only`, when the time is up, only slots whose number some strategy has begun are returned, so that
        all strategies get equally many.
        """
        while self._first_open < self._study.trials and all(
            self._is_closed(s, self._first_open) for s in self._searches
        ):
            self._first_open += 1
        for k in range(self._first_open, self._study.trials):
            if begun_only and not any(k in self._state.slots[s] for s in self._study.strategies):
                return None
            for strategy in self._study.strategies:
                slot = self._state.slots[strategy].get(k)
                free = slot is None or (slot.record is None and _search_id(strategy, k) not in self._session.jobs)
                if free and strategy not in self._state.exhausted:
                    return strategy, k
        return None

    def _is_closed(self, strategy: str, k: int) -> bool:
        slot = self._state.slots[strategy].get(k)
        return (slot is not None and slot.record is not None) or strategy in self._state.exhausted

    def _start_trial(self, strategy: str, k: int) -> None:
        """Start a trial in this slot; if only duplicates are drawn, the strategy is exhausted."""
        search = self._searches[strategy]  # type: ignore[index]
        slot = self._state.slots[strategy].get(k, Slot())
        always = self._configs_always_run(strategy)
        params, redraw = slot.params, slot.redraw
        while redraw < MAX_REDRAWS:
            if params is None and redraw == 0 and k < len(always):
                params = params_of(always[k], search.space)
            suggested = search.ask(k, redraw, params)
            finished = self._state.same_config(suggested.config)
            running = next((job for job in self._session.jobs.values() if job.config == suggested.config), None)
            if finished is None and running is None:
                job = TrialJob(
                    _search_id(strategy, k),
                    "search",
                    strategy,
                    k,
                    suggested.config,
                    derive(self._study.seed, "search"),
                    SEARCH_SPLIT,
                    slot.attempt,
                )
                search.accept(suggested, job.key)
                self._session.start(job, redraw, suggested.params)
                return
            score = finished.score if finished is not None and finished.state == "complete" else None
            search.tell_duplicate(suggested, score)
            other = finished or running
            assert other is not None
            self._session.append(Duplicate(strategy, k, redraw, suggested.config, suggested.params, other.trial_id))
            self._mirror.add(*self._state.ended[-1])
            redraw, params = redraw + 1, None
        self._session.append(StrategyExhausted(strategy, k))
        self._session.observer.message(
            f"{strategy} is exhausted after {k} slots: {MAX_REDRAWS} draws in a row were duplicates"
        )

    def _configs_always_run(self, strategy: str) -> list[TrialConfig]:
        """Return the configurations that are always run: the defaults, then the user's `try` list."""
        if strategy not in self._fixed_configs:
            searched = self._searches[strategy].space  # type: ignore[index]
            always = [*searched.defaults(), *tried(self._study, searched.strategy)]
            self._fixed_configs[strategy] = list(dict.fromkeys(always))
        return self._fixed_configs[strategy]

    def _handle(self, message: Message) -> bool:
        job = self._session.jobs[message.task_id]
        search = self._searches[job.strategy]  # type: ignore[index]
        match message:
            case EpochMessage(_, record):
                self._session.note_epoch(job, record)
                prunable = self._study.pruning and job.slot >= len(self._configs_always_run(job.strategy))
                score = record.validation[self._study.objective]
                return not search.should_prune(job.key, record.epoch, score, prunable=prunable)
            case Trained(_, trial):
                self._session.finish(job, trial)
                search.tell(job.key, trial)
                self._mirror.add(*self._state.ended[-1])
                self._keep_best_checkpoint(trial)
            case Died(_, reason):
                self._session.died(job, reason)
                search.drop(job.key)  # the sampler must not learn from a trial that failed
        return True

    def _keep_best_checkpoint(self, trial: TrialRecord) -> None:
        """Keep only the checkpoint of the strategy's best trial: remove this trial's or that of the best one before."""
        best = self._state.best(trial.strategy)
        for other in (trial, self._kept.get(trial.strategy)):
            if other is not None and other.checkpoint and (best is None or other.trial_id != best.trial_id):
                (self._session.folder.checkpoints / other.checkpoint).unlink(missing_ok=True)
        if best is not None:
            self._kept[trial.strategy] = best

    def _show_progress(self) -> None:
        total = self._study.trials * len(self._study.strategies)
        self._session.observer.phase("Search", self._state.filled, total)

    def write_importances(self) -> None:
        """Write `importance.json` from all trials so far."""
        write_importances(self._session.folder, self._searches)


def write_importances(folder: StudyFolder, searches: Mapping[Strategy, StrategySearch]) -> None:
    """Write the parameter importances of each strategy that has enough complete trials."""
    found = {s: i for s, search in searches.items() if (i := search.importances()) is not None}
    if found:
        atomic_write(folder.importance, json.dumps(found, indent=1))


def _search_id(strategy: str, slot: int) -> str:
    return str(TrialId("search", strategy, slot))
