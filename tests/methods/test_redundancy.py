"""Losses of VICReg and Barlow Twins against formulas by hand, loops in NumPy and the papers' PyTorch code."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.compared_methods import BATCH, SIZE, D, views

from simsiam_tf.methods import BarlowTwins, VICReg, barlow, losses, vicreg

SHAPES = [(9, 5), (5, 9)]  # more images than channels, and fewer: the products differ


def two_views(n, d, seed=0):
    """Embeddings of two views: correlated channels with different means and lengths, float64."""
    rng = np.random.default_rng(seed)
    z1 = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * 0.4 + rng.normal(size=d)
    return z1, z1 + rng.normal(0, 0.3, (n, d))


@pytest.mark.parametrize("n, d", SHAPES)
@pytest.mark.parametrize("known", [True, False])
def test_off_diagonal_squares_are_the_double_sum(n, d, known):
    a, b = two_views(n, d)
    m = a.T @ b
    expected = sum(m[i, j] ** 2 for i in range(d) for j in range(d) if i != j)
    rows = tf.TensorSpec([n if known else None, d], tf.float64)
    found = tf.function(losses.off_diagonal_squares, input_signature=[rows, rows])(a, b)
    assert float(found) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n, d", SHAPES)
def test_vicregs_terms_are_the_sums_of_the_paper(n, d):
    z1, z2 = two_views(n, d)
    distance = sum(((z1[i] - z2[i]) ** 2).sum() for i in range(n)) / n
    assert float(vicreg.invariance(tf.constant(z1), tf.constant(z2))) == pytest.approx(
        distance / d, rel=1e-12
    )
    mean = sum(z1[i] for i in range(n)) / n
    c = sum(np.outer(z1[i] - mean, z1[i] - mean) for i in range(n)) / (n - 1)
    hinge = [max(0, 1 - np.sqrt(c[j, j] + 1e-4)) for j in range(d)]
    assert min(hinge) == 0 < max(hinge)
    assert float(vicreg.variance(tf.constant(z1))) == pytest.approx(sum(hinge) / d, rel=1e-12)
    squares = sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j)
    assert float(vicreg.covariance(tf.constant(z1))) == pytest.approx(squares / d, rel=1e-10)


def test_vicregs_terms_by_hand():
    # Two images, two channels: differences of 2 and 1, so Var = 2 and ½, and the covariance is 1.
    z = tf.constant([[1.0, 0.5], [-1.0, -0.5]], tf.float64)
    assert float(vicreg.covariance(z)) == pytest.approx((1 + 1) / 2)
    assert float(vicreg.variance(z)) == pytest.approx((0 + 1 - np.sqrt(0.5 + 1e-4)) / 2)
    assert float(vicreg.invariance(z, 2 * z)) == pytest.approx((1 + 0.25) / 2)
    assert float(vicreg.variance(0 * z)) == pytest.approx(1 - 0.01)  # a collapse


def test_barlow_twins_by_hand():
    z = tf.constant([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], tf.float64)
    assert float(barlow.barlow_twins(z, 3 * z + 7, 0.5)) == pytest.approx(0, abs=1e-8)  # C = 1
    swapped = z[:, ::-1]  # C is 0 on the diagonal and 1 elsewhere
    assert float(barlow.barlow_twins(z, swapped, 0.5)) == pytest.approx(2 + 0.5 * 2, rel=1e-4)
    assert float(barlow.barlow_twins(z, -z, 0.5)) == pytest.approx(2 * 4, rel=1e-4)


@pytest.mark.parametrize("n, d", SHAPES)
def test_losses_and_gradients_are_those_of_the_papers_pytorch_code(n, d):
    """Written anew from the papers' pseudo-code: VICReg's Algorithm 1, Algorithm 1 of Barlow Twins."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")

    def off_diagonal(m):
        return m[~torch.eye(d, dtype=torch.bool)]

    def of_vicreg(z_a, z_b):
        std_loss = sum(torch.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean() for z in (z_a, z_b))
        cov = [torch.cov(z.T) for z in (z_a, z_b)]
        cov_loss = sum(off_diagonal(c).pow(2).sum() / d for c in cov)
        return 25 * torch.nn.functional.mse_loss(z_a, z_b) + 25 * std_loss / 2 + cov_loss

    def of_barlow(z_a, z_b):
        bn = torch.nn.BatchNorm1d(d, affine=False).double()
        c = bn(z_a).T @ bn(z_b) / n
        return 0.024 * ((torch.diagonal(c) - 1).pow(2).sum() + 5e-3 * off_diagonal(c).pow(2).sum())

    images = keras.Input((SIZE, SIZE, 1))
    network = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    for model, theirs in ((VICReg(network, d), of_vicreg), (BarlowTwins(network, d), of_barlow)):
        values = two_views(n, d)
        z = [tf.constant(v) for v in values]
        given = iter(z)
        model.f = lambda x, given=given: next(given)
        with tf.GradientTape() as tape:
            tape.watch(z)
            loss = model.objective({"views": (0, 1)})["loss"]
        peers = [torch.tensor(v, requires_grad=True) for v in values]
        expected = theirs(*peers)
        expected.backward()
        assert float(loss) == pytest.approx(expected.item(), rel=1e-9)
        for ours, peer in zip(tape.gradient(loss, z), peers, strict=True):
            np.testing.assert_allclose(ours, peer.grad.numpy(), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("cls", [VICReg, BarlowTwins])
def test_hidden_layers_are_as_wide_as_the_embedding(cls):
    images = keras.Input((SIZE, SIZE, 1))
    network = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    for hidden, width in ((None, D), (7, 7)):
        model = cls(network, d=D, projector_hidden=hidden)
        kernels = [v.shape for v in model.projector.trainable_variables if len(v.shape) == 2]
        assert kernels == [(1, width), (width, width), (width, D)]
    assert model.objective({"views": views()})["z"].shape == (BATCH, D)
