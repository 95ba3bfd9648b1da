"""The file systems of object storage, as `fsspec` has them, and ranges through them with what came along: the object's state."""

import functools
import logging
import os
from typing import Any

import fsspec
import fsspec.asyn

from engine.data.remote.states import Answer, State, replaced, state_in
from engine.errors import InputError

_REFUSED = "it does not have the ETag of before"
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_OPTIONS = {  # of the file systems: an answer that does not come is an error, and trying again is done here
    "s3": {"config_kwargs": {"connect_timeout": 10, "read_timeout": 30, "retries": {"max_attempts": 1}}},
    "gs": {"requests_timeout": 30},
}
# gcsfs asks by gRPC what kind of bucket it is, for the sake of zonal ones. Without Google's default credentials that fails, warns,
# and is asked again at each read. Who has a zonal bucket sets it to true.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
# It writes a traceback at each outage, as botocore does of each login that has expired: objects.py tells it in one line.
for _name in ("gcsfs", "botocore.credentials", "botocore.tokens", "aiobotocore"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


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


def key_of(url: str) -> str:
    """What a file system calls an object."""
    return url if url.startswith("http") else url.partition("://")[2]


def read_range(url: str, start: int, end: int, if_match: str = "") -> Answer:
    """These bytes; fewer where the object ends before.

    Args:
        if_match: if not "", the ETag that the object must have, where the file system can ask for it.

    Raises:
        FileNotFoundError: there is no such object.
        SourceGone: it has another ETag.
        Exception: what the file system raises.
    """
    read, fs = _READS.get(url.partition("://")[0]), file_system(url)
    if start >= end or read is None:
        return Answer(fs.cat_file(key_of(url), start=start, end=end), State())
    return fsspec.asyn.sync(fs.loop, read, fs, url, start, end, if_match)


async def _read_http(fs: Any, url: str, start: int, end: int, if_match: str) -> Answer:
    options = dict(fs.kwargs)
    headers = {**options.pop("headers", {}), "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    if if_match:
        headers["If-Match"] = if_match
    session = await fs.set_session()
    async with session.get(fs.encode_url(url), headers=headers, **options) as answer:
        if answer.status == 412 and if_match:
            raise replaced(url, _REFUSED)
        if answer.status == 404:
            raise FileNotFoundError(url)
        if answer.status == 416:
            return Answer(b"", state_in(answer.headers))
        answer.raise_for_status()
        return Answer(await answer.read(), state_in(answer.headers))


def s3_answer(error: OSError) -> dict[str, Any]:
    """What S3 has answered where that is an error; empty where it is none of its answers."""
    return getattr(error.__cause__, "response", {})


async def _read_s3(fs: Any, url: str, start: int, end: int, if_match: str) -> Answer:
    bucket, key, _ = fs.split_path(key_of(url))
    condition = {"IfMatch": if_match} if if_match else {}
    try:
        found = await fs._call_s3("get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", **condition)
    except OSError as error:
        facts = s3_answer(error).get("ResponseMetadata", {})
        if facts.get("HTTPStatusCode") == 412 and if_match:
            raise replaced(url, _REFUSED) from None
        if facts.get("HTTPStatusCode") == 416:
            return Answer(b"", state_in(facts.get("HTTPHeaders", {})))
        raise
    async with found["Body"] as body:
        return Answer(await body.read(), state_in(found["ResponseMetadata"]["HTTPHeaders"]))


async def _read_gs(fs: Any, url: str, start: int, end: int, _if_match: str) -> Answer:
    """Its number of a generation tells what an ETag does, which there changes with notes on the object too."""
    is_zonal = getattr(fs, "_is_zonal_bucket", None)  # of newer versions: such a bucket is read by another protocol
    if is_zonal and await is_zonal(key_of(url).partition("/")[0]):
        return Answer(await fs._cat_file(key_of(url), start=start, end=end), State())
    headers, data = await fs._call("GET", fs.url(key_of(url)), headers={"Range": f"bytes={start}-{end - 1}"})
    return Answer(data, state_in(headers, "x-goog-generation"))


_READS = {"http": _read_http, "https": _read_http, "s3": _read_s3, "gs": _read_gs}


def _missing(scheme: str) -> InputError:
    return InputError(f"{scheme}:// needs the package {_PACKAGES[scheme]}: pip install -e '.[remote]'")
