"""The PyNvVideoCodec decoder against PyAV's on the same stores; off a GPU with a stand-in for the library itself."""

import sys
from dataclasses import replace

import pytest
import torch

from engine.data.batch import ClipFormat, SnippetRequest
from engine.data.decoders import build_decoder, choose_decoder
from engine.data.geometry import snippet_frames
from engine.data.indexing.dataset import index_folder
from engine.data.manifests.manifest import Manifest
from engine.data.nvcodec.decode import NvCodecDecoder, nvcodec_problem
from engine.data.nvcodec.sessions import Sessions, import_nvcodec
from engine.data.pyav.decode import PyAVDecoder
from engine.data.pyav.encode import write_video
from engine.data.store.index import StoreIndex, StoreSettings, split_stored_path
from engine.data.store.ingest import WorkSettings, ingest
from engine.data.store.motion import WithStoredMotion
from engine.errors import InputError
from tests.data.fake_nvcodec import FakeModule
from tests.data.videos import numbered_frame, numbers, offset_counts
from tests.rows import row

CPU = torch.device("cpu")
GOP = 8
VIDEOS = [(45, (128, 128)), (19, (170, 128)), (16, (176, 128)), (3, (98, 64)), (1, (64, 114))]  # frames, size
CUT = ClipFormat(num_frames=6, short_side=64, crop=56)


@pytest.fixture
def library(monkeypatch):
    module = FakeModule()
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", module)
    return module


def make_store(root, videos=VIDEOS, short_side=64, motion=False, **settings):
    (root / "raw" / "x").mkdir(parents=True)
    for number, (count, size) in enumerate(videos):
        write_video(
            root / "raw" / "x" / f"{number}.mp4", (numbered_frame(frame, *size) for frame in range(count)), gop=30
        )
    index_folder(root / "raw", root / "raw.parquet")
    settings = StoreSettings(short_side=short_side, gop=GOP, preset="veryfast", **settings)
    ingest(Manifest.load(root / "raw.parquet"), root / "s", settings, WorkSettings(motion=motion))
    return Manifest.load(root / "s" / "manifest.parquet")


@pytest.fixture(scope="module", params=["h264", "hevc"])
def store(request, tmp_path_factory):
    """Shown sizes 64x64, 86x64 and 88x64 (H.264 codes both as 96x64), 98x64, 64x114."""
    return make_store(tmp_path_factory.mktemp(request.param), codec=request.param)


@pytest.fixture(scope="module")
def h264(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("plain"))


def requests(manifest):
    """Every video from many starts, past the end too; corners and the middle, mirrored or not, turned every way."""
    asked = []
    for index in range(len(manifest)):
        video = manifest.video(index)
        for start in sorted(
            {*range(min(video.num_frames, GOP + 2)), video.num_frames - 2, video.num_frames - 1} - {-1}
        ):
            y, x = (start % 3) / 2, (start % 4) / 3
            asked.append(SnippetRequest(replace(video, rotation=90 * (start % 4)), start, y, x, bool(start % 2)))
    return asked


def compare(clip, device, asked, *, exact):
    """Both decoders on the same requests: equal to the bit, or as near as two ways to scale are."""
    one, other = PyAVDecoder(clip, device, 2), NvCodecDecoder(clip, device, 3)
    for chosen in (asked, asked[::7], asked[:1], asked):  # the sessions are used again
        expected, found = one.decode(chosen), other.decode(chosen)
        assert not expected.failures
        assert not found.failures
        assert expected.frames.float().std() > 20
        if exact:
            assert torch.equal(found.frames, expected.frames)
        else:
            difference = (found.frames.int() - expected.frames.int()).abs()
            assert difference.max() <= 1
            assert difference.float().mean() < 0.3  # PyAV's way rounds between the two axes
    one.close()
    other.close()


@pytest.mark.parametrize("clip", [CUT, replace(CUT, stride=3), replace(CUT, num_frames=3, stride=20, crop=64)])
def test_snippets_are_those_of_pyav_to_the_bit(library, store, clip):
    compare(clip, CPU, requests(store), exact=True)


@pytest.mark.parametrize("short_side", [48, 90])
def test_other_sizes_than_the_store_s_are_scaled(library, store, short_side):
    compare(ClipFormat(num_frames=4, short_side=short_side, crop=40), CPU, requests(store), exact=False)


def test_every_offset_of_a_crop_of_a_store_comes_equally_often(library, tmp_path):
    video = make_store(tmp_path, [(2, (128, 128))], short_side=128).video(0)
    for build in (lambda clip: PyAVDecoder(clip, CPU, 1), lambda clip: NvCodecDecoder(clip, CPU, 2)):
        assert offset_counts(build, video) == ([2] * 11, [2] * 11)


