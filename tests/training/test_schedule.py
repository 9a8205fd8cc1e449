"""Learning rates and the radius over a run."""

import pytest
import torch

from zoo.training.module import Classifier
from zoo.training.schedule import learning_rate_factor, ramp


@pytest.mark.parametrize(("steps", "warmup"), [(120, 0.3), (50, 0.1), (400, 0.25)])
def test_onecycle_is_torch_s(steps: int, warmup: float) -> None:
    """Torch ends its rise one step earlier and is compared at the steps of ours, which begins at the same rate."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    rising = round(warmup * steps)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps, pct_start=(rising + 1) / steps, cycle_momentum=False
    )
    factor = learning_rate_factor("onecycle", steps, warmup)
    for step in range(steps):
        assert factor(step) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            reference.step()


def test_a_ramp_rises_evenly_and_stays() -> None:
    found = [ramp(step, 100, 0.2) for step in range(100)]
    assert found[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert set(found[20:]) == {1.0}
    assert ramp(0, 100, 0.0) == 1.0


def test_eps_rises_over_the_share_of_the_training(train_tiny, monkeypatch) -> None:
    """Each step's search is told its radius: it grows by equal steps to the whole one, and training is told how far."""
    seen: list[tuple[float, float]] = []
    losses = Classifier.losses

    def watched(self, images, labels):
        seen.append((self.threat.eps, float(self.threat.progress)))
        return losses(self, images, labels)

    monkeypatch.setattr(Classifier, "losses", watched)
    train_tiny("dense", adversary="n_fgsm", epochs=2, eps="0.1", eps_ramp=0.5, n=20)
    half = len(seen) // 2
    assert [eps for eps, _ in seen[:half]] == pytest.approx([0.1 * (i + 1) / half for i in range(half)])
    assert {eps for eps, _ in seen[half:]} == {0.1}
    assert [progress for _, progress in seen] == pytest.approx([i / len(seen) for i in range(len(seen))])
