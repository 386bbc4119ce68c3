"""The data that extraction, similarity and loss exchange: who is compared with whom, and how they are related."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_modules.utils.checks import check_instance, check_number

Rows = slice | Tensor
NOBODY = -2  # matches no id, not even another -1


@dataclass(frozen=True)
class Relation:
    """How every anchor relates to every candidate, stored as ids; rows of the matrix are computed on demand.

    Two entries are related at rank ``l + 1`` if ``l`` is the first level at which their ids match; an id of -1
    matches nothing. Indexing gives rows as a dense matrix: ``relation[rows]`` is int8 ``[R, C]`` with r >= 1 for a
    positive of rank r (1 = closest), 0 for a negative and -1 for a pair to be ignored.

    Args:
        anchor_ids: ``[A, levels]`` integers, finest level first.
        candidate_ids: ``[C, levels]`` integers.
        excluded: ``[A, E]`` columns that the anchor ignores, such as its own; None = none.

    Raises:
        TypeError: if an argument is not a tensor.
        ValueError: if the shapes don't fit each other.

    Example:
        >>> ids = torch.tensor([[0], [1], [0]])
        >>> Relation(ids, ids, excluded=torch.arange(3)[:, None])[:]
        tensor([[-1,  0,  1],
                [ 0, -1,  0],
                [ 1,  0, -1]], dtype=torch.int8)
    """

    anchor_ids: Tensor
    candidate_ids: Tensor
    excluded: Tensor | None = None

    def __post_init__(self) -> None:
        a, c, e = self.anchor_ids, self.candidate_ids, self.excluded
        check_instance("anchor_ids", a, Tensor)
        check_instance("candidate_ids", c, Tensor)
        if e is not None:
            check_instance("excluded", e, Tensor)
        if a.ndim != 2 or c.ndim != 2 or a.shape[1] != c.shape[1]:
            raise ValueError(
                f"anchor_ids and candidate_ids: expected [A, levels] and [C, levels], got {list(a.shape)} and "
                f"{list(c.shape)}"
            )
        if e is not None and (e.ndim != 2 or e.shape[0] != a.shape[0]):
            raise ValueError(f"excluded: expected [A, E] with A = {a.shape[0]}, got {list(e.shape)}")

    @property
    def shape(self) -> torch.Size:
        """``(A, C)``."""
        return torch.Size((self.anchor_ids.shape[0], self.candidate_ids.shape[0]))

    def __getitem__(self, rows: Rows) -> Tensor:
        anchors = self.anchor_ids[rows]  # [R, levels]
        anchors = anchors.masked_fill(anchors < 0, NOBODY)
        levels = anchors.shape[1]
        ranks = (anchors[:, -1:] == self.candidate_ids[:, -1]).view(torch.int8).mul_(levels)
        for level in reversed(range(levels - 1)):  # the finest level last, as it overrides the others
            ranks.masked_fill_(anchors[:, level, None] == self.candidate_ids[:, level], level + 1)
        if self.excluded is not None:
            ranks.scatter_(1, self.excluded[rows], -1)
        return ranks


@dataclass(frozen=True)
class Paired:
    """A relation in which each anchor has its own candidate, or candidates, as positives.

    Rows are computed on demand, as in :class:`Relation`.

    Args:
        own: ``[A]``, the column of each anchor's own candidate, or ``[A, G]``, the columns of its G own candidates.
        candidates: number of candidates, C.
        ignored: number of leading candidates that an anchor ignores unless they are its own.
        ranks: function from rows to int8 ``[R, C - ignored]``, the relation to all candidates after the ignored ones.
            None = these candidates are negatives.
        own_ranks: ranks of the G own candidates, the same for all anchors.

    Raises:
        ValueError: if the shape of ``own`` is neither ``[A]`` nor ``[A, G]`` for G ``own_ranks``, or ``ignored`` is
            outside [0, C].

    Example:
        >>> Paired(own=torch.arange(2), candidates=4, ignored=2)[:]
        tensor([[ 1, -1,  0,  0],
                [-1,  1,  0,  0]], dtype=torch.int8)
    """

    own: Tensor
    candidates: int
    ignored: int = 0
    ranks: Callable[[Rows], Tensor] | None = None
    own_ranks: Sequence[int] = (1,)

    def __post_init__(self) -> None:
        if self.own.ndim not in (1, 2) or self.own[:, None].flatten(1).shape[1] != len(self.own_ranks):
            raise ValueError(
                f"own: expected [A], or [A, G] and G own_ranks, got {list(self.own.shape)} and {len(self.own_ranks)}"
            )
        if not 0 <= self.ignored <= self.candidates:
            raise ValueError(f"ignored: expected a number in [0, {self.candidates}], got {self.ignored}")

    @property
    def shape(self) -> torch.Size:
        """``(A, C)``."""
        return torch.Size((len(self.own), self.candidates))

    def __getitem__(self, rows: Rows) -> Tensor:
        own = self.own[rows][:, None].flatten(1)  # [R, G]
        relation = torch.zeros(len(own), self.candidates, dtype=torch.int8, device=own.device)
        relation[:, : self.ignored] = -1
        if self.ranks is not None:
            relation[:, self.ignored :] = self.ranks(rows)
        for column, rank in zip(own.split(1, dim=1), self.own_ranks, strict=True):
            relation.scatter_(1, column, rank)
        return relation


@dataclass(frozen=True)
class SameView:
    """Positives are the other views of an anchor's image, negatives the same view of all other images.

    Anchors are some views of this process's images. Candidates are all views of the images of all processes. Both are
    ordered view by view. Rows are computed on demand as in :class:`Relation`.

    Args:
        own: ``[N]``, indices of this process's images among all images.
        images: total number of images, M.
        views: number of views among the candidates, V.
        anchor_views: indices of the views that are anchors.
        positive_count: number of leading views that are positives, F. Either all anchor views are among them or none.

    Raises:
        ValueError: if ``own`` is not a vector, ``positive_count`` is outside [2, V], or ``anchor_views`` are not
            consecutive views, either all or none of them among the positives.

    Example:
        >>> SameView(own=torch.arange(2), images=3, views=2, anchor_views=range(2), positive_count=2)[:]
        tensor([[-1,  0,  0,  1, -1, -1],
                [ 0, -1,  0, -1,  1, -1],
                [ 1, -1, -1, -1,  0,  0],
                [-1,  1, -1,  0, -1,  0]], dtype=torch.int8)
    """

    own: Tensor
    images: int
    views: int
    anchor_views: range
    positive_count: int

    def __post_init__(self) -> None:
        if self.own.ndim != 1:
            raise ValueError(f"own: expected [N], got {list(self.own.shape)}")
        views, last = self.anchor_views, self.positive_count
        if not 2 <= last <= self.views:
            raise ValueError(f"positive_count: expected a number in [2, {self.views}], got {last}")
        groups = (range(last), range(last, self.views))
        if views.step != 1 or not views or not any(views.start in g and views.stop - 1 in g for g in groups):
            raise ValueError(
                f"anchor_views: expected successive views, all of the first {last} or all of the others up to "
                f"{self.views}, got {views}"
            )

    @property
    def shape(self) -> torch.Size:
        """``(A, C)``."""
        return torch.Size((len(self.anchor_views) * len(self.own), self.views * self.images))

    def __getitem__(self, rows: Rows) -> Tensor:
        row = torch.arange(self.shape[0], device=self.own.device)[rows]
        view = self.anchor_views.start + row // len(self.own)
        image = self.own[row % len(self.own)]
        relation = self.own.new_full((len(row), self.views, self.images), -1, dtype=torch.int8)  # [R, V, M]
        row = torch.arange(len(row), device=row.device)
        relation[row, view] = 0
        relation[row, : self.positive_count, image] = 1
        relation[row, view, image] = -1
        return relation.flatten(1)

    def inner_products(self, anchors: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of the pairs that are not ignored. Pairs that differ in both image and view are ignored.

        Args:
            anchors: ``[A, D]``.
            candidates: ``[C, D]``.

        Returns:
            Scores ``[A, M + P]`` with the anchor's view of all images and then its P positives; their int8 relation.
        """
        x = anchors.unflatten(0, (len(self.anchor_views), -1))  # [G, N, D]
        y = candidates.unflatten(0, (self.views, self.images))  # [V, M, D]
        same_view = x @ y[self.anchor_views.start : self.anchor_views.stop].mT  # [G, N, M]
        others = [[u for u in range(self.positive_count) if u != v] for v in self.anchor_views]
        own = y[:, self.own].unbind()
        positives = torch.stack([torch.stack([own[u] for u in views]) for views in others])  # [G, P, N, D]
        same_image = (x[:, None] * positives).sum(3).mT  # [G, N, P]
        scores = torch.cat([same_view, same_image], dim=2)
        relation = torch.zeros(scores.shape, dtype=torch.int8, device=scores.device)
        relation[..., self.images :] = 1
        relation[:, torch.arange(len(self.own), device=self.own.device), self.own] = -1
        return scores.flatten(0, 1), relation.flatten(0, 1)


