"""Small remote files (manifests, the indices of stores) as files of this machine."""

from pathlib import Path

from engine.files.addresses import url_of


def is_there(path: Path) -> bool:
    """Whether there is a file, here or in object storage.

    Raises:
        SourceGone: it cannot be looked at.
    """
    if url_of(path) is None:
        return path.exists()
    try:
        return on_disk(path).exists()
    except FileNotFoundError:
        return False


def on_disk(path: Path) -> Path:
    """The file of this machine with the bytes of a file: itself, or of a remote one a copy.

    Raises:
        FileNotFoundError: there is no such object.
        SourceGone: it cannot be read.
    """
    url = url_of(path)
    if url is None:
        return path
    from engine.data.remote.objects import local_copy  # only where there is something remote

    return local_copy(url)
