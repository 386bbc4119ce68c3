"""Tests that every method with a teacher must pass as well."""

import pytest
import torch
from conformance.cases import CASES, fixed_views, images, one_batch, trainer
from lightning.pytorch import Callback, seed_everything

from ssl_modules.teacher import momentum_at

pytestmark = pytest.mark.parametrize(
    "case", [case for case in CASES if case.extraction and case.extraction.momentum], ids=str
)


def test_nothing_of_the_teacher_has_a_gradient_and_the_optimiser_does_not_see_it(case):
    module = case.build()
    module.training_step(fixed_views(case), 0)["loss"].backward()
    own = set(module.teacher.parameters())
    assert all(p.grad is None and not p.requires_grad for p in own)
    assert own.isdisjoint(p for group in module.param_groups() for p in group["params"])


@pytest.mark.parametrize(("accumulate", "moment"), [(1, "after"), (4, "after"), (1, "before"), (4, "before")])
def test_the_teacher_is_updated_once_per_optimiser_step(case, accumulate, moment):
    seed_everything(0)
    module = case.build()
    module.extraction.teacher_update = moment
    m, schedule = module.teacher.momentum, module.teacher.schedule
    parts = [module.encoder, module.extraction.heads], [module.teacher.encoder, module.teacher.heads]
    student, teacher = ([p for part in side for p in part.parameters()] for side in parts)
    expected = [p.clone() for p in teacher]
    assert all(map(torch.equal, student, teacher))  # the teacher starts as a copy
    updates, last = 0, 2 if schedule == "cosine-endpoint" else 3

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.before = [p.detach().clone() for p in student]

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            nonlocal updates, expected
            if (batch_idx + 1) % accumulate == 0:
                rate = m if schedule == "constant" else momentum_at(updates, last, m)
                target = self.before if moment == "before" else [p.detach() for p in student]
                expected = [rate * e + (1 - rate) * s for e, s in zip(expected, target, strict=True)]
                updates += 1
            for own, e in zip(teacher, expected, strict=True):
                torch.testing.assert_close(own.detach(), e, rtol=1e-5, atol=1e-7)

    batches = 3 * accumulate
    run = trainer(max_epochs=1, accumulate_grad_batches=accumulate, callbacks=[Watch()])
    run.fit(module, one_batch(images(), batches))
    assert updates == 3
    assert not all(map(torch.equal, student, teacher))


def test_an_unknown_teacher_update_or_momentum_schedule_raises_an_error(case):
    for name in ("teacher_update", "momentum_schedule"):
        with pytest.raises(ValueError, match=f"{name}: expected .*, got 'later'"):
            type(case.extraction)(**{**case.extraction.arguments, name: "later"})
