"""Arrays in files: mapped as they are, and whatever is wrong with one is one kind of error."""

import numpy as np
import pytest

from engine.files.arrays import mapped_array


def test_an_array_is_mapped_as_it_is(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save(tmp_path / "a.npy", array)
    found = mapped_array(tmp_path / "a.npy")
    assert isinstance(found, np.memmap) and not found.flags.writeable
    np.testing.assert_array_equal(found, array)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")  # a header is Python
def test_every_damaged_header_is_an_array_or_a_value_error(tmp_path):
    path, generator = tmp_path / "a.npy", np.random.default_rng(0)
    np.save(path, np.zeros((3, 4), np.float32))
    content = path.read_bytes()
    num_refused = 0
    for place in range(80):
        for letter in generator.choice(list(b"'{}[]()<\\,:01x \n\xff\0"), 8):
            path.write_bytes(content[:place] + bytes([letter]) + content[place + 1 :])
            try:
                mapped_array(path)
            except ValueError as error:
                num_refused += bool(str(error))
    assert num_refused > 300


def test_a_file_that_is_not_there_is_told_as_such(tmp_path):
    with pytest.raises(FileNotFoundError):
        mapped_array(tmp_path / "none.npy")
