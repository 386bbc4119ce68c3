"""The scalar loss of a list of contrasts, over all processes; large score matrices are computed in blocks of anchors.

    objective = sum over contrasts of  weight * loss(similarity(anchors, candidates), relation)

Means are taken over the pairs or anchors of all processes. Counts are summed over processes and divided by the number
of processes, because data-parallel training averages gradients. If positives are spread unevenly, means per process
would give a different gradient from one process with all the data.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ssl_modules.contrast import Contrast, Rows
from ssl_modules.losses.average_precision import exact_average_precision, has_nan
from ssl_modules.losses.base import Loss, first_derivative, full_precision
from ssl_modules.similarities import Dot, InnerProduct, Similarity
from ssl_modules.utils.distributed import total, world_size

# Up to _WHOLE scores, the full matrix is faster than blocks. A block has about _BLOCK scores, a balance of memory and
# speed.
_WHOLE = 2**22
_BLOCK = 2**21
# Fewest anchors per block: smaller blocks are slow, above all for the candidates' gradient.
_ROWS, _ROWS_OF_FIXED = 128, 32


def objective(
    contrasts: Iterable[Contrast], similarity: Similarity, loss: Loss, anchor_block: int | None = None
) -> Tensor:
    """Return the weighted sum of the contrasts' losses, in float32 or float64 even under autocast.

    Args:
        contrasts: consumed one at a time.
        similarity: ``(x [A, D], y [C, D]) -> [A, C]``.
        loss: see :class:`~ssl_modules.losses.Loss`.
        anchor_block: anchors per block. The gradient of a block is computed in the forward pass, so only one block of
            scores exists at a time. None = use the loss's fused form if it has one, else choose from the size; 0 = no
            blocks, with the gradient in the backward pass.

    Returns:
        Scalar. With several processes, the share of this process; the mean over processes is the objective.

    Raises:
        ValueError: if ``anchor_block`` is negative, there are no contrasts, or similarity or loss has trainable
            parameters and ``anchor_block`` is not 0.

    Example:
        >>> from ssl_modules.losses import InfoNCE
        >>> from ssl_modules.similarities import Dot
        >>> z = torch.eye(2)
        >>> objective([Contrast(z, z, torch.eye(2, dtype=torch.int8))], Dot(), InfoNCE())
        tensor(0.3133)
    """
    if anchor_block != 0:
        for name, part in (("similarity", similarity), ("loss", loss)):
            if any(p.requires_grad for p in part.parameters()):
                raise ValueError(f"{name}: has parameters, which get no gradient in blocks; pass anchor_block=0")
    terms = [c.weight * _contrast_loss(c, similarity, loss, anchor_block) for c in contrasts]
    if not terms:
        raise ValueError("contrasts: the extraction gave none; it needs views to compare")
    return torch.stack(terms).sum()


def chance_level(contrasts: Iterable[Contrast], loss: Loss) -> Tensor:
    """Return the objective if all candidates have the same score, for example log(C) for one positive among C.

    It is computed from the first anchor of each contrast, without gradient.

    Args:
        contrasts: as for :func:`objective`.
        loss: see :class:`~ssl_modules.losses.Loss`.

    Returns:
        Scalar.
    """
    terms = []
    for c in contrasts:
        relation = c.relation[:1]
        equal = torch.zeros(relation.shape, device=relation.device)
        terms.append(c.weight * loss(equal, relation, None if c.reference is None else equal))
    return torch.stack(terms).sum()


@torch.no_grad()
def ranking(contrasts: Iterable[Contrast], similarity: Similarity) -> dict[str, Tensor]:
    """Measure how well anchors rank their positives among their candidates.

    Args:
        contrasts: as for :func:`objective`.
        similarity: as for :func:`objective`.

    Returns:
        ``top1``, the share of anchors whose best candidate is a positive, and ``ap``, the exact average precision of
        the positives. Both are scalars in [0, 1]: means over the anchors that have a negative and, for ``ap``, also a
        positive; NaN if there are no such anchors. An anchor with a NaN score counts as 0.
    """
    hits, precisions = [], []
    for c in contrasts:
        with torch.autocast(c.anchors.device.type, enabled=False):
            compare, anchors, candidates, _ = _embedded(c, similarity)
            for rows in _blocks(c.relation.shape, None, _ROWS_OF_FIXED):
                scores, relation = compare(anchors[rows], candidates), c.relation[rows]
                has_negative = ~relation.bool().all(dim=1)
                best = scores.masked_fill(relation < 0, -torch.inf).argmax(1, keepdim=True)
                found = (relation.gather(1, best)[:, 0] > 0) & ~has_nan(scores, relation)
                hits.append(found[has_negative])
                precisions.append(exact_average_precision(scores, relation)[has_negative])
    return {"top1": torch.cat(hits).float().mean(), "ap": torch.cat(precisions).nanmean()}


def _contrast_loss(c: Contrast, similarity: Similarity, loss: Loss, anchor_block: int | None) -> Tensor:
    with torch.autocast(c.anchors.device.type, enabled=False):
        compare, anchors, candidates, reference = _embedded(c, similarity)
        if anchor_block is None and all(_is_of_one_class(loss, part, "fused") for part in ("partial", "counts")):
            embedded = Contrast(anchors, candidates, c.relation, reference)
            by_anchor = loss.fused(embedded, compare)
            if by_anchor is not None:
                return by_anchor.sum() / (total(by_anchor.new_tensor(len(by_anchor))) / world_size())
        rows = _ROWS if candidates.requires_grad else _ROWS_OF_FIXED
        blocks = list(_blocks(c.relation.shape, anchor_block, rows))
        whole = c.relation[blocks[0]] if len(blocks) == 1 else None

        def relation(rows: slice) -> Tensor:
            return c.relation[rows] if whole is None else whole

        counts = torch.stack([loss.counts(relation(rows)) for rows in blocks]).sum(dim=0)
        counts = total(counts).to(anchors.dtype) / world_size()

        def share(scores: Tensor, c_: Tensor, rows: slice) -> Tensor:
            if isinstance(reference, Tensor):
                reference_scores = compare(reference[rows], c_)
            else:
                reference_scores = None if reference is None else _scores_of(reference, rows, scores.shape)
            return loss.partial(scores, relation(rows), reference_scores, counts)

        if anchor_block == 0:
            return share(compare(anchors, candidates), candidates, blocks[0])
        # If the candidates have a gradient, the scores of a reference tensor are part of the graph too.
        is_dot = type(compare) is Dot and not (isinstance(reference, Tensor) and candidates.requires_grad)
        take = _ByProducts(share) if is_dot else _ByAutograd(share, compare)
        return _InBlocks.apply(anchors, candidates, take, blocks)


def _is_of_one_class(loss: Loss, method: str, form: str) -> bool:
    """Return whether ``form``, another form of ``method``, is valid because no subclass overrides ``method``."""
    first, second = (next(kind for kind in type(loss).__mro__ if name in vars(kind)) for name in (method, form))
    return issubclass(second, first)


@torch.no_grad()
def _scores_of(reference: Callable[[Rows], Tensor], rows: Rows, shape: torch.Size) -> Tensor:
    """Return the scores of some rows, computed by a contrast's reference function."""
    scores = full_precision(reference(rows))
    if scores.shape != shape:
        raise ValueError(
            f"reference: expected a function from rows that returns their scores with all candidates, {list(shape)}, "
            f"got {list(scores.shape)}"
        )
    return scores


