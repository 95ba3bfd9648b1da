"""Files in object storage: their addresses, whole files, ranges of bytes, what is read ahead and what is kept on a local disk.

Inside the engine a remote file is a `Path` like any other, `/s3:/bucket/key` for `s3://bucket/key`: it can be joined and
taken apart, is absolute, and names no file of this machine. `addresses.url_of` tells it, where bytes are read.
"""
