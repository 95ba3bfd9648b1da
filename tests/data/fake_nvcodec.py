"""Stands in for PyNvVideoCodec 2.2 where there is no driver: the same names, decoding by FFmpeg, and its ways that matter.

Frames lie in buffers that every `Decode` writes again from the first on. One frame at least stays within until a packet
that is empty ends the stream. What is shown is cropped. A session keeps the size that it met first.
"""

import ctypes
from types import SimpleNamespace

import av
import numpy as np

from engine.data.pyav.planar import plane_rows


class PacketData:
    def __init__(self):
        self.key = self.pts = self.dts = self.pos = self.bsl = self.bsl_data = self.duration = self.decode_flag = 0


class PyNvVCException(Exception):
    pass


class DecodedFrame:
    def __init__(self, nv12):
        self._nv12 = nv12

    @property
    def shape(self):
        return self._nv12.shape

    def __dlpack__(self, stream=None):
        assert stream is None, "there is no stream on a CPU"
        return self._nv12.__dlpack__()

    def __dlpack_device__(self):
        return self._nv12.__dlpack_device__()


class PyNvDecoder:
    def __init__(self, codec, flushes):
        self._codec, self._flushes = codec, flushes
        self._buffers, self._size, self._held, self._context = [], None, [], None

    def Decode(self, packet):
        self._context = self._context or av.CodecContext.create(self._codec, "r")
        data = ctypes.string_at(packet.bsl_data, packet.bsl) if packet.bsl else b""
        ended = not data and self._flushes
        coded = self._context.parse(data) if data else []
        if ended:
            coded += self._context.parse(b"")
        frames = [frame for each in coded for frame in self._context.decode(each)]
        if ended:
            frames += self._context.decode(None)
            self._context = None
        self._held += [_nv12(frame) for frame in frames]
        shown = self._held if ended else self._held[:-1]
        self._held = self._held[len(shown) :]
        return [self._frame(index, frame) for index, frame in enumerate(shown)]

    def _frame(self, index, frame):
        self._size = self._size or frame.shape
        if frame.shape != self._size:
            raise PyNvVCException("Reconfigure Not supported\nwhen width/height > maxwidth/maxheight")
        if index == len(self._buffers):
            self._buffers.append(np.empty_like(frame))
        self._buffers[index][...] = frame
        return DecodedFrame(self._buffers[index])


def _nv12(frame):
    luma, blue, red = (plane_rows(plane)[:, : plane.width] for plane in frame.planes)
    return np.concatenate([luma, np.stack([blue, red], axis=-1).reshape(len(blue), -1)])


class FakeModule(SimpleNamespace):
    """The module; `made` lists its decoders. Without `flushes` an empty packet ends nothing."""

    def __init__(self, *, flushes=True):
        codecs = SimpleNamespace(H264="h264", HEVC="hevc", AV1="av1")
        super().__init__(PacketData=PacketData, cudaVideoCodec=codecs, made=[], flushes=flushes)

    def CreateDecoder(
        self, gpuid=0, codec="h264", cudacontext=0, cudastream=0, usedevicememory=False, maxwidth=0, maxheight=0
    ):
        assert (gpuid, cudacontext, cudastream, usedevicememory) == (0, 0, 0, False)
        self.made.append(PyNvDecoder(codec, self.flushes))
        return self.made[-1]