def _embedded(
    c: Contrast, similarity: Similarity
) -> tuple[Similarity, Tensor, Tensor, Tensor | Callable[[Rows], Tensor] | None]:
    """Embed each vector once; returns the similarity still to apply, anchors, candidates and reference."""
    reference = full_precision(c.reference.detach()) if isinstance(c.reference, Tensor) else c.reference
    anchors, candidates = full_precision(c.anchors), full_precision(c.candidates)
    # A subclass may override forward.
    if not isinstance(similarity, InnerProduct) or type(similarity).forward is not InnerProduct.forward:
        return similarity, anchors, candidates, reference
    embedded = similarity.embed(anchors)
    candidates = embedded if c.candidates is c.anchors else similarity.embed(candidates)
    factor = similarity._factor(anchors.shape[1])  # applied to the anchors, as there are fewer of them
    if factor != 1:
        embedded = factor * embedded
    if isinstance(reference, Tensor):
        reference = factor * similarity.embed(reference)
    return Dot(), embedded, candidates, reference


def _blocks(shape: torch.Size, anchor_block: int | None, fewest: int) -> Iterator[slice]:
    anchors, candidates = shape
    if anchor_block is None:
        anchor_block = 0 if anchors * candidates <= _WHOLE else max(fewest, _BLOCK // candidates)
    if anchor_block < 0:
        raise ValueError(f"anchor_block: expected a number of anchors, 0 or None, got {anchor_block}")
    step = anchor_block or max(anchors, 1)
    return (slice(start, start + step) for start in range(0, max(anchors, 1), step))


class _InBlocks(torch.autograd.Function):
    """Accumulates the gradient block by block in the forward pass, so that each block is freed at once."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, candidates: Tensor, take: Callable[..., Tensor], blocks: list[slice]
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:2]
        gradients = [torch.zeros_like(x) if w else None for x, w in zip((anchors, candidates), wanted, strict=True)]
        value = anchors.new_zeros(())
        for rows in blocks:
            value += take(anchors.detach(), candidates.detach(), rows, *gradients)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @first_derivative
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(None if g is None else grad * g for g in ctx.saved_tensors), None, None


class _ByAutograd(NamedTuple):
    """Computes a block's share of the loss for any similarity, and accumulates its gradients by autograd."""

    share: Callable[[Tensor, Tensor, slice], Tensor]
    compare: Similarity

    def __call__(
        self, anchors: Tensor, candidates: Tensor, rows: slice, of_anchors: Tensor | None, of_candidates: Tensor | None
    ) -> Tensor:
        a = anchors[rows].requires_grad_(of_anchors is not None)
        c = candidates.requires_grad_(of_candidates is not None)
        with torch.set_grad_enabled(a.requires_grad or c.requires_grad):
            part = self.share(self.compare(a, c), c, rows)
        if not part.requires_grad:  # nothing in it that the loss could change
            return part
        inputs = [x for x in (a, c) if x.requires_grad]
        parts = iter(torch.autograd.grad(part, inputs))
        if of_anchors is not None:
            of_anchors[rows] = next(parts)
        if of_candidates is not None:
            of_candidates += next(parts)
        return part.detach()


class _ByProducts(NamedTuple):
    """The same for inner products: multiplies the gradient of the scores with anchors and candidates, in place."""

    share: Callable[[Tensor, Tensor, slice], Tensor]

    def __call__(
        self, anchors: Tensor, candidates: Tensor, rows: slice, of_anchors: Tensor | None, of_candidates: Tensor | None
    ) -> Tensor:
        scores = anchors[rows] @ candidates.T
        if of_anchors is None and of_candidates is None:
            return self.share(scores, candidates, rows)
        with torch.enable_grad():
            part = self.share(scores.requires_grad_(), candidates, rows)
        if not part.requires_grad:  # nothing in it that the loss could change
            return part
        of_scores = torch.autograd.grad(part, scores)[0]
        if of_anchors is not None:
            torch.mm(of_scores, candidates, out=of_anchors[rows])
        if of_candidates is not None:
            of_candidates.addmm_(of_scores.T, anchors[rows])
        return part.detach()
