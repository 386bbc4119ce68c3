"""Extraction with a queue, which stores the teacher's keys of earlier batches as candidates."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ssl_modules.contrast import Contrast, Paired, Rows
from ssl_modules.extractions.base import Extraction, MomentumSchedule, TeacherUpdate, at_least_two, check_momentum
from ssl_modules.extractions.heads import MLP, PooledMLP, with_output_norm
from ssl_modules.extractions.ranks import Ranks
from ssl_modules.extractions.view_ranks import check_view_ranks, ranked_views
from ssl_modules.utils.checks import check_instance, check_number
from ssl_modules.utils.distributed import gather, rank, world_size

_SEED = 0  # seeds the initial keys, which must be equal in all processes


class Queue(Extraction):
    """Compares a student's anchors with a teacher's keys of other views, and with a queue of older keys (MoCo).

    Keys are the teacher's embeddings, normalised to unit vectors. An anchor's positive is the key of its own image. Its
    negatives are the keys of earlier batches. The other keys of its batch are ignored, unless ``keys_as_negatives``
    makes them negatives. After each backward pass in training, the keys of the batch, from all processes, replace the
    oldest keys. The queue starts with random unit vectors and is saved with the weights. Every process holds the full
    queue.

    Clips are identified by the index of their video. An anchor ignores other keys of its own video.

    With ``view_ranks``, an anchor has one positive in each of several views, and these positives have ranks (RINCE
    without labels). The student encodes only view 0, and the teacher encodes the next ``len(view_ranks)`` views. For
    videos, use the policy "rince-video" and ranks (1, 2, 3). Another view of the same clip then has rank 1. A view of a
    near clip has rank 2, and a view of a far clip has rank 3. The data module's ``apart`` defines near and far. RINCE's
    authors trained on videos, but their code for videos is not public. We chose these ranks ourselves. The loss for
    given ranks is that of the authors.

    Without ``view_ranks``, the loss is the mean over all pairs of a student's view and a different view of the teacher.
    With V views, each of the teacher's views is in V - 1 pairs. Unless ``symmetric`` is True, the teacher has only view
    0.

    Args:
        hidden_dim: width of the projector's hidden layers. None = the channels of the deepest map.
        out_dim: width of the embedding, D.
        layers: number of the projector's linear layers.
        batch_norm: whether the projector's hidden layers have batch norm.
        output_norm: whether the projector ends in a batch norm without parameters. Its last linear layer then has no
            bias.
        size: number of keys in the queue, K. 0 = no queue, which needs ``keys_as_negatives``.
        symmetric: whether student and teacher both encode all views. If False, the teacher encodes only view 0 and the
            student encodes all others.
        teacher_count: number of leading views that the teacher encodes, 2 or more. Use it for multi-crop, where only
            the student encodes small crops. None = all views. This argument needs ``symmetric``.
        keys_as_negatives: whether other keys of the batch, from all processes, are negatives too.
        reference: whether contrasts have the anchors' own keys as ``reference``, for losses that use them (SCE).
        predictor_dim: width of the hidden layer of the student's predictor. None = no predictor.
        ranks: rule that ranks the keys in the queue (RINCE). None = all of these keys are negatives.
        view_ranks: ranks of the keys of all views after the first, such as (1, 2, 3). Ranks start from 1 and have no
            gaps. None = all positives have rank 1. This argument can't be combined with ``symmetric``,
            ``keys_as_negatives`` or ``reference``.
        momentum: momentum of the teacher's moving average, in [0, 1]; see :class:`~ssl_modules.teacher.Teacher`.
        momentum_schedule: "constant", "cosine" or "cosine-endpoint"; see :class:`~ssl_modules.extractions.Extraction`.
        teacher_update: "after" or "before"; see :class:`~ssl_modules.extractions.Extraction`.

    Raises:
        ValueError: in one of these cases:

            - An argument is out of range.
            - There is only one view, or there is no teacher.
            - A batch has more keys than fit in the queue.
            - The number of levels of ids differs from the number that ``ranks`` reads.
            - Without a queue, the batch has a single image.

    Example:
        >>> extraction = Queue(out_dim=8, size=5)
        >>> extraction.build(out_channels=(16,))
        >>> query, key = (extraction.heads((torch.rand(2, 16, 1, 1),)) for _ in range(2))
        >>> [contrast] = extraction([query], [key.detach()], torch.arange(2)[:, None], None)
        >>> contrast.relation[:]
        tensor([[ 1, -1,  0,  0,  0,  0,  0],
                [-1,  1,  0,  0,  0,  0,  0]], dtype=torch.int8)
        >>> extraction.after_backward()
        >>> extraction.pointer, extraction.ids.flatten()
        (tensor(2), tensor([ 0,  1, -1, -1, -1]))
    """

    keys: Tensor
    ids: Tensor
    pointer: Tensor
    replicated_buffers = ("keys", "ids", "pointer")

    def __init__(
        self,
        hidden_dim: int | None = None,
        out_dim: int = 128,
        layers: int = 2,
        batch_norm: bool = False,
        size: int = 65536,
        *,
        output_norm: bool = False,
        symmetric: bool = False,
        teacher_count: int | None = None,
        keys_as_negatives: bool = False,
        reference: bool = False,
        predictor_dim: int | None = None,
        ranks: Ranks | None = None,
        view_ranks: Sequence[int] | None = None,
        momentum: float = 0.999,
        momentum_schedule: MomentumSchedule = "constant",
        teacher_update: TeacherUpdate = "after",
    ) -> None:
        super().__init__()
        numbers = {"hidden_dim": hidden_dim, "out_dim": out_dim, "layers": layers, "predictor_dim": predictor_dim}
        for name, value in numbers.items():
            if value is not None:
                check_number(name, value, above=0)
        check_number("size", size, least=0 if keys_as_negatives else 1, fix="0 goes with keys_as_negatives=True")
        if ranks is not None:
            check_instance("ranks", ranks, Ranks, "give a rule such as LabelRanks(label_levels=2), or None")
        if teacher_count is not None and not (symmetric and teacher_count > 1):
            raise ValueError(
                f"teacher_count: expected 2 or more with symmetric=True, or None, got {teacher_count} with "
                f"symmetric={symmetric}"
            )
        if keys_as_negatives and ranks is not None:
            raise ValueError(
                "keys_as_negatives: expected False with ranks, which rank the keys of the queue alone, got True"
            )
        if view_ranks is not None:
            check_view_ranks(view_ranks, symmetric=symmetric, keys_as_negatives=keys_as_negatives, reference=reference)
        self.hidden_dim = hidden_dim
        self.out_dim = out_dim
        self.layers = layers
        self.batch_norm = batch_norm
        self.output_norm = output_norm
        self.size = size
        self.symmetric = symmetric
        self.teacher_count = teacher_count
        self.keys_as_negatives = keys_as_negatives
        self.reference = reference
        self.predictor_dim = predictor_dim
        self.ranks = ranks
        self.view_ranks = None if view_ranks is None else tuple(view_ranks)
        check_momentum(momentum, momentum_schedule)
        self.momentum = momentum
        self.momentum_schedule = momentum_schedule
        self.teacher_update = teacher_update
        self._waiting: tuple[list[Tensor], Tensor] | None = None

    @property
    def levels(self) -> int:
        """Number of columns of ids per key: the image's id, then the labels that ``ranks`` reads."""
        return 1 if self.ranks is None else self.ranks.levels

    def build(self, out_channels: Sequence[int], sizes: Sequence[int | None] = (), normalised: bool = False) -> None:
        features = out_channels[-1]
        widths = [features, *[self.hidden_dim or features] * (self.layers - 1), self.out_dim]
        projector = PooledMLP(*widths, batch_norm=self.batch_norm, bias=not self.output_norm)
        self.heads = with_output_norm(projector, self.out_dim, self.output_norm)
        self.predictor = (
            nn.Identity() if self.predictor_dim is None else MLP(self.out_dim, self.predictor_dim, self.out_dim)
        )
        keys = torch.randn(self.size, self.out_dim, generator=torch.Generator().manual_seed(_SEED))
        self.register_buffer("keys", F.normalize(keys, dim=1))
        self.register_buffer("ids", torch.full((self.size, self.levels), -1))
        self.register_buffer("pointer", torch.tensor(0))  # index of the oldest key

    def student_views(self, views: int) -> Sequence[int]:
        """Return the indices of the student's views.

        These are all views if ``symmetric`` is True. With ``view_ranks``, there is only the first view. Otherwise,
        these are all views but the first.
        """
        if self.view_ranks is not None:
            return ranked_views(self.view_ranks, views)[:1]
        return at_least_two(views) if self.symmetric else at_least_two(views)[1:]

    def teacher_views(self, views: int) -> Sequence[int]:
        """Return the indices of the teacher's views.

        If ``symmetric`` is True, these are the first ``teacher_count`` views, or all views. With ``view_ranks``, these
        are all views but the first. Otherwise, there is only the first view.
        """
        if self.view_ranks is not None:
            return ranked_views(self.view_ranks, views)[1:]
        if not self.symmetric:
            return range(1)
        if self.teacher_count is not None and self.teacher_count > views:
            raise ValueError(f"teacher_count: expected at most the {views} views there are, got {self.teacher_count}")
        return range(self.teacher_count or views)

    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor] | None,
        ids: Tensor,
        generator: torch.Generator | None,
    ) -> list[Contrast]:
        if teacher is None:
            raise ValueError("teacher: got None, but the queue needs a teacher's embeddings as keys")
        if ids.shape[1] != self.levels:
            raise ValueError(f"ids: expected [N, {self.levels}], the levels that ranks reads, got {list(ids.shape)}")
        if not self.size and len(ids) * world_size() < 2:
            raise ValueError("batch: 1 image has no negatives; use a batch size of at least 2 and drop_last=True")
        keys = [F.normalize(z.to(self.keys.dtype), dim=1) for z in teacher]  # [N, D] each
        if self.size and self.training and torch.is_grad_enabled():
            self._stage_keys(keys, ids)
        if self.view_ranks is not None:
            return [self._contrast(self.over_views(self.predictor, student), keys, ids)]
        views = len(student) if self.symmetric else len(student) + 1
        student_views, teacher_views = self.student_views(views), self.teacher_views(views)
        anchors = dict(zip(student_views, self.over_views(self.predictor, student), strict=True))
        return [
            self._contrast([z for i, z in anchors.items() if i != j], [own], ids, weight=1 / len(keys))
            for j, own in zip(teacher_views, keys, strict=True)
        ]

    def _contrast(self, anchors: list[Tensor], keys: list[Tensor], ids: Tensor, weight: float = 1.0) -> Contrast:
        """Return the contrast of the student's views with one view of the teacher, or with all ``view_ranks``."""
        images = len(ids)
        own = torch.arange(len(keys) * images, device=ids.device).view(-1, images).T.squeeze(1)  # [N] or [N, G]
        ignored = own.numel()
        reference = keys[0].repeat(len(anchors), 1)  # [A, D]
        if self.keys_as_negatives:
            own, ignored, keys = own + rank() * images, 0, [gather(k) for k in keys]
        candidates = torch.cat([*keys, self.keys])  # [C, D], a copy; the queue may change before the backward pass
        ranks = self._ranks(reference, candidates[ignored:], ids, len(anchors))
        relation = Paired(torch.cat([own] * len(anchors)), len(candidates), ignored, ranks, self.view_ranks or (1,))
        return Contrast(torch.cat(anchors), candidates, relation, reference if self.reference else None, weight)

    def _ranks(
        self, keys: Tensor, candidates: Tensor, batch_ids: Tensor, views: int
    ) -> Callable[[Rows], Tensor] | None:
        """Return the relation of anchors to all candidates that aren't ignored, or None if these are negatives."""
        if self.ranks is None and not self.recurring_ids:
            return None
        rule, ids = self.ranks, batch_ids.repeat(views, 1)
        candidate_ids = torch.cat([gather(batch_ids), self.ids]) if self.keys_as_negatives else self.ids.clone()

        def relation(rows: Rows) -> Tensor:
            anchor_ids = ids[rows]
            if rule is None:
                ranks = torch.zeros(len(anchor_ids), len(candidate_ids), dtype=torch.int8, device=ids.device)
            else:
                ranks = rule(anchor_ids, candidate_ids, lambda: keys[rows] @ candidates.T)
            if self.recurring_ids:
                ranks = ranks.masked_fill(anchor_ids[:, :1] == candidate_ids[:, 0], -1)
            return ranks

        return relation

    def _stage_keys(self, keys: list[Tensor], ids: Tensor) -> None:
        entries = len(keys) * len(ids) * world_size()
        if entries > self.size:
            raise ValueError(
                f"size: a queue of {self.size} can't take the {entries} keys of a batch; give it {entries} or more, or "
                "use smaller batches"
            )
        self._waiting = keys, ids

    def on_fit_start(self, images: int | None, steps: int | float, steps_per_epoch: int | float) -> None:
        """Warn if the queue is so long that anchors always have earlier keys of their own image as negatives."""
        if images is not None and self.size >= images and self.ranks is None and not self.recurring_ids:
            rank_zero_warn(
                f"size: a queue of {self.size} keys holds earlier keys of all {images} training images. Earlier keys "
                "of an anchor's own image are therefore negatives; use a size well below the number of images"
            )

    def before_step(self, step: int) -> None:
        """Pass the number of the step to ``ranks``."""
        if self.ranks is not None:
            self.ranks.before_step(step)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Store the keys of the last training batch, from all processes, in the order of the teacher's views."""
        if self._waiting is None:
            return
        keys, ids = self._waiting
        self._waiting = None
        new = torch.cat([gather(k) for k in keys])  # [V W N, D], in the order of one process with all images
        index = (self.pointer + torch.arange(len(new), device=new.device)) % self.size
        self.keys[index] = new
        self.ids[index] = gather(ids).repeat(len(keys), 1)
        self.pointer.copy_((self.pointer + len(new)) % self.size)
