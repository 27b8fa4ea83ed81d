"""One strategy's search: slots are drawn, trials are told and pruned, importances are reckoned.

Each strategy has an Optuna study of its own, in memory: made from the event log when a session starts, and copied to
`optuna.log` by a thread (`harness.search.optuna_journal`), so that no trial waits for a storage. In one shared study
TPE fits its good set over both sides and pulls the weaker side's rates away. A new sampler is made for each ask,
seeded by the slot, so that a resumed study asks for the same configurations as an uninterrupted one (with one
worker).
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
from harness.search.optuna_params import STATES, distributions, frozen, suggest
from harness.seeds import derive

STARTUP_TRIALS = 5  # drawn at random before TPE's model: few, since budgets are small
FANOVA_CHOICES = 10  # of one list; fANOVA's time doubles with each: a list of 60 ran for 12 minutes without an end
IMPORTANCE_TRIALS = 20  # fewer say nothing
HISTORY = 200  # newest trials that sampler, pruner and fANOVA look at: of 1,000 fANOVA takes a minute


class _Newest(optuna.storages.InMemoryStorage):
    """Shows sampler and pruner the newest trials alone: an ask costs 67 ms with 1,000 of them, 15 with 200.

    Older ones that still run are shown too; they are kept by number, since looking for them among 10,000 trials, a
    dozen times a trial, cost more than the ask itself.
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
        """Every trial that completed, the old ones too."""
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
    """What each parameter mattered: shares that add up to one, and of how many trials."""

    trials: int
    shares: dict[str, float]


@dataclass(frozen=True)
class Suggested:
    """A drawn configuration, Optuna's own parameters for it, and its Optuna trial."""

    config: TrialConfig
    params: dict[str, Any]
    trial: optuna.Trial


class StrategySearch:
    """One strategy's Optuna study: asks for slots, is told what happened, prunes within the strategy."""

    def __init__(self, space: SearchSpace, objective: str, seed: int, epochs: int) -> None:
        self.space = space
        self._seed = seed
        self._objective = objective
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = _Newest()
        self._study = optuna.create_study(
            storage=self._storage, study_name=space.strategy, direction=direction(objective), pruner=pruner(epochs)
        )
        self._accepted: dict[str, optuna.Trial] = {}

    def ask(self, slot: int, redraw: int, params: dict[str, Any] | None = None) -> Suggested:
        """Draw the configuration of a slot; it must then be accepted or told as a duplicate.

        Args:
            slot: 0-based; with `redraw` it seeds the sampler.
            params: evaluate these (default, `try`, a retry) instead of sampling; see `params_of`.
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

    def accept(self, asked: Suggested, key: str) -> None:
        """Take a drawn configuration as the trial `key` (`trial_id#attempt`), the name for all later calls."""
        self._accepted[key] = asked.trial

    def tell_duplicate(self, asked: Suggested, score: float | None) -> None:
        """Tell a drawn configuration the value it is known to have; None: not known yet, or none."""
        self._study.tell(asked.trial, score, state=None if score is not None else TrialState.FAIL)

    def should_prune(self, key: str, epoch: int, score: float, *, may: bool = True) -> bool:
        """Report an intermediate score; True where the trial is below the median of its strategy.

        Args:
            may: False notes the score of a trial that is never stopped; a look at the others costs more than that.
        """
        trial = self._accepted[key]
        trial.report(score, epoch)
        return may and bool(trial.should_prune())

    def tell(self, key: str, record: TrialRecord) -> None:
        """Tell the end of a trial. One that diverged or ran out of memory counts as bad, not as missing."""
        state = STATES[record.state]
        value = record.score if state == TrialState.COMPLETE else None
        self._study.tell(self._accepted.pop(key), value, state=None if value is not None else state)

    def drop(self, key: str) -> None:
        """Take back a trial that was asked and will not be finished in this attempt."""
        self._study.tell(self._accepted.pop(key), state=TrialState.FAIL)

    def replay(self, ended: Iterable[EndedTrial]) -> None:
        """Take in what an earlier session of the study came to, in the log's order; a new search has no memory."""
        for one in ended:
            self._study.add_trial(frozen(self.space, one, self._objective))

    def importances(self) -> dict[str, Importance] | None:
        """Parameter importances of two kinds, which answer different questions; None with too few trials.

        `ped_anova`: what separates the best tenth of all complete trials. `fanova`: what explains the variance over
        the newest HISTORY, left out where a list of more than FANOVA_CHOICES values is searched.
        """
        complete = self._storage.complete(self._study._study_id)
        if len(complete) < IMPORTANCE_TRIALS or len({t.value for t in complete}) < 2:
            return None
        from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

        found: dict[str, Importance] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = get_param_importances(_study_of(complete, self._study), evaluator=PedAnovaImportanceEvaluator())
            found["ped_anova"] = {"trials": len(complete), "shares": shares}
            if self._widest_choice() <= FANOVA_CHOICES:
                newest = complete[-HISTORY:]
                shares = get_param_importances(
                    _study_of(newest, self._study), evaluator=FanovaImportanceEvaluator(seed=0)
                )
                found["fanova"] = {"trials": len(newest), "shares": shares}
        return found

    def _widest_choice(self) -> int:
        """Values of the searched list that has most of them."""
        lists = [found for found in distributions(self.space).values() if isinstance(found, CategoricalDistribution)]
        return max((len(found.choices) for found in lists), default=0)


def _study_of(trials: Sequence[FrozenTrial], like: optuna.Study) -> optuna.Study:
    study = optuna.create_study(direction=like.direction)
    study.add_trials(trials)
    return study


def pruner(epochs: int) -> optuna.pruners.BasePruner:
    """Stops a trial whose best score so far lies below the median of its strategy at the same epoch."""
    return optuna.pruners.MedianPruner(n_startup_trials=8, n_warmup_steps=max(epochs // 4, 1), n_min_trials=4)