def test_every_frame_is_the_one_that_was_asked_for(library, store):
    clip = ClipFormat(num_frames=6, short_side=64, crop=64)
    decoder, video = NvCodecDecoder(clip, CPU, 2), store.video(0)
    asked = [SnippetRequest(video, start, 0, 0, False) for start in range(video.num_frames)]
    first, second = decoder.submit(asked), decoder.submit(asked[::-1])  # begun before the first is waited for
    expected = [snippet_frames(video, start, clip) for start in range(video.num_frames)]
    assert [numbers(frames) for frames in first().frames.numpy()] == expected
    assert [numbers(frames) for frames in second().frames.numpy()] == expected[::-1]
    assert decoder.decode([]).frames.shape == (0, 6, 64, 64, 3)
    decoder.close()


def test_sessions_stay_open_one_for_a_coded_size(library, h264):
    decoder = NvCodecDecoder(CUT, CPU, 1)
    for _ in range(3):
        assert not decoder.decode(requests(h264)).failures
    kinds = [session.kind for session in decoder._sessions._idle]
    assert sorted(kinds) == [("h264", 64, 64), ("h264", 64, 128), ("h264", 96, 64), ("h264", 112, 64)]
    assert len(library.made) == 4
    decoder.close()
    assert decoder._sessions._idle == []


def test_no_more_sessions_are_kept_than_there_may_be(library):
    sessions = Sessions(CPU, 2)
    kinds = [("h264", 16 * index, 16) for index in range(1, 5)]
    for kind in kinds:
        with sessions.lend(kind):
            pass
    assert [session.kind for session in sessions._idle] == kinds[-2:]
    with sessions.lend(kinds[3]) as one, sessions.lend(kinds[3]) as other:
        assert one is not other
    assert len(library.made) == 5
    with pytest.raises(KeyError), sessions.lend(kinds[3]):
        raise KeyError  # what failed is not used again
    assert len(sessions._idle) == 1


def test_what_fails_is_named_and_costs_only_itself(library, h264, tmp_path, monkeypatch):
    good, plain = h264.video(0), Manifest.from_rows([row("a.mp4", "x")], tmp_path).video(0)
    gone = replace(good, path=tmp_path / "store.index" / "a#0")
    asked = [SnippetRequest(video, 3, 0, 0, False) for video in (good, plain, gone, replace(good, codec="av1"), good)]
    decoder = NvCodecDecoder(CUT, CPU, 2)
    found = decoder.decode(asked)
    assert sorted(found.failures) == [1, 2, 3]
    assert "is fed from snippet stores alone: ingest it" in found.failures[1]
    assert "there is no snippet store" in found.failures[2]
    assert "is not fed av1 from stores" in found.failures[3]
    assert torch.equal(found.frames[0], found.frames[4])
    decoder.close()


def test_a_damaged_group_is_named_and_its_session_is_not_used_again(library, tmp_path):
    manifest = make_store(tmp_path)
    entry = StoreIndex(tmp_path / "s" / "store.index")[split_stored_path(manifest.video(0).path)[1]]
    shard = tmp_path / "s" / "00000.h264"
    data = bytearray(shard.read_bytes())
    middle = entry.offset + int(entry.group_end[0])  # the second group of five loses its parameter sets and its key
    data[middle + 4 : middle + 400] = bytes(396)
    shard.write_bytes(data)
    decoder, video = NvCodecDecoder(CUT, CPU, 1), manifest.video(0)
    asked = [SnippetRequest(video, start, 0, 0, False) for start in (0, 9, 20)]
    found = decoder.decode(asked)
    assert list(found.failures) == [1]
    assert any(word in found.failures[1] for word in ("frames came out", "cannot decode it", "not in its group"))
    again = decoder.decode([asked[2], asked[0]])
    assert not again.failures
    assert torch.equal(again.frames, found.frames[[2, 0]])
    decoder.close()


def test_frames_of_the_last_snippet_that_come_out_later_are_noticed(monkeypatch, h264):
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", FakeModule(flushes=False))
    decoder = NvCodecDecoder(CUT, CPU, 1)
    found = decoder.decode([SnippetRequest(h264.video(0), 0, 0, 0, False)])
    assert "frames came out of the 6 that went in" in found.failures[0]
    decoder.close()


