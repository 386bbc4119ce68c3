"""Collapse measures without labels: how much of its space a representation uses.

Wang & Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere,
ICML 2020; Chen & He, Exploring Simple Siamese Representation Learning, CVPR 2021, section 4.1; Garrido et al., RankMe,
ICML 2023; Thilak et al., LiDAR, ICLR 2024.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_count, check_features
from ssl_modules.utils.checks import check_number

_ROUNDING = 1e-7  # added to each share of a spectrum before the entropy is computed, as in RankMe


@torch.no_grad()
def feature_std(features: Tensor) -> float:
    """Return the standard deviation of L2-normalised features per dimension, averaged over dimensions (SimSiam).

    It is about ``1 / sqrt(D)`` if the features spread over all directions, and 0 if they are all the same.

    Args:
        features: ``[N, D]``, N >= 2.

    Raises:
        ValueError: if features are not finite ``[N, D]``, or there are fewer than two.

    Example:
        >>> round(feature_std(torch.cat([torch.eye(4), -torch.eye(4)])), 4), feature_std(torch.ones(8, 4))
        (0.5345, 0.0)
    """
    return _normalize("features", features).std(dim=0).mean().item()


@torch.no_grad()
def rankme(features: Tensor) -> float:
    """Return the effective rank of features (RankMe).

    It is ``exp`` of the entropy of the singular values, divided by their sum. The features are neither centred nor
    normalised, and ``1e-7`` is added to each share, as in the paper. Compare only values from the same number of
    samples, which should be several times D.

    Args:
        features: ``[N, D]``, N >= 2.

    Returns:
        From 1, if all features lie on one line, to ``min(N, D)``, up to the effect of ``1e-7``; NaN if all are 0.

    Raises:
        ValueError: if features are not finite ``[N, D]``, or there are fewer than two.

    Example:
        >>> round(rankme(torch.eye(4)), 3), round(rankme(torch.ones(8, 4)), 3)
        (4.0, 1.0)
    """
    return _effective_rank(_singular_values(_double("features", features)))


@torch.no_grad()
def lidar(views: Tensor, *, regularization: float = 1e-4) -> float:
    """Return the effective rank of the differences between images, relative to those between views (LiDAR).

    It is the effective rank of the eigenvalues of ``W^(-1/2) B W^(-1/2)``. B is the covariance of the images' mean
    features. W is the mean covariance of the views of one image, plus ``regularization`` times the identity. Both
    covariances are biased: they divide by the number of summands. The paper uses about 1,000 images with 50 views each.

    Args:
        views: ``[N, V, D]``, the features of V >= 2 views of each of N >= 2 images.
        regularization: positive; added to the diagonal of W.

    Returns:
        From 1 to ``min(N - 1, D)``, up to the ``1e-7`` added to each share; NaN if all images are the same.

    Raises:
        ValueError: if views are not finite ``[N, V, D]``, there are fewer than two images or views, or
            ``regularization`` is not positive.

    Example:
        >>> centres = torch.cat([torch.eye(4), -torch.eye(4)])
        >>> views = torch.stack([centres + 0.1, centres - 0.1], dim=1)  # of 8 images, 2 each
        >>> round(lidar(views), 2)
        3.02
    """
    if views.ndim != 3 or views.shape[1] < 2:
        raise ValueError(f"views: expected [N, V, D] with V >= 2 views of an image, got {list(views.shape)}")
    check_number("regularization", regularization, above=0)
    images, count, _ = views.shape
    x = _double("views", views.flatten(0, 1)).unflatten(0, (images, count))  # [N, V, D]
    check_count("views", views, 2)
    means = x.mean(dim=1)  # [N, D]
    within = (x - means[:, None]).flatten(0, 1)  # [N V, D]
    factor = within.T @ within / len(within)
    factor.diagonal().add_(regularization)
    between = (means - means.mean(dim=0)).T  # [D, N]
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(factor), between, upper=False)
    return _effective_rank(_singular_values(whitened.T).square())


@torch.no_grad()
def alignment(first: Tensor, second: Tensor) -> float:
    """Return the mean squared distance between the L2-normalised features of two views: 0 to 4, smaller is closer.

    Args:
        first: ``[N, D]``, the features of one view of each image.
        second: ``[N, D]``, the features of another view of the same images, N >= 2.

    Raises:
        ValueError: if features are not finite ``[N, D]``, there are fewer than two, or their shapes differ.

    Example:
        >>> alignment(torch.eye(2), torch.eye(2).flip(0))
        2.0
    """
    x, y = _pair(first, second)
    return (x - y).square().sum(dim=1).mean().item()


@torch.no_grad()
def uniformity(features: Tensor, *, scale: float = 2.0, chunk_size: int = 1024) -> float:
    """Return how uniformly L2-normalised features x lie on the sphere.

    It is ``log mean exp(-scale |x_i - x_j|^2)``, the mean over all pairs i < j.

    Args:
        features: ``[N, D]``, N >= 2.
        scale: positive; t in the paper.
        chunk_size: number of rows that are compared with all rows at once.

    Returns:
        At most 0, the value of identical features; smaller is more uniform.

    Raises:
        ValueError: if features are not finite ``[N, D]``, there are fewer than two, or ``scale`` is not positive.

    Example:
        >>> round(uniformity(torch.eye(4)), 6), uniformity(torch.ones(4, 4))
        (-4.0, 0.0)
    """
    check_number("scale", scale, above=0)
    x = _normalize("features", features)
    norms = x.square().sum(dim=1)  # [N]: 1, or 0 of a zero vector
    total = x.new_zeros(())
    for chunk, own in zip(x.split(chunk_size), norms.split(chunk_size), strict=True):
        distances = own[:, None] + norms - 2 * chunk @ x.T  # [n, N], squared
        total += (-scale * distances).exp().sum()
    return ((total - len(x)) / (len(x) * (len(x) - 1))).log().item()


@torch.no_grad()
def similarity_ratio(first: Tensor, second: Tensor) -> float:
    """Return the mean cosine between views of the same image, divided by that between views of different images.

    Larger is better. It is 1 if views of the same image are no closer than others, as after a collapse.

    Args:
        first: ``[N, D]``, the features of one view of each image.
        second: ``[N, D]``, the features of another view of the same images, N >= 2.

    Returns:
        The ratio; infinity if the mean cosine of different images is 0 or less.

    Raises:
        ValueError: if features are not finite ``[N, D]``, there are fewer than two, or their shapes differ.

    Example:
        >>> round(similarity_ratio(torch.ones(2, 2), torch.ones(2, 2)), 6)
        1.0
        >>> similarity_ratio(torch.eye(2), torch.eye(2))
        inf
    """
    x, y = _pair(first, second)
    positives = (x * y).sum()
    negatives = (x.sum(dim=0) @ y.sum(dim=0) - positives) / (len(x) - 1)
    # The difference of the two sums may differ from 0 by rounding.
    if negatives <= len(x) * torch.finfo(x.dtype).eps:
        return float("inf")
    return (positives / negatives).item()


def _singular_values(x: Tensor) -> Tensor:
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()


def _effective_rank(spectrum: Tensor) -> float:
    shares = spectrum / spectrum.sum() + _ROUNDING
    return torch.special.entr(shares).sum().exp().item()


def _pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape != second.shape:
        raise ValueError(
            f"first and second: expected one shape [N, D], a row an image, got {list(first.shape)} and "
            f"{list(second.shape)}"
        )
    return _normalize("first", first), _normalize("second", second)


def _normalize(name: str, features: Tensor) -> Tensor:
    return F.normalize(_double(name, features), dim=1)


def _double(name: str, features: Tensor) -> Tensor:
    check_features(name, features)
    check_count(name, features, 2)
    return features.to("cpu" if features.device.type == "mps" else features.device, torch.float64)  # mps has none
