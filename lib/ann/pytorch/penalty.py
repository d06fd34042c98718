"""The weights' penalty over all of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def sum_of_mean_squares(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Sum over the tensors (one at least) of the mean of their squares, a scalar float32."""
    return _SumOfMeanSquares.apply(*tensors)


class _SumOfMeanSquares(torch.autograd.Function):
    @staticmethod
    def forward(context, *tensors):
        context.save_for_backward(*tensors)
        norms = torch._foreach_norm(tensors)
        squares = torch._foreach_div(torch._foreach_mul(norms, norms), [one.numel() for one in tensors])
        return torch.stack(squares).sum()

    @staticmethod
    def backward(context, gradient):
        tensors = context.saved_tensors
        slopes = torch._foreach_mul(tensors, [2.0 / one.numel() for one in tensors])
        return tuple(torch._foreach_mul(slopes, gradient))
