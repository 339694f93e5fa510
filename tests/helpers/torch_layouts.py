"""Checkpoints in the layouts of other programs, around torchvision's networks."""

import torch
from torch import nn
from torchvision import models


class Modules(nn.Module):
    """A module of modules by name."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def resnet(name="resnet18", pad=None):
    """torchvision's network with weights as after training. pad: padding of a 3×3 stem without pooling."""
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


def narrow(width=8):
    """A ResNet-10 with the CIFAR stem and torchvision's names, a fraction of the width."""
    block = models.resnet.BasicBlock
    net = models.ResNet(block, [1, 1, 1, 1])
    net.inplanes = width
    net.conv1, net.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
    net.maxpool = nn.Identity()
    for i in range(4):
        setattr(net, f"layer{i + 1}", net._make_layer(block, width << i, 1, stride=min(2, i + 1)))
    net.fc = nn.Linear(width << 3, 10)
    return net


def randomise_statistics(module):
    """The module in evaluation mode, its BN and biases set as after training."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.normal_(part.running_mean, 0, 0.2)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.2)
    return module.eval()


def projector(widths, last_bias=False, affine=True):
    """fc, BN, ReLU, … up to a BN, with weights if `affine`; the last fc has a bias if `last_bias`."""
    parts = []
    for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False), 2):
        last = i == len(widths)
        parts += [nn.Linear(a, b, bias=last and last_bias), nn.BatchNorm1d(b, affine=affine or not last)]
        parts += [] if last else [nn.ReLU()]
    return randomise_statistics(nn.Sequential(*parts))


def predictor(d, hidden):
    """fc, BN, ReLU, fc with a bias."""
    first = nn.Linear(d, hidden, bias=False)
    return randomise_statistics(nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, d)))


def numbered(head):
    """The same MLP with fc and BN numbered separately, as mmselfsup names it."""
    parts = {}
    for module in head:
        kind = {nn.Linear: "fc", nn.BatchNorm1d: "bn"}.get(type(module))
        if kind:
            parts[f"{kind}{sum(name.startswith(kind) for name in parts)}"] = module
    return Modules(**parts)


def layered(head):
    """The same MLP in layers numbered from 1, as PatrickHua names it; an fc without BN is a layer."""
    groups = []
    for module in head:
        if isinstance(module, nn.Linear):
            groups.append([])
        groups[-1].append(module)
    named = [g[0] if len(g) == 1 else nn.Sequential(*g) for g in groups]
    return Modules(**{f"layer{i}": module for i, module in enumerate(named, 1)})


def detectron2_name(name):
    """Detectron2's name of a torchvision weight: stages begin at res2, norms belong to convolutions."""
    name = name if name.startswith("layer") else f"stem.{name}"
    for old, new in (("downsample.0", "shortcut"), ("downsample.1", "shortcut.norm")):
        name = name.replace(old, new)
    for i in (1, 2, 3, 4):
        name = name.replace(f"layer{i}", f"res{i + 1}").replace(f"bn{i}", f"conv{i}.norm")
    return name


def heads_of(name, width):
    """(projector, predictor) of a program, for features of a width."""
    torch.manual_seed(1)
    last_bias = name in ("facebookresearch", "solo_learn")
    p = projector([width, 40, 40, 32], last_bias, affine=name not in ("facebookresearch", "solo_learn"))
    h = predictor(32, 8)
    if name == "patrickhua":  # whose every fc has a bias
        for head in (p, h):
            for i, module in enumerate(head):
                if isinstance(module, nn.Linear):
                    head[i] = nn.Linear(module.in_features, module.out_features)
    return p, h


def layout(name, net):
    """state_dict of a program, from a torchvision network and its heads (`heads_of`)."""
    width = net.fc.in_features
    p, h = heads_of(name, width)
    if name == "torchvision":
        model = net
    elif name == "facebookresearch":
        net.fc = p
        model = nn.DataParallel(Modules(encoder=net, predictor=h))
    elif name == "mmselfsup":
        del net.fc
        model = Modules(backbone=net, neck=numbered(p), head=Modules(predictor=numbered(h)))
    elif name == "solo_learn":
        net.fc = nn.Identity()
        model = Modules(backbone=net, projector=p, predictor=h, classifier=nn.Linear(width, 10))
    elif name == "patrickhua":
        net.fc = nn.Identity()
        model = Modules(backbone=net, projector=layered(p), predictor=layered(h))
    elif name == "detectron2":
        del net.fc
        return {detectron2_name(key): tensor for key, tensor in net.state_dict().items()}
    else:
        children = [c for n, c in net.named_children() if n != "fc"]
        if name == "lightly_small":
            children = [c for n, c in net.named_children() if n not in ("fc", "relu", "maxpool")]
        p, h = Modules(layers=p), Modules(layers=h)
        model = Modules(backbone=nn.Sequential(*children), projection_head=p, prediction_head=h)
    state = model.state_dict()
    if name == "lightly_small":
        state = {k.replace("downsample", "shortcut"): v for k, v in state.items()}
    return state
