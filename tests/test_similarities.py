import pytest
import torch
import torch.nn.functional as F

from ssl_modules.similarities import Cosine, Dot, ScaledDot


def test_values():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 7, generator=g), torch.randn(4, 7, generator=g)
    assert torch.allclose(Cosine()(x, y), F.cosine_similarity(x[:, None], y[None], dim=2), atol=1e-6)
    assert torch.allclose(Dot()(x, y), torch.einsum("ad,cd->ac", x, y), atol=1e-6)
    assert torch.allclose(ScaledDot()(x, y), torch.einsum("ad,cd->ac", x, y) / 7**0.5, atol=1e-6)


def test_zero_vector_scores_zero_with_a_bounded_gradient():
    x = torch.zeros(1, 3, requires_grad=True)
    score = Cosine()(x, torch.ones(1, 3))
    score.sum().backward()
    assert score.item() == 0
    assert x.grad.abs().max() <= 1e6


def test_eps_must_be_positive():
    with pytest.raises(ValueError, match=r"eps: .* got 0"):
        Cosine(eps=0)
