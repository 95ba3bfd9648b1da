"""What the installed sentence encoder cannot read is told, where it is what reads."""

import pytest

from engine.semantics.config import WordsConfig, WordSourceConfig
from engine.semantics.scripts import script_warning

SENTENCE = WordsConfig(source="sentence")


@pytest.mark.parametrize("text", ["хоккей", "play 足球", "كرة القدم", "κύμα"])
def test_another_script_is_told_where_the_installed_encoder_reads_it(text):
    told = script_warning(["surfing", text], SENTENCE)
    assert told.startswith("warning: ") and repr(text) in told and "surfing" not in told and "\n" not in told
    assert script_warning([text], WordsConfig(also=WordSourceConfig(source="sentence")))
    for words in (WordsConfig(), WordsConfig(source="sentence", path="own"), WordsConfig(source="random")):
        assert script_warning([text], words) is None


def test_all_that_latin_letters_write_is_read():
    names = ["Bœuf à la crème", "2½ ﬁsh — 'naïve' (ß) №1", "Łódź", "ｆｕｌｌ", "🏄 5ᵗʰ", "hawaiʻi"]
    assert script_warning(names, SENTENCE) is None
