"""Checkpoints as the programs of others lay them out, around torchvision's networks."""

import torch
from torch import nn
from torchvision import models


class Parts(nn.Module):
    """Modules by name."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def resnet(name="resnet18", pad=None):
    """torchvision's network with weights as after training; pad: of a 3×3 stem without a pool."""
    torch.manual_seed(0)
    net = getattr(models, name)(weights=None)
    if pad is not None:
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, pad, bias=False), nn.Identity()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.bias, -0.2)):
                nn.init.uniform_(tensor, low, low + 1)
            nn.init.normal_(module.running_mean, 0, 0.2)
    return net.eval()


def mlp(widths):
    """fc, BN, ReLU, …, as facebookresearch, solo-learn and lightly have it."""
    parts = []
    for a, b in zip(widths, widths[1:], strict=False):
        parts += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def numbered(widths):
    """The same as mmselfsup names it."""
    parts = {}
    for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        parts |= {f"fc{i}": nn.Linear(a, b, bias=False), f"bn{i}": nn.BatchNorm1d(b)}
    return Parts(**parts)


def detectron2s(name):
    """Its name for a weight of torchvision's: stages count from res2, norms belong to convolutions."""
    name = name if name.startswith("layer") else f"stem.{name}"
    for old, new in (("downsample.0", "shortcut"), ("downsample.1", "shortcut.norm")):
        name = name.replace(old, new)
    for i in (1, 2, 3, 4):
        name = name.replace(f"layer{i}", f"res{i + 1}").replace(f"bn{i}", f"conv{i}.norm")
    return name


def layout(name, net):
    """(a program's checkpoint around a torchvision network, how many of its names are no backbone's)."""
    width = net.fc.in_features
    heads, h = [width, 40, 40, 32], [32, 8, 32]
    if name == "torchvision":
        whole = net
    elif name == "facebookresearch":
        net.fc = mlp(heads)
        whole = nn.DataParallel(Parts(encoder=net, predictor=mlp(h)))
    elif name == "mmselfsup":
        del net.fc
        whole = Parts(backbone=net, neck=numbered(heads), head=Parts(predictor=numbered(h)))
    elif name == "solo_learn":
        net.fc = nn.Identity()
        whole = Parts(backbone=net, projector=mlp(heads), predictor=mlp(h), classifier=nn.Linear(width, 10))
    elif name == "detectron2":
        del net.fc
        return {detectron2s(key): tensor for key, tensor in net.state_dict().items()}
    else:
        children = [c for n, c in net.named_children() if n != "fc"]
        if name == "lightly_small":
            children = [c for n, c in net.named_children() if n not in ("fc", "relu", "maxpool")]
        heads, h = (Parts(layers=mlp(w)) for w in (heads, h))
        whole = Parts(backbone=nn.Sequential(*children), projection_head=heads, prediction_head=h)
    state = whole.state_dict()
    if name == "lightly_small":
        state = {k.replace("downsample", "shortcut"): v for k, v in state.items()}
    return state
