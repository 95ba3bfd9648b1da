"""What `prepare_classes` hands to `cosine_topk`, in PyTorch and in Triton alike."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PreparedClasses:
    """Classes [C, D] as `prepare_classes` made them, for any number of calls of `cosine_topk`.

    count, width: C and D. rows: where PyTorch computes, fp32 [C, D] of unit length; for the kernel with `inverse` and
    `bias`, which are None else, as `kernels.cosine_classes_triton` says.
    """

    rows: Tensor
    count: int
    width: int
    inverse: Tensor | None = None
    bias: Tensor | None = None
