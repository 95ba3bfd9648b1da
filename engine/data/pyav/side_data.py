"""What a decoded frame carries beside its picture: how it is to be turned, how its blocks move."""

import av
from av.sidedata.sidedata import SideDataContainer


def side_data(frame: av.VideoFrame) -> SideDataContainer:
    """As `frame.side_data`, but not kept by the frame.

    Kept, each would refer to the other: the picture, and the threads that have converted it, would stay until Python's
    garbage collector runs, which services and trainings switch off.

    Raises:
        ValueError: among it is a kind that PyAV has no name for, such as EXIF.
    """
    return SideDataContainer(frame)
