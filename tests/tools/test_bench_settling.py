"""Decoders that are to be measured first, as on a GPU, with PyAV in the accelerator's place: nothing is timed before it is
chosen who decodes."""

import pytest
import torch
from bench import accuracy, contestants, settling

from engine.config import load_config
from engine.data.decoders import DecoderChoice
from engine.data.pyav.decode import PyAVDecoder
from engine.data.routing import RoutedDecoder, Routes
from engine.data.shares import MeasuredShare
from engine.tasks import decoding
from tests.bench_records import newest
from tests.jobs import write_config
from tests.small_run import write_run


class Accelerator(PyAVDecoder):
    name = "dali"


@pytest.fixture
def share(monkeypatch):
    """Of an accelerator that is measured beside PyAV; a step is shorter than one probe of it."""
    share = MeasuredShare("dali", "pyav", probe_s=0.1)
    choice = DecoderChoice("dali", "measured", Routes(lambda video: None, share))

    def build(choice, clip, device, *rest, **keywords):
        videos = [Accelerator(clip, device, 1), PyAVDecoder(clip, device, 1)]
        return RoutedDecoder(videos, videos[1:], choice.routes)

    monkeypatch.setattr(decoding, "choose_decoder", lambda *arguments, **keywords: choice)
    monkeypatch.setattr(decoding, "build_decoder", build)
    return share


def test_a_warm_up_lasts_until_it_is_chosen_who_decodes(tmp_path, videos, share):
    words = ["words.source=random", "train.epochs=10000", "log.every_steps=1"]
    config = load_config(write_config(tmp_path / "c.yaml", videos[0], tmp_path / "run"), words)
    engine = contestants.EngineContestant(config, torch.device("cpu"))
    warm = engine.warm_up(1)
    assert share.is_settled and warm.precision == "fp32"
    assert warm.decoder.startswith("decoder: measured over ") and "chosen: " in warm.decoder
    value = share.value
    engine.turn(2)
    assert share.value == value and engine.engine_run.task.decoding.found == warm.decoder
    engine.close()


def test_accuracy_times_no_row_before_it_is_chosen_who_decodes(program, tmp_path, videos, share, monkeypatch):
    evaluate, settled = accuracy.evaluate, []
    monkeypatch.setattr(accuracy, "evaluate", lambda *of: settled.append(share.is_settled) or evaluate(*of))
    test = {"manifest": str(videos[0]), "splits": ["unseen"], "name": "combinations"}
    write_run(tmp_path / "small", tests=[test], words={"source": "random", "dim": 12})
    words = ["--clips", "1", "--clips", "3", "--precision", "fp32", "--max-videos", "5", "--device", "cpu"]
    status, out = program("accuracy", tmp_path / "small", *words)
    assert status == 0, out
    assert settled == [True, True]
    (line,) = newest(tmp_path, "accuracy")["decoders"].values()
    assert "chosen: " in line and line in out


def test_a_choice_that_takes_too_long_is_told(share):
    unsettled = decoding.Decoding(None, None, DecoderChoice("dali", "", Routes(lambda video: None, share)))
    assert len(list(settling.until_settled(unsettled, 0.01))) > 0 and not unsettled.is_settled
    assert settling.decoder_line(unsettled, 30) == (
        "decoder: not chosen within 30 s of work: what is timed is the measuring of the decoders"
    )
    alone = decoding.Decoding(None, None, DecoderChoice("pyav", "data.decoder is pyav"))
    assert list(settling.until_settled(alone)) == [] and settling.decoder_line(alone) == ""
