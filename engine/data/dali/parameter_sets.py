"""H.264 pictures without their cropping: what is shown becomes what is coded, whole macroblocks of 16 x 16 pixels.

Why. DALI keeps NVDEC sessions for later use, noted under the size that is *shown*, and looks for them by the size that is
*coded* (read in its source, frames_decoder_gpu.cc). Of a picture 170 pixels wide, coded as 176, no session is ever found
again: each snippet opens one, which is said to take tens of milliseconds. And a session of 176 x 240 that is found for
pictures of which 228 rows are shown makes wrong colours of them without an error. So the cropping is taken out of
the stream and left to the graph.
"""

import functools

_START = b"\x00\x00\x01"
_PARAMETER_SET = _START + b"\x67"  # of a sequence (H.264, 7.4.1: type 7, needed by others)
_WITH_CHROMA_FORMAT = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)  # profiles (7.3.2.1.1)
_HEAD_BYTES = 64  # before a parameter set stands an access unit delimiter, of six bytes, and no more
MACROBLOCK = 16


def coded_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) in whole macroblocks."""
    return tuple(-(-side // MACROBLOCK) * MACROBLOCK for side in (width, height))


def drop_cropping(picture: bytes) -> bytes:
    """A coded picture (Annex B) of x264's; if it begins with a sequence parameter set, with one that crops nothing.

    Raises:
        ValueError: a parameter set of a kind that x264 does not write (interlaced, scaling lists).
    """
    start = picture.find(_PARAMETER_SET, 0, _HEAD_BYTES) + len(_START)
    if start < len(_START):
        return picture
    end = picture.find(_START, start)
    end = len(picture) if end < 0 else end
    unit = picture[start:end]
    tail = len(unit) - len(unit.rstrip(b"\x00"))  # zeros that belong to the next start code
    return picture[:start] + _uncropped(unit[: len(unit) - tail]) + picture[end - tail :]


@functools.lru_cache(maxsize=4096)
def _uncropped(unit: bytes) -> bytes:
    """A sequence parameter set (with its header byte) without frame cropping."""
    data = unit.replace(b"\x00\x00\x03", b"\x00\x00")  # emulation prevention (7.4.1.1)
    bits = _Bits(data)
    bits.skip(8)
    profile = bits.read(8)
    bits.skip(16)
    bits.exponential()  # seq_parameter_set_id
    if profile in _WITH_CHROMA_FORMAT:
        is_plain = bits.exponential() != 3  # chroma_format_idc
        bits.exponential()  # bit_depth_luma_minus8
        bits.exponential()  # bit_depth_chroma_minus8
        bits.skip(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.read(1) or not is_plain:  # seq_scaling_matrix_present_flag
            raise ValueError("a parameter set with scaling lists or separate colour planes")
    bits.exponential()  # log2_max_frame_num_minus4
    order_type = bits.exponential()  # pic_order_cnt_type
    if order_type == 0:
        bits.exponential()  # log2_max_pic_order_cnt_lsb_minus4
    elif order_type == 1:
        raise ValueError("a parameter set with a cycle of picture orders")
    bits.exponential()  # max_num_ref_frames
    bits.skip(1)  # gaps_in_frame_num_value_allowed_flag
    bits.exponential()  # pic_width_in_mbs_minus1
    bits.exponential()  # pic_height_in_map_units_minus1
    if not bits.read(1):  # frame_mbs_only_flag
        raise ValueError("a parameter set of interlaced pictures")
    bits.skip(1)  # direct_8x8_inference_flag
    before = bits.position
    if not bits.read(1):  # frame_cropping_flag
        return unit
    for _ in range(4):
        bits.exponential()
    text = bits.text[:before] + "0" + bits.text[bits.position :].rstrip("0")  # up to the stop bit
    text += "0" * (-len(text) % 8)
    rest = int(text, 2).to_bytes(len(text) // 8, "big")
    return _escaped(rest)


def _escaped(data: bytes) -> bytes:
    """With emulation prevention: no three bytes look like a start code."""
    out = bytearray()
    for byte in data:
        if byte <= 3 and out[-2:] == b"\x00\x00":
            out.append(3)
        out.append(byte)
    return bytes(out)


class _Bits:
    """Reads bits and Exp-Golomb numbers (9.1) from the front."""

    def __init__(self, data: bytes) -> None:
        self.text, self.position = "".join(f"{byte:08b}" for byte in data), 0

    def skip(self, count: int) -> None:
        self.position += count

    def read(self, count: int) -> int:
        self.position += count
        return int(self.text[self.position - count : self.position], 2)

    def exponential(self) -> int:
        zeros = self.text.index("1", self.position) - self.position
        self.skip(zeros)
        return self.read(zeros + 1) - 1