def test_an_error_of_the_library_is_one_failure(library, h264, monkeypatch):
    def broken(**_):
        raise RuntimeError("CUDA_ERROR_NOT_SUPPORTED\n at file.cpp")

    monkeypatch.setattr(library, "CreateDecoder", broken)
    decoder = NvCodecDecoder(CUT, CPU, 1)
    reason = decoder.decode([SnippetRequest(h264.video(0), 0, 0, 0, False)]).failures[0]
    assert reason == "PyNvVideoCodec cannot decode it (RuntimeError: CUDA_ERROR_NOT_SUPPORTED at file.cpp)"
    decoder.close()


def test_stores_with_b_frames_are_left_to_pyav(library, tmp_path):
    decoder = NvCodecDecoder(CUT, CPU, 1)
    video = make_store(tmp_path, b_frames=2).video(0)
    assert "its store has B-frames" in decoder.decode([SnippetRequest(video, 0, 0, 0, False)]).failures[0]
    decoder.close()


def test_chosen_by_name_where_it_can_decode(library, monkeypatch, h264, tmp_path):
    cuda, plain = torch.device("cuda", 0), Manifest.from_rows([row("a.mp4", "x")], tmp_path)
    choice = choose_decoder("nvcodec", cuda, [h264])
    assert (choice.name, choice.why) == ("nvcodec", "data.decoder is nvcodec")
    assert all(choice.routes.takes(h264.video(index)) for index in range(len(h264)))
    choice = choose_decoder("nvcodec", cuda, [h264, plain])
    assert "1 of 6 videos are for pyav alone (1 in no snippet store)" in choice.why
    assert not choice.routes.takes(plain.video(0))
    disordered = make_store(tmp_path / "b", b_frames=2)
    assert "store with B-frames" in choose_decoder("nvcodec", cuda, [disordered]).why
    with pytest.raises(InputError, match=r"decodes on NVIDIA GPUs, not on cpu; or set data\.decoder=pyav"):
        build_decoder("nvcodec", CUT, CPU, 1, 2)
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    assert "cannot be imported" in nvcodec_problem(cuda)
    with pytest.raises(InputError, match=r"pip install -e '\.\[nvdec\]'"):
        import_nvcodec()


def test_motion_comes_from_the_store_beside_its_frames(library, tmp_path):
    manifest, clip = make_store(tmp_path, motion=True), replace(CUT, motion=True)
    asked = requests(manifest)[::5]
    one, other = PyAVDecoder(clip, CPU, 2), WithStoredMotion(NvCodecDecoder(CUT, CPU, 2), clip, CPU)
    expected, found = one.decode(asked), other.decode(asked)
    assert not found.failures and torch.equal(found.frames, expected.frames)
    assert torch.equal(found.motion, expected.motion) and found.motion.any()
    one.close()
    other.close()
    plain = Manifest.from_rows([row("a.mp4", "x", codec="h264")], tmp_path)
    choice = choose_decoder("nvcodec", torch.device("cuda", 0), [manifest, plain], motion=True)
    assert choice.routes.takes(manifest.video(0)) and not choice.routes.takes(plain.video(0))
    assert "1 motion vectors are in the file" in choice.why


def needs_library():
    try:
        import_nvcodec()
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.nvdec
@pytest.mark.parametrize("clip", [CUT, replace(CUT, stride=3), replace(CUT, num_frames=3, stride=20, crop=64)])
def test_nvdec_gives_the_frames_of_pyav_to_the_bit(store, clip):
    needs_library()
    compare(clip, torch.device("cuda"), requests(store), exact=True)


@pytest.mark.gpu
@pytest.mark.nvdec
def test_nvdec_frames_are_scaled_as_pyav_s(store):
    needs_library()
    clip = ClipFormat(num_frames=4, short_side=48, crop=40)
    compare(clip, torch.device("cuda"), requests(store), exact=False)


@pytest.mark.gpu
@pytest.mark.nvdec
def test_clips_are_not_written_again_while_torch_still_works_on_them(h264):
    needs_library()
    decoder, video = NvCodecDecoder(CUT, torch.device("cuda"), 4), h264.video(0)
    sums = []
    for start in range(30):
        frames = decoder.decode([SnippetRequest(video, start, 0, 0, False)] * 8).frames
        torch.cuda._sleep(20_000_000)  # the sum waits behind this; by then the next batches are decoded
        sums.append(frames.double().sum(dim=(1, 2, 3, 4)))
        del frames
    for start, values in enumerate(sums):
        expected = decoder.decode([SnippetRequest(video, start, 0, 0, False)]).frames.double().sum()
        assert torch.equal(values, expected.expand(8))
    decoder.close()
