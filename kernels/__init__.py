"""Computations that torch has in no fast form, as Triton kernels with a reference of each in torch."""

import os

# A product and a sum are one operation, as Triton up to 3.9 compiles them unless told otherwise. 3.9 warns that 3.10 will not.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
