"""Progress that shows itself only when the work takes long."""

import pytest

from mtan_core.progress import late_progress


def test_quick_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with late_progress("looking", 3) as advance:
        for _ in range(3):
            advance()
    assert capsys.readouterr() == ("", "")


def test_long_work_is_shown_with_what_was_done_before(capsys: pytest.CaptureFixture[str]) -> None:
    with late_progress("looking", 3, after=0) as advance:
        for _ in range(3):
            advance()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "looking: 3/3" in printed.err
