"""The search of one strategy: ask for configurations, tell results, prune trials and compute importances.

Each strategy has an Optuna study of its own, because in a shared study TPE would fit its model to the better strategy's
trials and pull the learning rates of the other away. The study lives in memory: it is made from the event log when a
session starts, and a thread copies it to `optuna.log` (`harness.search.optuna_journal`), so that no trial waits for a
storage. Each ask has a new sampler, seeded by the slot, so that a resumed study with one worker asks for the same
configurations as an uninterrupted one.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from harness.config.space import SearchSpace
from harness.config.trial import TrialConfig
from harness.results.metrics import direction
from harness.results.records import TrialRecord
from harness.results.study_state import EndedTrial
from harness.search.optuna_params import STATES, distributions, suggest, to_frozen_trial
from harness.seeds import derive

STARTUP_TRIALS = 5  # random trials before TPE uses its model: few, since budgets are small
FANOVA_CHOICES = 10  # values in one list; each doubles fANOVA's time: with 60 it had not ended after 12 minutes
IMPORTANCE_TRIALS = 20  # with fewer trials importances are noise
HISTORY = 200  # newest trials that sampler, pruner and fANOVA use: with 1,000 fANOVA takes a minute


class _NewestTrials(optuna.storages.InMemoryStorage):
    """A storage that shows only the newest trials to sampler and pruner: an ask takes 67 ms with 1,000, 15 with 200.

    Older trials that still run are shown too. Their ids are kept in a set, because searching 10,000 trials for them a
    dozen times for each trial took longer than the ask itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._running: set[int] = set()  # ids

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        if not self.get_trial(trial_id).state.is_finished():
            self._running.add(trial_id)
        return trial_id

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        if state.is_finished():
            self._running.discard(trial_id)
        return done

    def complete(self, study_id: int) -> list[FrozenTrial]:
        """Return every trial that completed, also the old ones."""
        return super().get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE,))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy=False)
        first = max(len(trials) - HISTORY, 0)
        older = [n for n in sorted(map(self.get_trial_number_from_id, self._running)) if n < first]
        shown = [t for t in (*(trials[n] for n in older), *trials[first:]) if states is None or t.state in states]
        return copy.deepcopy(shown) if deepcopy else shown


class Importance(TypedDict):
    """Parameter importances: shares that add up to one, and the number of trials they are computed from."""

    trials: int
    shares: dict[str, float]


@dataclass(frozen=True)
class Suggested:
    """A configuration that was drawn, Optuna's parameters for it, and its Optuna trial."""

    config: TrialConfig
    params: dict[str, Any]
    trial: optuna.Trial


class StrategySearch:
    """The Optuna study of one strategy.

    Args:
        seed: the study's seed.
        epochs: epochs of each trial; pruning starts after a quarter of them.
    """

    def __init__(self, space: SearchSpace, objective: str, seed: int, epochs: int) -> None:
        self.space = space
        self._seed = seed
        self._objective = objective
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = _NewestTrials()
        self._study = optuna.create_study(
            storage=self._storage, study_name=space.strategy, direction=direction(objective), pruner=pruner(epochs)
        )
        self._accepted: dict[str, optuna.Trial] = {}

    def ask(self, slot: int, redraw: int, params: dict[str, Any] | None = None) -> Suggested:
        """Draw the configuration of a slot. Then call `accept` or `tell_duplicate` with it.

        Args:
            slot: 0-based; together with `redraw` it seeds the sampler.
            params: use these parameters (the default, `try`, a retry) instead of sampling; see `params_of`.
        """
        self._study.sampler = optuna.samplers.TPESampler(
            seed=derive(self._seed, "sampler", self.space.strategy, slot, redraw) % 2**32,
            n_startup_trials=STARTUP_TRIALS,
        )
        if params is not None:
            self._study.enqueue_trial(params)
        trial = self._study.ask()
        config = suggest(trial, self.space)
        return Suggested(config, dict(trial.params), trial)

    def accept(self, suggested: Suggested, key: str) -> None:
        """Accept a drawn configuration as the trial `key` (`trial_id#attempt`), which all later calls use."""
        self._accepted[key] = suggested.trial

    def tell_duplicate(self, suggested: Suggested, score: float | None) -> None:
        """Tell Optuna the score of the trial with the same configuration; None if it has none yet."""
        self._study.tell(suggested.trial, score, state=None if score is not None else TrialState.FAIL)

    def should_prune(self, key: str, epoch: int, score: float, *, prunable: bool = True) -> bool:
        """Report an intermediate score; return True if the trial is below the median of its strategy.

        Args:
            prunable: if False, only report the score of a trial that is never pruned. This is cheaper, because the
                other trials are not read.
        """
        trial = self._accepted[key]
        trial.report(score, epoch)
        return prunable and bool(trial.should_prune())

    def tell(self, key: str, record: TrialRecord) -> None:
        """Tell Optuna how a trial ended. One that diverged or ran out of memory counts as bad, not as missing."""
        state = STATES[record.state]
        value = record.score if state == TrialState.COMPLETE else None
        self._study.tell(self._accepted.pop(key), value, state=None if value is not None else state)

    def drop(self, key: str) -> None:
        """Tell Optuna that this attempt of a trial failed, so that the sampler ignores it."""
        self._study.tell(self._accepted.pop(key), state=TrialState.FAIL)

    def replay(self, ended: Iterable[EndedTrial]) -> None:
        """Add the trials that ended in earlier sessions, in the order of the log."""
        for trial in ended:
            self._study.add_trial(to_frozen_trial(self.space, trial, self._objective))

    def importances(self) -> dict[str, Importance] | None:
        """Compute two kinds of parameter importances, which answer different questions; None with too few trials.

        `ped_anova`: which parameters separate the best tenth of all complete trials from the others. `fanova`: which
        parameters explain the variance over the newest HISTORY trials; it is left out if a list of more than
        FANOVA_CHOICES values is searched.
        """
        complete = self._storage.complete(self._study._study_id)
        if len(complete) < IMPORTANCE_TRIALS or len({t.value for t in complete}) < 2:
            return None
        from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

        found: dict[str, Importance] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = get_param_importances(_study_with(complete, self._study), evaluator=PedAnovaImportanceEvaluator())
            found["ped_anova"] = {"trials": len(complete), "shares": shares}
            if self._widest_choice() <= FANOVA_CHOICES:
                newest = complete[-HISTORY:]
                shares = get_param_importances(
                    _study_with(newest, self._study), evaluator=FanovaImportanceEvaluator(seed=0)
                )
                found["fanova"] = {"trials": len(newest), "shares": shares}
        return found

    def _widest_choice(self) -> int:
        """Return the length of the longest list that is searched."""
        lists = [found for found in distributions(self.space).values() if isinstance(found, CategoricalDistribution)]
        return max((len(found.choices) for found in lists), default=0)


def _study_with(trials: Sequence[FrozenTrial], like: optuna.Study) -> optuna.Study:
    study = optuna.create_study(direction=like.direction)
    study.add_trials(trials)
    return study


def pruner(epochs: int) -> optuna.pruners.BasePruner:
    """Make a pruner that stops a trial whose best score is below the median of its strategy at the same epoch."""
    return optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=max(epochs // 4, 1), n_min_trials=4)
