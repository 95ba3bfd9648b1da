"""The DALI graph that turns encoded bytes into clips: NVDEC on a GPU, and the very same graph on its CPU backend.

    bytes ──external_source──▶ decoders.video ──▶ resize + crop ──▶ flip ──▶ repeat frames ──▶ clips
                               (listed frames)    (one pass)                 (past the end)

What was found out about DALI 2.4 and is relied on here (tests hold it):

Frames. `frames` counts decoded frames in presentation order, whatever the time stamps say: exact on
  the CPU for hidden (alt-ref) frames, edit lists, a variable rate and late first stamps. On the GPU it
  is exact only for what `engine.data.nvdec` lets through. Every snippet is decoded from the first byte fed
  (there is no index), so from a raw file the time it takes grows with its start. A frame asked for twice is decoded
  twice from there, so frames that are repeated past the end are decoded once and copied afterwards.
  Beyond the packets of a file DALI raises (`pad_mode="none"`). Between the frames that decode and the
  packets (hidden ones stored apart) it leaves memory as it was: `Video.file_frames` must be the decoded
  count, as the indexer makes it. A frame size that changes within a stream is not supported.
Codecs. The CPU backend decodes VP8, VP9 and MJPEG, at any size, 8 or 10 bits, 4:2:0 to 4:4:4.
Colour. Y'CbCr -> R'G'B' by BT.601 always, limited or full range as the stream is tagged; matrix tags
  (BT.709, BT.2020) are not looked at. Chroma is interpolated. The PyAV decoder follows the same rule.
Resampling. Bilinear with antialiasing (triangle filter widened by the reduction factor), rounded once. The
  `mirror` argument of `resize_crop_mirror` flips the wrong axis of a sequence, so `flip` follows it.
"""

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types

from engine.data.batch import ClipFormat
from engine.data.geometry import CropWindow


def empty_pipeline(device: torch.device, num_threads: int, max_batch_size: int) -> Pipeline:
    """A graph without operators yet, that runs when it is asked to and not ahead."""
    return Pipeline(
        batch_size=max_batch_size,
        num_threads=num_threads,
        device_id=device.index if device.type == "cuda" else None,
        prefetch_queue_depth=1,
    )


def decoding_on(device: torch.device) -> str:
    """DALI's name for the device of an operator that takes bytes on the host and gives frames on `device`."""
    return "mixed" if device.type == "cuda" else "cpu"


def build_clip_pipeline(clip: ClipFormat, device: torch.device, num_threads: int, max_batch_size: int) -> Pipeline:
    """The graph, on either device. Inputs by name, one item a sample; outputs: clips, decoded shapes.

    Inputs: encoded uint8 [bytes]; frames int32 [F], ascending; order int32 [T], index into `frames`;
        shown float32 [2], height and width of the upper left part of the decoded frame that is shown;
        size float32 [2], height and width to scale that to; top, left float32, position of the crop as a share
        of the room there is; mirror_x, mirror_y int32, 1 to mirror left-right or top-bottom.
    Outputs: uint8 [T, crop, crop, 3] on `device`; int64 [4] on the CPU, (F, H, W, 3) as decoded.
    """
    pipeline = empty_pipeline(device, num_threads, max_batch_size)
    with pipeline:
        encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
        frames = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
        order = fn.external_source(name="order", dtype=types.INT32, ndim=1)
        shown = fn.external_source(name="shown", dtype=types.FLOAT, ndim=1)
        size = fn.external_source(name="size", dtype=types.FLOAT, ndim=1)
        top = fn.external_source(name="top", dtype=types.FLOAT, ndim=0)
        left = fn.external_source(name="left", dtype=types.FLOAT, ndim=0)
        mirror_x = fn.external_source(name="mirror_x", dtype=types.INT32, ndim=0)
        mirror_y = fn.external_source(name="mirror_y", dtype=types.INT32, ndim=0)
        video = fn.decoders.video(
            encoded,
            device=decoding_on(device),
            frames=frames,
            pad_mode="none",
            affine=False,  # threads of several ranks would be pinned to the same cores
        )
        clips = fn.resize_crop_mirror(
            video,
            roi_start=(0, 0),
            roi_end=shown,
            size=size,
            crop=(clip.crop, clip.crop),
            crop_pos_y=top,
            crop_pos_x=left,
            interp_type=types.INTERP_LINEAR,
            antialias=True,
        )
        clips = fn.flip(clips, horizontal=mirror_x, vertical=mirror_y)
        clips = fn.sequence_rearrange(clips, new_order=order)
        pipeline.set_outputs(clips, video.shape(dtype=types.INT64))
    pipeline.build()
    return pipeline


def window_inputs(window: CropWindow, clip: ClipFormat) -> dict[str, np.ndarray]:
    """The inputs of `build_clip_pipeline` that say which pixels are shown."""

    def share(anchor: int, length: int) -> np.ndarray:
        return np.array(anchor / max(length - clip.crop, 1), np.float32)

    return {
        "size": np.array([window.height, window.width], np.float32),
        "top": share(window.top, window.height),
        "left": share(window.left, window.width),
        **mirror_inputs(window.flip, window.quarter_turns),
    }


def mirror_inputs(flip: bool, quarter_turns: int) -> dict[str, np.ndarray]:
    """`mirror_x` and `mirror_y` for a snippet that is turned after the graph.

    The displayed frame is mirrored left-right: one that still lies on its side is mirrored top-bottom.
    """
    lies = quarter_turns % 2 == 1
    return {"mirror_x": np.array(flip and not lies, np.int32), "mirror_y": np.array(flip and lies, np.int32)}
