"""What a file is, a video or a still picture, and what the probe of its kind finds in it.

The module of stills is imported where a picture is met: videos are probed without PIL and torch.
"""

from pathlib import Path
from typing import Any

from engine.data.layouts.walk import is_picture
from engine.data.magic import picture_by_contents
from engine.data.pyav.findings import ProbeError, ProbeResult
from engine.data.pyav.probe import probe


def probe_file(path: Path, **limits: Any) -> ProbeResult:
    """`probe_still` of a picture, `probe` of any other file.

    Args:
        limits: of videos, as `probe` takes them.

    Raises:
        ProbeError: the file cannot be trained on.
    """
    if not is_picture(str(path)):
        try:
            return probe(path, **limits)
        except ProbeError as error:
            if error.kind == "unreadable" and (told := picture_by_contents(path)):
                raise ProbeError("unreadable", told) from error
            raise
    from engine.data.stills import probe_still

    return probe_still(path)
