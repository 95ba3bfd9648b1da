"""Sequences of unequal length, as windows of videos and words of classes are; and recurrent networks over them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence


@dataclass(frozen=True, slots=True)
class Sequences:
    """N sequences one after the other, without padding.

    values: float32 [sum of lengths, F]. lengths: int64 [N], each at least 1.
    """

    values: torch.Tensor
    lengths: torch.Tensor

    @classmethod
    def of(cls, parts: Sequence[torch.Tensor]) -> "Sequences":
        """From sequences [L, F], at least one."""
        return cls(torch.cat(list(parts)).float(), torch.tensor([len(part) for part in parts]))

    @classmethod
    def joined(cls, parts: Sequence["Sequences"]) -> "Sequences":
        """The sequences of several, one after the other."""
        return cls(torch.cat([part.values for part in parts]), torch.cat([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: torch.Tensor) -> "Sequences":
        """The sequences at int64 [M], or where bool [N] is true."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        return self._steps(rows, self.lengths[rows])

    def thinned(self, most: int) -> "Sequences":
        """Sequences of more than `most` steps by as many of them, evenly spread."""
        return self._steps(torch.arange(len(self)), self.lengths.clamp(max=most))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Sequences":
        """Each step [F] by what `function` makes of all of them."""
        return Sequences(function(self.values), self.lengths)

    def means(self) -> torch.Tensor:
        """The mean of each sequence, [N, F]."""
        return torch.segment_reduce(self.values, "mean", lengths=self.lengths, axis=0)

    def largest(self) -> torch.Tensor:
        """The largest value that each sequence reaches, [N, F]."""
        return torch.segment_reduce(self.values, "max", lengths=self.lengths, axis=0)

    def padded(self) -> torch.Tensor:
        """[N, longest, F], zeros behind the end of a sequence."""
        return pad_sequence(self.values.split(self.lengths.tolist()), batch_first=True)

    def is_step(self) -> torch.Tensor:
        """bool [N, longest]: what is no padding of `padded`."""
        return torch.arange(int(self.lengths.max())) < self.lengths[:, None]

    def _steps(self, rows: torch.Tensor, counts: torch.Tensor) -> "Sequences":
        """Of each of the sequences `rows` so many steps, evenly spread."""
        lengths = self.lengths[rows]
        begins = (self.lengths.cumsum(0) - self.lengths)[rows]
        place = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        spread = (2 * place + 1) * lengths.repeat_interleave(counts) // (2 * counts).repeat_interleave(counts)
        return Sequences(self.values[begins.repeat_interleave(counts) + spread], counts)


def run(network: nn.RNNBase, values: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A recurrent network (of one layer, batch first) over padded sequences [N, T, F]; what lies behind an end is not read.

    Returns:
        Its outputs [N, T, H], zeros behind an end, and its last state [N, H]; both directions side by side.
    """
    outputs, state = network(pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False))
    last = state[0] if isinstance(state, tuple) else state  # an LSTM has a cell beside it
    return pad_packed_sequence(outputs, batch_first=True)[0], torch.cat(list(last), dim=1)
