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


def test_zero_vector_scores_zero_without_gradient():
    x = torch.tensor([[0.0, 0.0, 0.0], [1e-7, 0.0, 0.0], [1e-5, 0.0, 0.0]], requires_grad=True)
    scores = Cosine()(x, torch.ones(1, 3))
    scores.sum().backward()
    torch.testing.assert_close(scores, torch.tensor([[0.0], [0.0], [3**-0.5]]))
    assert x.grad.abs().amax(dim=1).gt(0).tolist() == [False, False, True]


def test_eps_must_be_positive():
    with pytest.raises(ValueError, match=r"eps: .* got 0"):
        Cosine(eps=0)
