"""Files of found moments: names that tell, and nothing overwritten."""

import numpy as np
import pytest

from engine.data.pyav.encode import write_video
from engine.data.pyav.probe import probe
from engine.errors import InputError
from engine.moments.cuts import clock, clocks, cut_moment, cut_name
from engine.moments.objects import FoundMoment
from tests.data.videos import describe


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0:00:00.0"), (59.96, "0:01:00.0"), (3661.25, "1:01:01.2"), (7199.99, "2:00:00.0"), (360_000, "100:00:00.0")],
)
def test_times_are_told_to_the_tenth(seconds, told):
    assert clock(seconds) == told


@pytest.mark.parametrize(
    ("query", "video", "name"),
    [
        ("a dog", "/v/holiday 1.mov", "a-dog_03_holiday-1_0.00.01.0-0.00.02.5"),
        ("../../etc/<b>'\"; rm -rf", "/v/-x-.mp4", "etc-b-rm-rf_03_x_0.00.01.0-0.00.02.5"),
        ("犬が走る", "/v/\udce9\n.mp4", "犬が走る_03_moment_0.00.01.0-0.00.02.5"),
        ("é" * 99, "/s/store.index/a/b c.mp4#12", "é" * 40 + "_03_b-c_0.00.01.0-0.00.02.5"),
    ],
)
def test_names_are_those_that_every_file_system_takes(query, video, name):
    found = cut_name(FoundMoment(query, video, 1.0, 2.5, 0.1), 3)
    assert found == name and len(f"{found}.mp4".encode()) < 255


@pytest.mark.parametrize(
    ("start_s", "end_s", "told"),
    [
        (0.0, 5e-5, ("0:00:00.0", "0:00:00.1")), (3.96, 4.04, ("0:00:04.0", "0:00:04.1")),
        (59.9, 59.94, ("0:00:59.9", "0:01:00.0")), (0.0, 0.06, ("0:00:00.0", "0:00:00.1")), (1.0, 2.5, ("0:00:01.0", "0:00:02.5")),
    ],
)  # fmt: skip
def test_no_moment_ends_where_it_starts(start_s, end_s, told):
    moment = FoundMoment("a dog", "/v/a.mp4", start_s, end_s, 0.1)
    assert clocks(moment) == told and cut_name(moment, 1).endswith("-".join(told).replace(":", "."))


def test_a_moment_is_saved_beside_what_is_there(tmp_path):
    source = tmp_path / "a.mp4"
    write_video(source, (np.full((32, 32, 3), k, np.uint8) for k in range(50)))
    footage = {str(source): (describe(source), probe(source).timeline)}
    moment = FoundMoment("a dog", str(source), 0.4, 0.8, 0.1)
    first, second, third = (cut_moment(moment, 1, footage, tmp_path) for _ in range(3))
    assert [path.name for path in (first, second, third)] == [
        f"a-dog_01_a_0.00.00.4-0.00.00.8{end}.mp4" for end in ("", "_2", "_3")
    ]
    assert first.read_bytes() == second.read_bytes() and len(describe(first).key_frames) >= 1
    source.unlink()
    with pytest.raises(InputError, match=r"a\.mp4: 0:00:00\.4 cannot be cut out: the file is missing"):
        cut_moment(moment, 1, footage, tmp_path)
