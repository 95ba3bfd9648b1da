"""CI-MHA (Yu et al. 2021, reconstructed): query and video attend to each other, two classifiers read what comes of it.

    segments ──▶ linear + place + neighbours ──▶ self-attention ──▶ V ◀──cross-attention──▶ Q ◀── self-attention ◀── tokens
                                                       │                       │
                                                       └──▶ [V'_t ; pool(Q')] ─┘──▶ start, end, in or out

Padded segments and tokens have no effect on the others, to the last bit, if lengths are padded to multiples of `MULTIPLE`: what
they add to a sum is exactly 0, and sums go in lanes of so many numbers.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from engine.moments.config import MomentsConfig

MULTIPLE = 16
# Segments (or tokens) that each one sees in order before attention, which sees all but no order among neighbours.
NEAR = 7


class Attention(nn.Module):
    """Multi-head attention with what it adds to, normalised, and the feed-forward layers after it."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.query, self.key_value, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )
        self.norm, self.norm_after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x: torch.Tensor, memory: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
        """x [N, T, W] attends to memory [N, S, W], where is_real, bool [N, S], says so: at least once in each row."""
        query = self._heads(self.query(x))
        key, value = map(self._heads, self.key_value(memory).chunk(2, dim=-1))
        found = functional.scaled_dot_product_attention(query, key, value, is_real[:, None, None, :])
        x = self.norm(x + self.dropout(self.out(found.transpose(1, 2).flatten(2))))
        return self.norm_after(x + self.feed_forward(x))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Side(nn.Module):
    """One side before they meet: features in, their width and places given, a look at the neighbours, self-attention."""

    def __init__(self, features: int, config: MomentsConfig) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(features), nn.Linear(features, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.near = nn.Parameter(0.3 * torch.randn(NEAR, config.width))
        self.layers = nn.ModuleList(Attention(config.width, config.heads, config.dropout) for _ in range(config.layers))

    def forward(self, x: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
        x = self.linear(self.dropout(self.norm(x)))
        x = x + places(x.shape[1], x.shape[2], x.device).to(x.dtype)
        beside = functional.pad(x.masked_fill(~is_real[..., None], 0.0), (0, 0, NEAR // 2, NEAR // 2))
        x = x + sum(weight * beside[:, k : k + x.shape[1]] for k, weight in enumerate(self.near))
        for layer in self.layers:
            x = layer(x, x, is_real)
        return x


class MomentNetwork(nn.Module):
    """Scores each segment of a video as a query's start, its end, and as inside.

    Args:
        video_dim, query_dim: lengths of the features of segments and of tokens.
    """

    def __init__(self, video_dim: int, query_dim: int, config: MomentsConfig) -> None:
        super().__init__()
        width, self.fusion = config.width, config.fusion
        self.video, self.query = Side(video_dim, config), Side(query_dim, config)
        is_early = config.fusion in ("cross", "one_way")
        self.to_query = Attention(width, config.heads, config.dropout) if is_early else None
        self.to_video = Attention(width, config.heads, config.dropout) if config.fusion == "cross" else None
        self.pool = nn.Linear(width, 1)
        tasks = 3 if config.frame_weight else 2
        if config.fusion == "late":
            self.fuse = nn.Linear(width, tasks * width)  # a point for each task, of the query
            self.classify = nn.Linear(width, tasks * width)  # and of each segment: they meet in a product
        else:
            self.fuse = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Dropout(config.dropout))
            self.classify = nn.Linear(width, tasks)

    def forward(
        self, video: torch.Tensor, is_segment: torch.Tensor, query: torch.Tensor, is_token: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of start, end (-inf where there is no segment) and inside, each [N, T]; without the second task its are 0.

        Args:
            video: [N, T, D]. query: [N, L, E]. is_segment, is_token: bool [N, T], [N, L], at least one in each row.
        """
        seen, asked = self.video(video, is_segment), self.query(query, is_token)
        if self.to_query is not None:
            answer = self.to_video(asked, seen, is_segment) if self.to_video is not None else asked
            seen, asked = self.to_query(seen, asked, is_token), answer
        weights = self.pool(asked).squeeze(-1).masked_fill(~is_token, -math.inf).softmax(dim=1)
        pooled = torch.bmm(weights[:, None], asked)  # [N, 1, W]
        if self.fusion == "late":
            points = self.classify(seen).unflatten(-1, (-1, seen.shape[-1]))  # [N, T, tasks, W]
            # As many rows for one query as for many: equal to the last bit.
            asked_at = self.fuse(pooled.expand_as(seen))
            scores = (points * asked_at.unflatten(-1, (-1, seen.shape[-1]))).sum(-1) / math.sqrt(seen.shape[-1])
        else:
            scores = self.classify(self.fuse(torch.cat([seen, pooled.expand_as(seen)], dim=-1)))
        start, end, *inside = scores.float().unbind(-1)
        outside = ~is_segment
        return (
            start.masked_fill(outside, -math.inf),
            end.masked_fill(outside, -math.inf),
            inside[0] if inside else torch.zeros_like(start),
        )


def places(count: int, width: int, device: torch.device) -> torch.Tensor:
    """Sines and cosines of the place, float32 [count, width] (Vaswani et al. 2017): any length has them."""
    rate = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    angle = torch.arange(count, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width]
