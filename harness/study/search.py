"""SearchSpace + Optuna trial -> TrialConfig, and all else that Optuna is asked; the only file with `suggest_*`.

Each strategy has an Optuna study of its own. In one shared study TPE fits its good set over both sides and
pulls the weaker side's rates away. A new sampler is made for each ask, seeded by the slot, so that a
resumed study asks for the same configurations as an uninterrupted one (with one worker).
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.config.sheets import sheet
from harness.config.space import SETTLED, SearchSpace
from harness.config.study import FloatRange, IntRange
from harness.config.trial import DEPTH_MAX, TrialConfig
from harness.results.metrics import direction
from harness.results.records import TrialRecord
from harness.training.seeds import derive

STARTUP_TRIALS = 5  # drawn at random before TPE's model: few, since budgets are small
IMPORTANCE_TRIALS = 20  # fewer say nothing
_KEY = "harness.key"


def open_storage(path: Path) -> optuna.storages.BaseStorage:
    """The Optuna database, made under a lock and renamed into place where it is missing (creation races)."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with FileLock(path.with_suffix(".creating.lock")):
        if not path.exists():
            temporary = path.with_name(f".{path.name}.partial")
            temporary.unlink(missing_ok=True)
            storage = optuna.storages.RDBStorage(_url(temporary))
            storage.remove_session()
            storage.engine.dispose()
            with sqlite3.connect(temporary) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
            for suffix in ("-wal", "-shm"):
                temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
            os.replace(temporary, path)  # noqa: PTH105 - the atomic rename is the point
    return optuna.storages.RDBStorage(_url(path), engine_kwargs={"connect_args": {"timeout": 60}})


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


@dataclass(frozen=True)
class Asked:
    """A drawn configuration, Optuna's own parameters for it, and its Optuna trial."""

    config: TrialConfig
    params: dict[str, Any]
    trial: optuna.Trial


class StrategySearch:
    """One strategy's Optuna study: asks for slots, is told what happened, prunes within the strategy."""

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        study: str,
        space: SearchSpace,
        objective: str,
        seed: int,
        epochs: int,
    ) -> None:
        self.space = space
        self._seed = seed
        self._direction = direction(objective)
        self._study = optuna.create_study(
            storage=storage, study_name=f"{study}/{space.strategy}", direction=self._direction, load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=8, n_warmup_steps=max(epochs // 4, 1), n_min_trials=4
            ),
        )  # fmt: skip
        self._accepted: dict[str, optuna.Trial] = {}

    def ask(self, slot: int, redraw: int, params: dict[str, Any] | None = None) -> Asked:
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
        return Asked(config, dict(trial.params), trial)

    def accept(self, asked: Asked, key: str) -> None:
        """Take a drawn configuration as the trial `key` (`trial_id#attempt`), the name for all later calls."""
        asked.trial.set_user_attr(_KEY, key)
        self._accepted[key] = asked.trial

    def tell_duplicate(self, asked: Asked, score: float | None) -> None:
        """Tell a drawn configuration the value it is known to have; None: not known yet, or none."""
        asked.trial.set_user_attr("harness.state", "duplicate")
        self._study.tell(asked.trial, score, state=None if score is not None else TrialState.FAIL)

    def should_prune(self, key: str, epoch: int, score: float) -> bool:
        """Report an intermediate score; True where the trial is below the median of its strategy."""
        trial = self._accepted[key]
        trial.report(score, epoch)
        return bool(trial.should_prune())

    def tell(self, key: str, record: TrialRecord) -> None:
        """Tell the end of a trial. One that diverged or ran out of memory counts as bad, not as missing."""
        trial = self._accepted.pop(key)
        trial.set_user_attr("harness.state", record.state)
        if record.state == "complete":
            self._study.tell(trial, record.score)
        elif record.state == "failed":
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def drop(self, key: str) -> None:
        """Take back a trial that was asked and will not be finished in this attempt."""
        self._study.tell(self._accepted.pop(key), state=TrialState.FAIL)

    def catch_up(self, finished: list[tuple[str, dict[str, Any], TrialRecord]]) -> None:
        """Bring Optuna to what the event log says: the log is the truth.

        A trial still running was cut off: it is told its record where the log has one and failed otherwise.
        A finished trial that Optuna lacks is added.

        Args:
            finished: key, Optuna's parameters and record of every finished search trial, in the log's order.
        """
        known = {key: (params, record) for key, params, record in finished}
        present = set()
        for frozen in self._study.get_trials(deepcopy=False):
            key = frozen.user_attrs.get(_KEY)
            if frozen.state in (TrialState.RUNNING, TrialState.WAITING):
                self._end(frozen, known.get(str(key)))
            if key in known:
                present.add(key)
        for key, (params, record) in known.items():
            if key not in present:
                self._study.add_trial(self._frozen(key, params, record))

    def _end(self, frozen: FrozenTrial, known: tuple[dict[str, Any], TrialRecord] | None) -> None:
        if frozen.state == TrialState.WAITING:
            frozen_trial = self._study.ask()  # a queued trial that nobody took: take it out of the queue
            self._study.tell(frozen_trial, state=TrialState.FAIL)
            return
        if known is None:
            self._study.tell(frozen.number, state=TrialState.FAIL)
        elif known[1].state == "complete":
            self._study.tell(frozen.number, known[1].score)
        else:
            state = TrialState.FAIL if known[1].state == "failed" else TrialState.PRUNED
            self._study.tell(frozen.number, state=state)

    def _frozen(self, key: str, params: dict[str, Any], record: TrialRecord) -> FrozenTrial:
        states = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}
        return create_trial(
            state=states.get(record.state, TrialState.PRUNED),
            value=record.score if record.state == "complete" else None,
            params=params,
            distributions={name: d for name, d in distributions(self.space).items() if name in params},
            user_attrs={_KEY: key, "harness.state": record.state},
        )

    def importances(self) -> dict[str, dict[str, float]] | None:
        """Parameter importances of two kinds, which answer different questions; None with too few trials.

        `ped_anova`: what separates the best tenth. `fanova`: what explains the variance over all trials.
        """
        complete = [t for t in self._study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        if len(complete) < IMPORTANCE_TRIALS or len({t.value for t in complete}) < 2:
            return None
        from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {
                "ped_anova": get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator()),
                "fanova": get_param_importances(self._study, evaluator=FanovaImportanceEvaluator(seed=0)),
            }


