"""What the server of tests/forked.py has ready for every program that it forks: the installed word vectors."""

from engine.semantics.vectors import load_word_vectors

load_word_vectors(None)
