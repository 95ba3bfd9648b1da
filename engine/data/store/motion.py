"""Motion of clips from a store, whoever decodes their frames."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from engine.data.batch import ClipFormat, DecodedClips, SnippetRequest, VideoDecoder
from engine.data.geometry import crop_window, snippet_frames
from engine.data.loading.transfer import DeviceCopier
from engine.data.motion import clip_cells, restore
from engine.data.store.reader import StoreError, find_entry


def stored_motion(request: SnippetRequest, clip: ClipFormat) -> np.ndarray:
    """The motion of a snippet of a stored video, uint8 [T, h, w], by one read.

    Raises:
        StoreError: the store is not there, or not the manifest's, or was made without motion.
    """
    reader, entry = find_entry(request.video)
    numbers = np.array(snippet_frames(request.video, request.start, clip))
    kept = reader.read_motion(entry, int(numbers[0]), int(numbers[-1]))[numbers - numbers[0]]
    return clip_cells(restore(kept), (entry.width, entry.height), crop_window(request, clip), clip.crop)


class WithStoredMotion(VideoDecoder):
    """A decoder of stored videos that knows no motion, with it: read while that one decodes.

    Args:
        decoder: gives the frames.
        clip: the shape of a snippet.
        device: where the clips are wanted.
    """

    def __init__(self, decoder: VideoDecoder, clip: ClipFormat, device: torch.device) -> None:
        self.name, self._decoder, self._clip, self._copy = decoder.name, decoder, clip, DeviceCopier(device)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="motion")

    def submit(self, requests: Sequence[SnippetRequest]) -> Callable[[], DecodedClips]:
        """See `VideoDecoder`."""
        wait, reading = self._decoder.submit(requests), self._reader.submit(self._read, requests)

        def both() -> DecodedClips:
            clips, (motion, failures) = wait(), reading.result()
            return DecodedClips(clips.frames, dict(sorted((failures | clips.failures).items())), motion)

        return both

    def close(self) -> None:
        """Release the decoder and the thread."""
        self._reader.shutdown(cancel_futures=True)
        self._decoder.close()

    def _read(self, requests: Sequence[SnippetRequest]) -> tuple[torch.Tensor, dict[int, str]]:
        motion, failures = torch.zeros((len(requests), *self._clip.motion_shape), dtype=torch.uint8), {}
        for row, request in enumerate(requests):
            try:
                motion[row] = torch.from_numpy(stored_motion(request, self._clip))
            except StoreError as error:
                failures[row] = str(error)
        return self._copy(motion), failures
