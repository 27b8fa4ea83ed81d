"""The rungs in their order, what they are called, and which errors lead up."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import pytest
import torch

from harness.training.out_of_memory import NO_FALLBACK, MemoryFallback, ran_out, reason


def climbed(batch_size: int, *, replaceable: bool) -> list[MemoryFallback]:
    found: list[MemoryFallback] = []
    climb: MemoryFallback | None = NO_FALLBACK
    while (climb := climb.next_step(batch_size, replaceable=replaceable)) is not None:
        found.append(climb)
    return found


def test_caches_then_a_fresh_worker_then_halves() -> None:
    rungs = climbed(64, replaceable=True)
    assert [(c.released, c.fresh_worker, c.micro_batch) for c in rungs] == [
        (True, False, None),
        (True, True, None),
        (True, True, 32),
        (True, True, 16),
        (True, True, 8),
        (True, True, 4),
        (True, True, 2),
    ]
    assert rungs[-1].describe(64) == (
        "ran out of memory; what was done: caches released, then a fresh worker, "
        "then micro-batches of 32, then 16, then 8, then 4, then 2 images"
    )


def test_who_cannot_be_replaced_goes_on_to_halves_and_odd_batches_never_leave_one_image() -> None:
    rungs = climbed(11, replaceable=False)
    assert [c.micro_batch for c in rungs] == [None, 6, 3]
    assert not any(c.fresh_worker for c in rungs)
    assert rungs[1].describe(11) == "ran out of memory; what was done: caches released, then micro-batches of 6 images"
    assert [c.micro_batch for c in climbed(3, replaceable=False)] == [None]
    assert NO_FALLBACK.describe(11) is None


@pytest.mark.parametrize(
    "allocate",
    [lambda: torch.empty(1 << 50, dtype=torch.uint8), lambda: np.empty(1 << 50, np.uint8), lambda: bytearray(1 << 60)],
    ids=["torch", "numpy", "Python"],
)
def test_a_machine_that_is_full_is_recognised_by_what_the_libraries_really_raise(
    allocate: Callable[[], object],
) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert ran_out(caught.value)
    assert "\n" not in reason(caught.value)
    assert "enforce fail" not in reason(caught.value)


def test_other_errors_lead_nowhere() -> None:
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert ran_out(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"))
    assert ran_out(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not ran_out(OSError(errno.ENOSPC, "No space left on device"))
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out(ValueError("out of memory"))
