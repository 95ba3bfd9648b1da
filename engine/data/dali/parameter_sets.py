"""What H.264 and HEVC say of a stream before its first frame; and their frames without cropping, whole blocks.

A block is a macroblock of 16 x 16 pixels (H.264), or x265's smallest coding unit of 8 x 8 (HEVC).

Why the latter. DALI keeps NVDEC sessions for later use, noted under the size that is *shown*, and looks for them by the size
that is *coded* (read in its source, frames_decoder_gpu.cc). Of a frame 170 pixels wide, coded as 176, no session is ever found
again: each snippet opens one, which is said to take tens of milliseconds. And a session of 176 x 240 that is found for
frames of which 228 rows are shown makes wrong colours of them without an error. So the cropping is taken out of
the stream and left to the graph.

NVDEC decodes no HEVC below 144 x 144 (H.264: 48 x 16). Smaller frames are padded to that before they are coded, and
their parameter sets then say which part is shown; whoever takes the cropping out has frames that NVDEC decodes.
"""

import functools
from dataclasses import dataclass

_START = b"\x00\x00\x01"
_PARAMETER_SETS = {  # start of a sequence's
    "h264": _START + b"\x67",  # H.264, 7.4.1: type 7, needed by others
    "hevc": _START + b"\x42\x01",  # H.265, 7.4.2.2: type 33
}
_WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # profiles (7.3.2.1.1)
_HEAD_BYTES = 64  # before it stand an access unit delimiter of 6 or 7 bytes and, in HEVC, a video parameter set of 28
BLOCKS = {"h264": 16, "hevc": 8}  # pixels, of the sides that are coded
_LEAST = {"h264": 0, "hevc": 144}  # pixels, of either side