def suggest(trial: optuna.Trial | optuna.trial.FixedTrial, space: SearchSpace) -> TrialConfig:
    """Ask the trial for every knob that has an effect beside the ones asked before it."""
    values: dict[str, Any] = {}
    for name, entry in space.entries.items():
        if name in SETTLED[space.strategy] or not has_effect(name, values, space):
            continue
        if isinstance(entry, tuple):
            values[name] = trial.suggest_categorical(name, list(entry))
        elif isinstance(entry, IntRange):
            values[name] = trial.suggest_int(name, entry.low, entry.high)
        elif isinstance(entry, FloatRange):
            values[name] = trial.suggest_float(name, entry.low, entry.high, log=entry.log)
        else:
            values[name] = entry
    return space.config(values)


def has_effect(name: str, values: dict[str, Any], space: SearchSpace) -> bool:
    """Whether a knob changes anything beside the values of the knobs before it (in the order of KNOBS)."""
    depth = SETTLED[space.strategy].get("unfreeze_depth", values.get("unfreeze_depth"))
    match name:
        case "backbone_lr":
            return bool(depth != 0)
        case "unfreeze_from":
            return bool(depth != DEPTH_MAX) or "progressive" in _possible(space.entries["unfreeze_schedule"])
        case "head_fraction":
            return values.get("unfreeze_schedule") == "head_first"
        case "layer_decay":
            return depth is not None and depth > 1
        case "head_hidden":
            return values.get("head") == "mlp"
        case "batchnorm":
            return sheet(values["backbone"]).has_batchnorm
    return True


def params_of(config: TrialConfig, space: SearchSpace) -> dict[str, Any]:
    """Optuna's parameters for a configuration: the searched knobs that have an effect beside each other."""
    values = config.to_json()
    searched = space.searched()
    kept: dict[str, Any] = {}
    for name in space.entries:
        if name in SETTLED[space.strategy] or not has_effect(name, values, space):
            continue
        if name in searched:
            kept[name] = values[name] if space.holds(name, values[name]) else _stand_in(values[name], searched[name])
    return kept


def _stand_in(value: Any, entry: Any) -> Any:
    """A value the space holds, for a canonical one that it does not: beside the others they mean the same."""
    if not isinstance(entry, tuple):
        return entry.low
    same = {"frozen": ("fixed_stats", "updated_stats"), "updated_stats": ("train_mode",)}.get(value, ())
    return next((other for other in same if other in entry), entry[0])


def distributions(space: SearchSpace) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's distribution of every searched knob."""
    made: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, entry in space.searched().items():
        if isinstance(entry, tuple):
            made[name] = optuna.distributions.CategoricalDistribution(entry)
        elif isinstance(entry, IntRange):
            made[name] = optuna.distributions.IntDistribution(entry.low, entry.high)
        else:
            made[name] = optuna.distributions.FloatDistribution(entry.low, entry.high, log=entry.log)
    return made


def _possible(entry: Any) -> tuple[Any, ...]:
    return entry if isinstance(entry, tuple) else (entry,)
