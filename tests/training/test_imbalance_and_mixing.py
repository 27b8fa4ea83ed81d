"""Unequal classes and mixed images: what is drawn, and what the loss makes of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.config.trial import TrialConfig
from harness.errors import DataError
from harness.training.loss import Loss, class_weights
from harness.training.mixing import mix
from harness.training.trial_data import balanced_order, epoch_order

CPU = torch.device("cpu")
LABELS = np.array([0] * 70 + [1] * 25 + [2] * 5 + [0, 1, 2])  # the last three rows do not train
TRAIN = np.arange(100)


def test_balanced_sampling_draws_every_class_equally_often() -> None:
    rows, rounds = balanced_order(TRAIN, LABELS, seed=1, epoch=1, batch_size=9)
    assert rows.shape == rounds.shape == (11, 9)
    assert np.bincount(LABELS[rows.ravel()]).tolist() == [33, 33, 33]
    assert rows.max() < 100
    # of a class every image comes before any comes again, and each drawing of one image has a round of its own
    rare, times = np.unique(rows[LABELS[rows] == 2], return_counts=True)
    assert len(rare) == 5
    assert set(times.tolist()) == {6, 7}
    assert len({(row, turn) for row, turn in zip(rows.ravel(), rounds.ravel(), strict=True)}) == 99
    assert rounds[LABELS[rows] == 0].max() == 0


def test_balanced_sampling_hangs_on_seed_and_epoch_alone_and_keeps_the_number_of_steps() -> None:
    first, _ = balanced_order(TRAIN, LABELS, 1, 1, 8)
    assert np.array_equal(first, balanced_order(TRAIN, LABELS, 1, 1, 8)[0])
    assert not np.array_equal(first, balanced_order(TRAIN, LABELS, 1, 2, 8)[0])
    assert first.shape == epoch_order(TRAIN, 1, 1, 8).shape


def test_a_batch_larger_than_the_training_part_is_refused() -> None:
    with pytest.raises(DataError, match=r"101 for 100"):
        balanced_order(TRAIN, LABELS, 1, 1, 101)


def test_class_weights_make_every_class_count_alike() -> None:
    weights = class_weights(LABELS[TRAIN], 4)
    assert weights[3] == 0  # no image of it
    counts = np.bincount(LABELS[TRAIN], minlength=4)
    assert np.allclose((weights * counts)[:3], 100 / 3)


def test_weighted_loss_is_torch_s_own_with_these_weights(config: TrialConfig) -> None:
    config = dataclasses.replace(config, imbalance="weighted_loss", label_smoothing=0.1)
    loss = Loss(config, LABELS[TRAIN], 3, CPU)
    logits, labels = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 1, 1, 2, 0])
    weight = torch.from_numpy(class_weights(LABELS[TRAIN], 3))
    assert torch.equal(loss(logits, labels), F.cross_entropy(logits, labels, weight=weight, label_smoothing=0.1))
    plain = Loss(dataclasses.replace(config, imbalance="none"), LABELS[TRAIN], 3, CPU)
    assert not torch.equal(plain(logits, labels), loss(logits, labels))


def images() -> torch.Tensor:
    """Eight images, each of one grey level of its own."""
    return (torch.arange(8) / 8).view(8, 1, 1, 1).expand(8, 3, 16, 16).clone()


def test_mixup_blends_images_and_labels_alike(config: TrialConfig) -> None:
    mixed = mix(images(), dataclasses.replace(config, mixup=1.0), seed=3, epoch=1, step=2)
    assert mixed is not None
    levels, other = torch.arange(8) / 8, mixed.partner / 8
    assert torch.allclose(mixed.images[:, 0, 0, 0], mixed.share * levels + (1 - mixed.share) * other)
    logits, labels = torch.randn(8, 8), torch.arange(8)
    soft = mixed.share * F.one_hot(labels, 8) + (1 - mixed.share) * F.one_hot(labels[mixed.partner], 8)
    loss = Loss(config, LABELS[TRAIN], 3, CPU)(logits, labels, mixed)
    assert torch.allclose(loss, F.cross_entropy(logits, soft.float()))


def test_cutmix_pastes_a_box_whose_area_is_the_partner_s_share(config: TrialConfig) -> None:
    config, shares = dataclasses.replace(config, cutmix=1.0), []
    for step in range(20):
        mixed = mix(images(), config, seed=3, epoch=1, step=step)
        assert mixed is not None
        own = (mixed.images == images()).all(1)  # (8, 16, 16)
        moved = mixed.partner != torch.arange(8)
        assert torch.allclose(own[moved].float().mean((1, 2)), torch.tensor(mixed.share))
        pasted = mixed.images.flatten(1)[~own[:, None].expand(-1, 3, -1, -1).flatten(1)]
        assert set(pasted.unique().tolist()) <= set((mixed.partner / 8).tolist())
        shares.append(mixed.share)
    assert 0.2 < np.mean(shares) < 0.95
    assert len(set(shares)) > 10


def test_mixing_is_the_same_for_the_same_step_and_leaves_the_batch_alone(config: TrialConfig) -> None:
    config, given = dataclasses.replace(config, mixup=0.5, cutmix=0.5), images()
    one, again = (mix(given, config, 3, 1, 0) for _ in range(2))
    assert one is not None and again is not None
    assert torch.equal(one.images, again.images)
    assert torch.equal(given, images())
    drawn = [mix(given, config, 3, 1, step) for step in range(40)]
    boxes = sum(bool(((m.images == given).flatten(1).any(1)).all()) for m in drawn if m is not None)
    assert 8 <= boxes <= 32  # a fair coin between the two
    assert mix(given, dataclasses.replace(config, mixup=0.0, cutmix=0.0), 3, 1, 0) is None
