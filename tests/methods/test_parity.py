"""One step, and twenty, of our SimSiam against an independent one in PyTorch.

PyTorch computes in float64, so every difference below is our float32's rounding. γ and β are
drawn at random first: at γ = 0 a residual block's branch has no gradient to compare. β is large
so that few activations lie at ReLU's kink, where the last bit decides about a whole gradient:
with β around 0, gradients of this small ResNet-50 agree to 0.1 only, and runs part in 10 steps.
Deep networks with the CIFAR stem leave some activations at the kink all the same: there PyTorch's
own float32 is off by 4e-3 (gradients) and 5e-5 (weights after 20 steps), and ours is given as much.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

torch = pytest.importorskip("torch", reason="needs torch: pip install 'simsiam-tf[parity]'")
torch.set_num_threads(1)  # tensors this small are slower on more

from reference_torch import torch_simsiam as peer

from simsiam_tf import nets, optimizers
from simsiam_tf.methods import SimSiam
from simsiam_tf.optimizers import schedules

BATCH, D, STEPS = 16, 64, 20
CASES = {  # backbone, stem, width, channels, pixels, projector layers, weight decay
    "resnet18 cifar": ("resnet18", "cifar", 0.125, 3, 32, 2, 5e-4),
    "resnet18 small grey": ("resnet18", "small", 0.125, 1, 32, 3, 1e-4),
    "resnet50 imagenet": ("resnet50", "imagenet", 0.125, 3, 64, 3, 1e-4),
    "resnet18 imagenet": ("resnet18", "imagenet", 0.125, 3, 64, 3, 1e-4),
    "resnet34 cifar": ("resnet34", "cifar", 0.125, 3, 32, 2, 5e-4),
    "resnet34 imagenet": ("resnet34", "imagenet", 0.125, 3, 64, 3, 1e-4),
    "resnet50 cifar": ("resnet50", "cifar", 0.125, 3, 32, 2, 5e-4),
}
SLOW = set(CASES) - {"resnet18 small grey"}
DEEP = {"resnet34 cifar", "resnet50 cifar"}


def _error(ours, theirs, least: float = 0.0) -> float:
    """Largest difference, relative to the tensor's largest magnitude, which counts as `least` at least."""
    theirs = theirs.detach().numpy()
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max() / max(np.abs(theirs).max(), least))


def _worst(errors: dict[str, float]) -> list:
    return sorted(errors.items(), key=lambda item: -item[1])[:5]


@pytest.fixture(params=[pytest.param(c, marks=[pytest.mark.slow] * (c in SLOW)) for c in CASES])
def case(request):
    """(our model, the peer with its weights, weight decay, a function that draws two views, whether DEEP)"""
    backbone, stem, width, channels, size, layers, decay = CASES[request.param]
    keras.utils.set_random_seed(0)
    heads = {"d": D, "projector_layers": layers, "predictor_hidden": 32}
    ours = SimSiam(nets.resnet(backbone, stem, width, channels), **heads)
    rng = np.random.default_rng(0)
    for v in ours.weights:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.0, v.shape))
        elif v.name in ("beta", "moving_mean"):
            v.assign(rng.uniform(1.0, 3.0, v.shape))
    theirs = peer.SimSiam(peer.Backbone(backbone, stem, width, channels), **heads).double().train()
    peer.copy_weights(ours, theirs)
    return ours, theirs, decay, lambda: _views(rng, size, channels), request.param in DEEP


def _views(rng, size, channels):
    """[2, B, size, size, channels]: patches of colour, mirrored in the second view, with noise."""
    patches = rng.normal(size=(BATCH, 4, 4, channels)) + rng.normal(size=(BATCH, 1, 1, channels))
    images = np.kron(patches, np.ones((1, size // 4, size // 4, 1)))
    views = np.stack([images, images[:, :, ::-1]])
    return (views + rng.normal(0, 0.3, views.shape)).astype("float32")


def _torch(views):
    return [torch.tensor(x.transpose(0, 3, 1, 2).astype("float64")) for x in views]


def _weights(ours, theirs) -> dict[str, float]:
    return {n: _error(peer.to_torch(v.numpy()), t) for n, v, t in peer.pairs(ours, theirs)}


def test_one_step(case, measured):
    ours, theirs, _, draw, deep = case
    views = draw()
    start = ours.get_weights()
    z = [ours.f(x) for x in views]
    p = [ours.h(u) for u in z]
    ours.set_weights(start)
    with tf.GradientTape() as tape:
        loss = ours.objective({"views": tuple(views)})["loss"]
    variables = ours.trainable_variables
    gradients = dict(zip([v.path for v in variables], tape.gradient(loss, variables), strict=True))
    their_loss, their_z, their_p = theirs(*_torch(views))
    their_loss.backward()

    measured("loss, absolute", abs(float(loss) - their_loss.item()), 1e-6)
    measured("projections z", max(map(_error, z, their_z)), 5e-5)
    measured("predictions p", max(map(_error, p, their_p)), 5e-5)
    # A β whose shift a later BN takes out again has gradient 0 but for rounding, so errors below
    # two thousandths of the network's largest gradient are measured against that.
    least = 2e-3 * max(float(t.grad.abs().max()) for t in theirs.parameters())
    errors = {
        name: _error(peer.to_torch(gradients[variable.path].numpy()), tensor.grad, least)
        for name, variable, tensor in peer.pairs(ours, theirs)
        if variable.trainable
    }
    assert len(errors) == len(variables) == len(list(theirs.parameters()))
    measured("every gradient", max(errors.values()), 5e-3 if deep else 1e-3, _worst(errors))
    moving = {name: e for name, e in _weights(ours, theirs).items() if ".running_" in name}
    measured("BN's running statistics", max(moving.values()), 5e-6, _worst(moving))


@pytest.mark.slow
def test_twenty_sgd_steps(case, measured):
    ours, theirs, decay, draw, deep = case
    lr, constant = 0.004, 0.006
    ours.compile(optimizers.SGD(schedules.cosine(lr, STEPS), 0.9, decay, {"predictor": constant}))
    step = tf.function(ours.step)
    sgd = torch.optim.SGD(theirs.groups(lr, constant), lr=lr, momentum=0.9, weight_decay=decay)
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    worst = 0.0
    for i in range(STEPS):
        views = draw()
        sgd.param_groups[0]["lr"] = lr / 2 * (1 + np.cos(np.pi * i / STEPS))
        loss = step(tuple(views))["loss"]
        sgd.zero_grad()
        their_loss, _, _ = theirs(*_torch(views))
        their_loss.backward()
        sgd.step()
        worst = max(worst, abs(float(loss) - their_loss.item()))
    measured("losses of 20 steps, absolute", worst, 5e-6)
    found = _weights(ours, theirs)
    measured("all weights after 20 steps", max(found.values()), 1e-4 if deep else 2e-5, _worst(found))
    # Against how far the weights went, float32's resolution of the weights themselves aside.
    distance = {}
    for name, variable, tensor in peer.pairs(ours, theirs):
        start, end = before[name].numpy(), tensor.detach().numpy()
        wrong = np.abs(peer.to_torch(variable.numpy()) - end).max() - 2e-6 * np.abs(end).max()
        distance[name] = float(wrong / np.abs(end - start).max())
    measured("of the way of each weight in 20 steps", max(distance.values()), 1e-2, _worst(distance))