def coded_size(width: int, height: int, codec: str = "h264") -> tuple[int, int]:
    """(width, height) in whole blocks, as a store codes them."""
    block, least = BLOCKS[codec], _LEAST[codec]
    return tuple(max(least, -(-side // block) * block) for side in (width, height))


def drop_cropping(frame: bytes, codec: str = "h264") -> bytes:
    """A coded frame (Annex B) of x264's or x265's; a sequence parameter set at its beginning then crops nothing.

    Raises:
        ValueError: a parameter set of a kind that they do not write (interlaced, layers), or one that ends too early.
    """
    return set_cropping(frame, codec, 0, 0)


def set_cropping(frame: bytes, codec: str, right: int, bottom: int) -> bytes:
    """A coded frame whose sequence parameter set, if it begins with one, has so many pixels (even) not shown.

    Raises:
        ValueError: as `drop_cropping`.
    """
    start = frame.find(_PARAMETER_SETS[codec], 0, _HEAD_BYTES) + len(_START)
    if start < len(_START):
        return frame
    end = frame.find(_START, start)
    end = len(frame) if end < 0 else end
    unit = frame[start:end]
    tail = len(unit) - len(unit.rstrip(b"\x00"))  # zeros that belong to the next start code
    return frame[:start] + _cropped(unit[: len(unit) - tail], codec, right, bottom) + frame[end - tail :]


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a sequence parameter set says of its frames.

    chroma_format: 0 none, 1 4:2:0, 2 4:2:2, 3 4:4:4. bit_depth: of luma and chroma, the larger.
    is_progressive: every coded frame is a whole frame, none is a field (H.264's frame_mbs_only_flag).
    """

    chroma_format: int
    bit_depth: int
    is_progressive: bool


def read_h264_set(unit: bytes) -> StreamFacts:
    """An H.264 sequence parameter set, with its header byte (7.3.2.1.1).

    Raises:
        ValueError: it ends too early, or means nothing.
    """
    return _read_up_to_size(_bits_of(unit))


def read_configuration(codec: str, record: bytes) -> StreamFacts:
    """What the configuration record of an MP4 or Matroska track says (ISO/IEC 14496-15: avcC of h264, hvcC of hevc).

    Raises:
        ValueError: it is none, or has no parameter set in it.
    """
    if len(record) < 23 or record[0] != 1:
        raise ValueError("no configuration record")
    if codec == "hevc":
        return StreamFacts(record[16] & 3, 8 + max(record[17] & 7, record[18] & 7), True)
    length = int.from_bytes(record[6:8], "big")
    if not record[5] & 31 or record[8] & 31 != 7:
        raise ValueError("no sequence parameter set in the configuration record")
    return read_h264_set(record[8 : 8 + length])


@functools.lru_cache(maxsize=4096)
def _cropped(unit: bytes, codec: str, right: int, bottom: int) -> bytes:
    """A sequence parameter set (with its header) with another cropping."""
    bits = _bits_of(unit)
    _TO_CROPPING[codec](bits)
    before = bits.position
    is_cropped, crops = bits.read(1), right or bottom  # frame_cropping_flag, or conformance_window_flag
    if not is_cropped and not crops:
        return unit
    if is_cropped:
        for _ in range(4):
            bits.exponential()
    sides = (0, right // 2, 0, bottom // 2)  # left, right, top, bottom, in samples of chroma
    cropping = "1" + "".join(map(_exponential, sides)) if crops else "0"
    text = bits.text[:before] + cropping + bits.text[bits.position :].rstrip("0")  # up to the stop bit
    text += "0" * (-len(text) % 8)
    rest = int(text, 2).to_bytes(len(text) // 8, "big")
    return _escaped(rest)


def _to_h264_cropping(bits: "_Bits") -> None:
    """Go to the flag of cropping (H.264, 7.3.2.1.1)."""
    if not _read_up_to_size(bits).is_progressive:
        raise ValueError("a parameter set of interlaced frames")
    bits.skip(1)  # direct_8x8_inference_flag


def _to_hevc_cropping(bits: "_Bits") -> None:
    """Go to the flag of cropping (H.265, 7.3.2.2.1)."""
    bits.skip(16 + 4)  # the unit's header, sps_video_parameter_set_id
    if bits.read(3):  # sps_max_sub_layers_minus1
        raise ValueError("a parameter set of several temporal layers")
    bits.skip(1 + 96)  # sps_temporal_id_nesting_flag, profile_tier_level (7.3.3) of one layer
    bits.exponential()  # sps_seq_parameter_set_id
    if bits.exponential() == 3:  # chroma_format_idc
        raise ValueError("a parameter set of 4:4:4")
    bits.exponential()  # pic_width_in_luma_samples
    bits.exponential()  # pic_height_in_luma_samples


_TO_CROPPING = {"h264": _to_h264_cropping, "hevc": _to_hevc_cropping}


def _bits_of(unit: bytes) -> "_Bits":
    """The bits of a parameter set without emulation prevention (7.4.1.1)."""
    return _Bits(unit.replace(b"\x00\x00\x03", b"\x00\x00"))


def _read_up_to_size(bits: "_Bits") -> StreamFacts:
    """Read a sequence parameter set from its header byte through frame_mbs_only_flag."""
    bits.skip(8)
    profile = bits.read(8)
    bits.skip(16)
    bits.exponential()  # seq_parameter_set_id
    chroma_format, depth = 1, 8
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = bits.exponential()
        if chroma_format > 3:
            raise ValueError("a parameter set of no known chroma format")
        if chroma_format == 3:
            bits.skip(1)  # separate_colour_plane_flag
        depth += max(bits.exponential(), bits.exponential())  # bit_depth_luma_minus8, bit_depth_chroma_minus8
        bits.skip(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.read(1):  # seq_scaling_matrix_present_flag
            for offset in range(12 if chroma_format == 3 else 8):
                _skip_scaling_list(bits, 16 if offset < 6 else 64)
    bits.exponential()  # log2_max_frame_num_minus4
    order_type = bits.exponential()  # pic_order_cnt_type
    if order_type == 0:
        bits.exponential()  # log2_max_pic_order_cnt_lsb_minus4
    elif order_type == 1:
        bits.skip(1)  # delta_pic_order_always_zero_flag
        bits.exponential()  # offset_for_non_ref_pic
        bits.exponential()  # offset_for_top_to_bottom_field
        for _ in range(bits.exponential()):  # num_ref_frames_in_pic_order_cnt_cycle
            bits.exponential()
    bits.exponential()  # max_num_ref_frames
    bits.skip(1)  # gaps_in_frame_num_value_allowed_flag
    bits.exponential()  # pic_width_in_mbs_minus1
    bits.exponential()  # pic_height_in_map_units_minus1
    return StreamFacts(chroma_format, depth, bool(bits.read(1)))  # frame_mbs_only_flag


def _skip_scaling_list(bits: "_Bits", size: int) -> None:
    """Read over one scaling list (7.3.2.1.1.1)."""
    if not bits.read(1):  # seq_scaling_list_present_flag
        return
    last, scale = 8, 8
    for _ in range(size):
        if scale:
            coded = bits.exponential()
            scale = (last + (-(coded // 2) if coded % 2 == 0 else (coded + 1) // 2)) % 256
        last = scale or last


def _escaped(data: bytes) -> bytes:
    """With emulation prevention: no three bytes look like a start code."""
    out = bytearray()
    for byte in data:
        if byte <= 3 and out[-2:] == b"\x00\x00":
            out.append(3)
        out.append(byte)
    return bytes(out)


def _exponential(number: int) -> str:
    """The Exp-Golomb code of a number (9.1), in bits."""
    text = f"{number + 1:b}"
    return "0" * (len(text) - 1) + text


class _Bits:
    """Reads bits and Exp-Golomb numbers (9.1) from the front."""

    def __init__(self, data: bytes) -> None:
        self.text, self.position = "".join(f"{byte:08b}" for byte in data), 0

    def skip(self, count: int) -> None:
        self.position += count

    def read(self, count: int) -> int:
        self.position += count
        if self.position > len(self.text):
            raise ValueError("a parameter set that ends too early")
        return int(self.text[self.position - count : self.position] or "0", 2)

    def exponential(self) -> int:
        zeros = self.text.index("1", self.position) - self.position
        self.skip(zeros)
        return self.read(zeros + 1) - 1
