"""Make files of a study again that are lost, damaged or of another study, from its images and its log.

The page is drawn from these files, so they are checked before each page, also that of a finished study. Predictions are
made again by their models: see `lost_predictions`.
"""

from __future__ import annotations

from harness.analysis.test_predictions import scored_predictions
from harness.config.space import space
from harness.config.study import StudyConfig
from harness.errors import HarnessError
from harness.results.paths import StudyFolder
from harness.results.stored_study import read_object
from harness.results.study_state import StudyState
from harness.search.strategy_search import StrategySearch
from harness.study.mistakes import recommended_winner, write_mistakes
from harness.study.search_loop import write_importances
from harness.study.session import Session
from harness.study.study_files import write_data


def restore(session: Session) -> None:
    """Write manifest, test labels, data card, thumbnails, surest mistakes and importances where they are not sound."""
    write_data(session.prepared)
    restore_mistakes(session)
    try:
        read_object(session.folder.importance)
    except HarnessError:
        importances_again(session.folder, session.study, session.state)


def restore_mistakes(session: Session) -> None:
    """Select the surest mistakes of the last verdict's winner again, from its stored predictions."""
    state, folder = session.state, session.folder
    if state.verdicts:
        winner = recommended_winner(scored_predictions(state, folder, "winner"), state.verdicts[-1], session.study)
        write_mistakes(winner, session.prepared.context.images, folder.mistakes)


def importances_again(folder: StudyFolder, study: StudyConfig, state: StudyState) -> None:
    """Compute `importance.json` again from the log's trials; a study with too few of them has no such file."""
    searches = {}
    for strategy in study.strategies:
        search = StrategySearch(space(study, strategy), study.objective, study.seed, study.epochs)
        search.replay(ended for name, ended in state.ended if name == strategy)
        searches[strategy] = search
    folder.importance.unlink(missing_ok=True)
    write_importances(folder, searches)
