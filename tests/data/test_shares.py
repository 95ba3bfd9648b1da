"""Which share of a batch an accelerator gets: found by decoders of known rates, in a time of their own."""

import heapq
import itertools

import pytest

from engine.data.shares import MeasuredShare, Share

BATCH = 64


class Workshop:
    """Two decoders of these rates (clips/s), fed as the loader does: a batch is begun before the last is waited for.

    interference: how much slower each is while the other works. pause: seconds that the loader waits between batches.
    unfit: share of each batch that only the second takes.
    """

    def __init__(self, first, second, *, interference=0.0, pause=0.0, unfit=0.0, slow_start=0.0):
        self.rates, self.interference, self.pause = {"dali": first, "pyav": second}, interference, pause
        self.unfit, self.slow_start = unfit, slow_start
        self.now, self.events, self.order = 0.0, [], itertools.count()
        self.free = dict.fromkeys(self.rates, 0.0)
        self.share = MeasuredShare("dali", "pyav", clock=lambda: self.now)
        assert self.share.claim()

    def submit(self):
        """Begin a batch; returns when it is done, and how its clips were given out."""
        turn = self.share.begin()
        value = self.share.value if turn is None else turn.value
        fit = round(BATCH * (1 - self.unfit))
        first = round(value * fit)
        parts = {name: count for name, count in (("dali", first), ("pyav", BATCH - first)) if count}
        if turn is not None:
            turn.num_left = len(parts)
        ends = []
        for name, count in parts.items():
            slower = 1 + self.interference * (len(parts) > 1)
            begin = max(self.now, self.free[name])
            end = begin + count / self.rates[name] * slower + self.slow_start * (self.free[name] == 0)
            self.free[name] = end
            ends.append(end)
            if turn is not None:
                heapq.heappush(self.events, (end, next(self.order), turn, name, count, end - begin))
        return max(ends), parts

    def wait(self, until):
        while self.events and self.events[0][0] <= until:
            self.now, _, turn, name, count, busy_s = heapq.heappop(self.events)
            self.share.end_part(turn, name, count, busy_s)
        self.now = max(self.now, until)

    def run(self, num_batches=400):
        """Decode so many batches; returns the seconds after which the share was settled."""
        settled_at, begun = None, []
        for _ in range(num_batches):
            begun.append(self.submit())
            if len(begun) == 2:
                self.wait(begun.pop(0)[0])
                self.wait(self.now + self.pause)
            if settled_at is None and self.share.is_settled:
                settled_at = self.now
        return settled_at


def only(news):
    (line,) = news
    return line


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [(400, 4000, 0.0), (400, 30, 1.0), (4000, 400, 1.0), (400, 390, 400 / 790), (300, 600, 1 / 3), (100, 900, 0.0)],
)
def test_the_fastest_way_is_found(first, second, value):
    workshop = Workshop(first, second)
    assert workshop.run() < 15
    assert workshop.share.is_settled
    assert workshop.share.value == pytest.approx(value, abs=0.02)
    assert workshop.share.news[0].startswith("decoder: measured over ")


def test_the_line_names_the_rates_and_the_choice():
    workshop = Workshop(300, 600)
    workshop.run()
    line = only(workshop.share.news)
    assert "clips/s: dali 300, pyav 600, both (33% to dali) 89" in line  # of 900, as clips are whole
    assert line.endswith("chosen: both go on")
    workshop = Workshop(300, 5000)
    workshop.run()
    assert only(workshop.share.news).endswith("chosen: pyav")


def test_two_that_hinder_each_other_do_not_both_go_on():
    workshop = Workshop(300, 280, interference=0.9)  # together 305
    workshop.run()
    assert workshop.share.value == 1.0
    line = only(workshop.share.news)
    assert "dali 300, pyav 280, both (52% to dali) 30" in line
    assert line.endswith("chosen: dali")


def test_a_training_step_that_is_waited_for_and_a_slow_start_change_nothing():
    for kind in ({"pause": 0.7}, {"slow_start": 20.0}, {"pause": 2.0, "slow_start": 3.0}):
        workshop = Workshop(300, 600, **kind)
        workshop.run()
        assert workshop.share.value == pytest.approx(1 / 3, abs=0.04), kind


def test_time_between_two_batches_counts_while_another_is_decoded():
    workshop = Workshop(300, 600, pause=0.05)  # neither has ever nothing to do
    workshop.run()
    assert "clips/s: dali 300, pyav 600, both (33% to dali) 8" in only(workshop.share.news)


def test_one_batch_is_enough_of_decoders_that_take_long_for_it():
    workshop = Workshop(10, 12)
    assert workshop.run() < 60
    assert workshop.share.value == pytest.approx(10 / 22, abs=0.02)


def test_what_only_one_can_take_counts_in_the_balance():
    workshop = Workshop(300, 600, unfit=0.5)
    workshop.run()
    assert workshop.share.value == pytest.approx(2 / 3, abs=0.05)  # of the half that both take, for a third of all
    workshop = Workshop(600, 300, unfit=0.75)
    workshop.run()
    assert workshop.share.value == 1.0  # pyav has enough with the rest


def test_a_hopeless_decoder_holds_nothing_up():
    workshop = Workshop(400, 8)  # half a batch takes it four seconds
    settled_at = workshop.run()
    assert workshop.share.value == 1.0
    assert settled_at < 20


def test_no_batch_is_given_out_otherwise_once_it_is_settled():
    workshop = Workshop(300, 5000)
    workshop.run()
    assert workshop.share.begin() is None
    assert not workshop.share.claim()


def test_one_at_a_time_measures_and_the_next_begins_anew():
    share = MeasuredShare("dali", "pyav")
    assert share.claim()
    assert not share.claim()
    turn = share.begin()
    turn.num_left = 1
    share.release()
    assert share.claim()
    assert share.value == 0.5


def test_clips_that_only_one_takes_settle_nothing():
    workshop = Workshop(300, 600, unfit=1.0)
    assert workshop.run() is None
    assert workshop.share.value == 0.5


def test_a_fixed_share_measures_nothing():
    share = Share(1.0)
    assert (share.claim(), share.begin(), share.value) == (False, None, 1.0)