@dataclass
class Contrast:
    """One comparison of anchors with candidates; the objective sums over a list of them.

    Args:
        anchors: ``[A, D]``, the side that receives gradient.
        candidates: ``[C, D]``; may be detached, queued, local vectors, or other processes' vectors.
        relation: int8 ``[A, C]``, or a :class:`Relation`, :class:`Paired` or :class:`SameView` that gives its rows.
        reference: reference scores for losses that compare two score matrices. A tensor ``[A, D]`` holds a teacher's
            anchors. The similarity computes the scores of these anchors with the candidates. A function from rows
            returns the scores ``[R, C]`` itself.
        weight: factor of this comparison in the sum.

    Raises:
        TypeError: if an argument has the wrong class.
        ValueError: if the shapes don't fit each other.

    Example:
        >>> z = torch.eye(2)
        >>> Contrast(anchors=z, candidates=z, relation=torch.eye(2, dtype=torch.int8)).weight
        1.0
    """

    anchors: Tensor
    candidates: Tensor
    relation: Tensor | Relation | Paired | SameView
    reference: Tensor | Callable[[Rows], Tensor] | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        a, c = self.anchors, self.candidates
        check_instance("anchors", a, Tensor)
        check_instance("candidates", c, Tensor)
        check_instance("relation", self.relation, Tensor | Relation | Paired | SameView)
        if self.reference is not None and not callable(self.reference):
            check_instance("reference", self.reference, Tensor, "or give a function of rows, or None")
        check_number("weight", self.weight)
        if a.ndim != 2 or c.ndim != 2 or a.shape[1] != c.shape[1]:
            raise ValueError(
                f"anchors and candidates: expected [A, D] and [C, D] with equal D, got {list(a.shape)} and "
                f"{list(c.shape)}"
            )
        if tuple(self.relation.shape) != (len(a), len(c)):
            raise ValueError(f"relation: expected {[len(a), len(c)]}, got {list(self.relation.shape)}")
        if isinstance(self.reference, Tensor) and len(self.reference) != len(a):
            raise ValueError(f"reference: expected {len(a)} rows as anchors has, got {len(self.reference)}")
