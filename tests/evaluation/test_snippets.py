"""Which snippets of a video are looked at outside of training."""

from pathlib import Path

from engine.data.batch import STILL_CODEC, ClipFormat
from engine.data.manifests.manifest import Manifest
from engine.data.sampling.sampler import evaluation_motions, evaluation_starts
from engine.evaluation.snippets import video_requests
from tests.rows import row


def test_snippets_of_a_stride_lie_within_the_video():
    """Else the last ones would be the last frame, again and again."""
    manifest = Manifest.from_rows([row("a.mp4", "a", num_frames=100)], Path("/v"))
    clip = ClipFormat(num_frames=8, short_side=8, crop=8, stride=4)
    starts = [request.start for request in video_requests(manifest, [0], clip, 5)]
    assert starts == evaluation_starts(100, 5, clip.span).tolist() and starts[-1] + clip.span == 100


def test_snippets_of_a_still_are_different_moving_crops():
    manifest = Manifest.from_rows([row("a.png", "a", num_frames=1, codec=f"{STILL_CODEC}png")], Path("/v"))
    clip = ClipFormat(num_frames=8, short_side=8, crop=8)
    assert [request.motion for request in video_requests(manifest, [0], clip, 5)] == evaluation_motions(5)
