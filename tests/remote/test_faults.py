"""A small run of ``faults``; ``python -m tests.remote.faults 200`` is the large one."""

from __future__ import annotations

from tests.remote import faults


def test_nothing_half_or_wrong_is_left() -> None:
    tally = faults.main(12, seed=1)
    assert sum(tally.values()) == 12
    assert any(not how.endswith("succeeded") for how in tally), tally  # else nothing was tried
