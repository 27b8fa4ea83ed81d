"""The names of trials: spelt and taken apart in one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.trial import STRATEGIES
from harness.results.trial_id import TrialId, run_key

NAMES = {
    "fine_tuning/3": TrialId("search", "fine_tuning", 3),
    "confirmation/fine_tuning/0a1b/2": TrialId("confirmation", "fine_tuning", 2, "0a1b"),
    "controlled/from_scratch/0a1b/0": TrialId("controlled", "from_scratch", 0, "0a1b"),
    "data_size/feature_extraction/0a1b/1@0.5": TrialId("data_size", "feature_extraction", 1, "0a1b", 0.5),
}


@pytest.mark.parametrize(("text", "trial"), NAMES.items())
def test_each_kind_has_its_form(text: str, trial: TrialId) -> None:
    assert str(trial) == text
    assert TrialId.parse(text) == trial


slots, keys = st.integers(0, 10**6), st.text("0123456789abcdef", min_size=1, max_size=16)
trial_ids = st.one_of(
    st.builds(TrialId, st.just("search"), st.sampled_from(STRATEGIES), slots),
    st.builds(TrialId, st.sampled_from(["confirmation", "controlled"]), st.sampled_from(STRATEGIES), slots, keys),
    st.builds(
        TrialId,
        st.just("data_size"),
        st.sampled_from(STRATEGIES),
        slots,
        keys,
        st.integers(1, 10**6).map(lambda millionths: millionths / 10**6),
    ),
)


@given(trial_ids)
def test_every_name_is_read_back(trial: TrialId) -> None:
    assert TrialId.parse(str(trial)) == trial


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fine_tuning",
        "fine_tuning/x",
        "fine_tuning/-1",
        "confirmation/a/b",
        "other/a/b/1",
        "confirmation/a/b/1@0.5",
        "data_size/a/b/1",
        "data_size/a/b/1@x",
    ],
)
def test_what_names_no_trial_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        TrialId.parse(text)


def test_attempts_of_a_trial_have_keys_of_their_own() -> None:
    assert [run_key("fine_tuning/3", attempt) for attempt in (1, 2)] == ["fine_tuning/3#1", "fine_tuning/3#2"]
