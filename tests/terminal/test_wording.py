"""Words of messages."""

import pytest

from engine.terminal.wording import counted, signal_name


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(1, "class", "1 class"), (2, "class", "2 classes"), (0, "video", "0 videos"), (1000, "video", "1,000 videos")],
)
def test_a_noun_agrees_with_its_number(number, noun, said):
    assert counted(number, noun) == said


def test_signals_have_the_names_that_kill_lists():
    assert [signal_name(number) for number in (9, 15, 34, 35)] == ["SIGKILL", "SIGTERM", "SIGRTMIN", "SIGRTMIN+1"]
