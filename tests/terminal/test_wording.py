import pytest

from engine.terminal.wording import counted


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [(1, "class", "1 class"), (2, "class", "2 classes"), (0, "video", "0 videos"), (1000, "video", "1,000 videos")],
)
def test_a_noun_agrees_with_its_number(number, noun, said):
    assert counted(number, noun) == said
