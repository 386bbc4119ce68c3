"""Collapse measures: how much of its space a representation uses, without labels.

Wang & Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere,
ICML 2020; Chen & He, Exploring Simple Siamese Representation Learning, CVPR 2021, section 4.1; Garrido et al., RankMe,
ICML 2023; Thilak et al., LiDAR, ICLR 2024.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_modules.evaluation.checks import check_count, check_features
from ssl_modules.utils.checks import check_number

_ROUNDING = 1e-7  # added to each share of a spectrum before its entropy is taken, as RankMe's authors do


@torch.no_grad()
def feature_std(features: Tensor) -> float:
    """The standard deviation of a dimension of L2-normalised features, mean over dimensions (SimSiam).

    About ``1 / sqrt(D)`` where the features spread over all directions, 0 where they are all the same.

    Args:
        features: ``[N, D]``, N >= 2.

    Raises:
        ValueError: for features that are not finite ``[N, D]``, or fewer than two.

    Example:
        >>> round(feature_std(torch.cat([torch.eye(4), -torch.eye(4)])), 4), feature_std(torch.ones(8, 4))
        (0.5345, 0.0)
    """
    return _normalize("features", features).std(dim=0).mean().item()


@torch.no_grad()
def rankme(features: Tensor) -> float:
    """The effective rank of features (RankMe): ``exp`` of the entropy of their singular values' shares.

    The features are neither centred nor normalised; ``1e-7`` is added to every share, as in the paper. Comparable only
    between equal numbers of samples, of which there should be several times D.

    Args:
        features: ``[N, D]``, N >= 2.

    Returns:
        From 1, where all lie on a line, to ``min(N, D)``, but for the ``1e-7``; NaN where all are 0.

    Raises:
        ValueError: for features that are not finite ``[N, D]``, or fewer than two.

    Example:
        >>> round(rankme(torch.eye(4)), 3), round(rankme(torch.ones(8, 4)), 3)
        (4.0, 1.0)
    """
    return _effective_rank(_singular_values(_double("features", features)))


@torch.no_grad()
def lidar(views: Tensor, *, regularization: float = 1e-4) -> float:
    """The effective rank of what tells images apart, against what their views differ by (LiDAR).

    It is taken of the eigenvalues of ``W^(-1/2) B W^(-1/2)``, where B is the covariance of the images' mean features,
    and W the mean covariance of an image's views plus ``regularization`` times the identity, both divided by the number
    of summands. The paper takes some 1,000 images of 50 views each.

    Args:
        views: ``[N, V, D]``, the features of V >= 2 views of each of N >= 2 images.
        regularization: positive.

    Returns:
        From 1 to ``min(N - 1, D)``, but for the ``1e-7`` added to every share; NaN where all images are the same.

    Raises:
        ValueError: for views that are not finite ``[N, V, D]``, fewer than two images or views, or a regularisation not
            positive.

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
    """The mean squared distance of two views of an image, L2-normalised: 0 to 4, smaller is closer.

    Args:
        first: ``[N, D]``, the features of a view of each image.
        second: ``[N, D]``, those of another view of the same images, N >= 2.

    Raises:
        ValueError: for features that are not finite ``[N, D]``, fewer than two, or of two shapes.

    Example:
        >>> alignment(torch.eye(2), torch.eye(2).flip(0))
        2.0
    """
    x, y = _pair(first, second)
    return (x - y).square().sum(dim=1).mean().item()


@torch.no_grad()
def uniformity(features: Tensor, *, scale: float = 2.0, chunk_size: int = 1024) -> float:
    """How evenly L2-normalised features x lie on the sphere: ``log mean exp(-scale |x_i - x_j|^2)`` over i < j.

    Args:
        features: ``[N, D]``, N >= 2.
        scale: positive; the paper's t.
        chunk_size: rows compared with all at once.

    Returns:
        Of 0 (all the same) or less, smaller is more even.

    Raises:
        ValueError: for features that are not finite ``[N, D]``, or fewer than two, or a scale not positive.

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
    """The mean cosine of two views of one image, divided by that of views of two images.

    Larger is better; 1 where views of one image are no closer than any others, as in a collapse.

    Args:
        first: ``[N, D]``, the features of a view of each image.
        second: ``[N, D]``, those of another view of the same images, N >= 2.

    Returns:
        The ratio; infinity where the cosine of two images is on average 0 or less.

    Raises:
        ValueError: for features that are not finite ``[N, D]``, fewer than two, or of two shapes.

    Example:
        >>> round(similarity_ratio(torch.ones(2, 2), torch.ones(2, 2)), 6)
        1.0
        >>> similarity_ratio(torch.eye(2), torch.eye(2))
        inf
    """
    x, y = _pair(first, second)
    positives = (x * y).sum()
    negatives = (x.sum(dim=0) @ y.sum(dim=0) - positives) / (len(x) - 1)
    # The difference of two sums is 0 only up to their rounding.
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
