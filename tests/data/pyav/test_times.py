"""When frames are shown, from stamps that are sound, rounded, missing, in decoding order or broken."""

import numpy as np
import pytest

from engine.data.pyav.times import Timeline, timeline


def found(pts, dts=(), *, rate=25.0, start_s=0.0, **kind):
    return timeline(pts, dts, rate=rate, start_s=start_s, **kind)


@pytest.mark.parametrize("rate", [12.5, 15, 24000 / 1001, 24, 25, 30000 / 1001, 30, 50, 60])
@pytest.mark.parametrize("digits", [3, 6])
def test_a_constant_rate_has_two_knots_whatever_the_rounding_of_its_stamps(rate, digits):
    lines = found([round(7 + place / rate, digits) for place in range(500)], rate=rate, start_s=5.0)
    assert lines.frames == (0, 500)
    assert lines.seconds == pytest.approx((2, 2 + 500 / rate), abs=1e-3)
    assert lines.rate == pytest.approx(rate, rel=1e-6)
    assert lines.at_rate(lines.rate).tolist() == list(range(500))
    assert lines.at_rate(rate).tolist() == list(range(500))


def test_a_variable_rate_is_kept_to_a_millisecond():
    draw = np.random.default_rng(0)
    times = np.cumsum(np.concatenate([draw.uniform(0.02, 0.06, 200), np.full(300, 0.04), draw.uniform(0.5, 20, 20)]))
    lines = found(times.tolist())
    assert np.abs(lines.times()[:-1] - times).max() < 1.1e-3
    assert len(lines.frames) < 200 + 20 + 10


def test_half_and_half():
    lines = found([0.1 * place for place in range(50)] + [5 + 0.025 * place for place in range(200)])
    assert lines == Timeline((0, 50, 250), (0.0, 5.0, 10.0))
    assert (lines.between(1, 3), lines.between(6, 8)) == ((10, 30), (90, 170))


def test_a_segment_has_every_frame_that_is_on_the_screen_during_it():
    lines = found([2 + place / 25 for place in range(100)])  # shown from 2 to 6 s
    assert lines.between(3, 4) == (25, 50)
    assert lines.between(2.99, 4.01) == (24, 51)
    assert lines.between(0, 2.04) == (0, 1)
    assert lines.between(5.9, 99) == (97, 100)
    for start, end in ((0, 2), (6, 9)):
        first, behind = lines.between(start, end)
        assert first >= behind


def test_decoding_stamps_are_late_by_the_decoders_delay():
    pts = [0.08, 0.32, 0.24, 0.4, 0.16, 0.64, 0.56, 0.72, 0.48, 0.96]  # of AVI with B-frames
    dts = [0.16 + 0.04 * place for place in range(8)] + [None, None]
    assert found(pts, dts, delay=4) == Timeline((0, 10), (0.0, 0.4))
    assert found(pts, dts, delay=4, is_padded=True) == Timeline((0, 10), (0.0, 0.4))
    late = [stamp and 1 + stamp for stamp in dts]
    assert found(pts, late, delay=4) == found(pts, late, first_dts=1.0, delay=4) == Timeline((0, 10), (1.0, 1.4))
    assert found(pts, dts, start_s=None) == Timeline((0, 10), (0.0, 0.4))
    dts = [0.16, 0.2, 0.24, 0.28, 0.32, 0.4, 0.48, 0.56, None, None]  # then at half the rate
    assert found(pts, dts, start_s=None).times()[4:8] == pytest.approx([0.16, 0.24, 0.32, 0.4], abs=1e-3)


def test_what_an_encoders_delay_leaves_in_avi_is_no_time():
    pts = [0, 0.12, *(0.04 * place for place in range(4, 40))]  # two chunks are empty behind the first frame
    assert found(pts, is_padded=True) == Timeline((0, 38), (0.0, 1.52))
    assert found(pts).frames == (0, 1, 38)
    pause = [0, 2.0, *(2 + 0.04 * place for place in range(1, 40))]
    assert found(pause, is_padded=True).seconds[:2] == (0.0, 2.0)
    dropped = [0.04 * place for place in range(40) if place not in (20, 21)]
    assert found(dropped, is_padded=True).times()[20] == pytest.approx(0.88)


def test_unsound_stamps_count_as_one_period():
    assert found([None] * 5) == Timeline((0, 5), (0.0, 0.2))
    assert found([None] * 5, rate=0.0) == Timeline()
    assert found([1 / 3], rate=0.0).rate == pytest.approx(25)
    stamps = [0.04 * place for place in range(20)]
    for broken in (None, 0.0, 7e6, -7e6):
        damaged = [*stamps]
        damaged[9] = broken
        assert found(damaged, is_clock=True).times() == pytest.approx([0.04 * place for place in range(21)], abs=1e-3)
    jumped = [stamp + 95_000 * (place > 9) for place, stamp in enumerate(stamps)]  # a transport stream's clock
    assert found(jumped).seconds[-1] == pytest.approx(95_000.8)  # elsewhere it is a pause
    assert found(jumped, is_clock=True) == found(stamps) == Timeline((0, 20), (0.0, 0.8))
    again = [*stamps, *stamps]  # two recordings, one after the other
    assert found([place + 10 for place in again]) == Timeline((0, 40), (10.0, 11.6))


@pytest.mark.parametrize("stamps", [[place * 1e-9 for place in range(10)], [1e16 + place / 25 for place in range(10)]])
def test_stamps_between_which_no_time_goes_by_tell_no_rate(stamps):
    """An endless rate would end the indexing of all files: JSON has no word for it."""
    for start_s in (0.0, None):
        assert found(stamps, rate=0, start_s=start_s) == Timeline()
    assert Timeline().rate == 0.0


def test_another_rate_shows_what_is_on_the_screen():
    # Shown 0-0.1, 0.1-0.5, 0.5-0.52, 0.52-0.6, 0.6-0.68; looked at 0.045, 0.145, 0.245, ...
    assert found([0, 0.1, 0.5, 0.52, 0.6]).at_rate(10).tolist() == [0, 1, 1, 1, 1, 3, 4]
    assert found([place / 50 for place in range(10)]).at_rate(25).tolist() == [0, 2, 4, 6, 8]
    assert found([round(place / 60, 3) for place in range(12)]).at_rate(30).tolist() == [0, 2, 4, 6, 8, 10]
    assert found([place / 10 for place in range(3)]).at_rate(20).tolist() == [0, 0, 1, 1, 2, 2]
    assert found([0, 0.01]).at_rate(1).tolist() == [1]
