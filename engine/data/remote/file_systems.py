"""The file systems of object storage, as `fsspec` has them."""

import functools
import logging
import os
from typing import Any

import fsspec

from engine.errors import InputError

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_OPTIONS = {  # of the file systems: an answer that does not come is an error, and trying again is done here
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 1}}},
    "gs": {"requests_timeout": 30},
}
# gcsfs asks by gRPC what kind of bucket it is, for the sake of zonal ones. Without Google's default credentials that fails, warns,
# and is asked again at each read. Who has a zonal bucket sets it to true.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
logging.getLogger("gcsfs").setLevel(
    logging.CRITICAL
)  # a traceback at each outage, which is told in one line (objects.py)


def file_system(url: str) -> Any:
    """The `fsspec` file system of a URL, one for each process.

    Raises:
        InputError: its package is not installed.
    """
    return _file_system(url.partition("://")[0], os.getpid())


@functools.cache
def _file_system(scheme: str, _process: int) -> Any:
    options = dict(_OPTIONS.get(scheme, {}))
    if scheme.startswith("http"):
        try:
            import aiohttp
        except ImportError:
            raise _missing(scheme) from None
        options["client_kwargs"] = {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)}
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError:
        raise _missing(scheme) from None


def _missing(scheme: str) -> InputError:
    return InputError(f"{scheme}:// needs the package {_PACKAGES[scheme]}: pip install -e '.[remote]'")
