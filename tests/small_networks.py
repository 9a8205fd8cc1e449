"""Small networks whose channels are traced and cut."""

from torch import nn

from zoo.backbone import create_backbone

IMAGE = (3, 32, 32)


def network(name: str) -> nn.Module:
    if name != "densenet":
        return create_backbone(name, 10, IMAGE).eval()
    from timm.models.densenet import DenseNet

    return DenseNet(growth_rate=8, block_config=(2, 2), num_classes=10, bn_size=2).eval()


def shaken(model: nn.Module) -> nn.Module:
    """Normalisation as after a training: timm starts the last one of a block at zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.weight.data.normal_()
            module.bias.data.normal_()
    return model
