"""timm's names for the tensors of torchvision's models, by family; ResNets have the same names in both."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from zoo.checkpoints.renaming import Table, family_of, renamed
from zoo.checkpoints.torchvision_blocks import with_inverted_residuals

VGG: Table = (
    (r"classifier\.0\.", "pre_logits.fc1."),
    (r"classifier\.3\.", "pre_logits.fc2."),
    (r"classifier\.6\.", "head.fc."),
)
DENSENET: Table = ((r"(.*\.)(norm|relu|conv)\.([12])\.", "{0}{1}{2}."),)
TRANSFORMER_BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
TRANSFORMER: Table = (
    (r"class_token", "cls_token"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"conv_proj\.", "patch_embed.proj."),
    (rf"{TRANSFORMER_BLOCK}ln_([12])\.", "blocks.{0}.norm{1}."),
    (rf"{TRANSFORMER_BLOCK}self_attention\.in_proj_", "blocks.{0}.attn.qkv."),
    (rf"{TRANSFORMER_BLOCK}self_attention\.out_proj\.", "blocks.{0}.attn.proj."),
    (rf"{TRANSFORMER_BLOCK}mlp\.(?:0|linear_1)\.", "blocks.{0}.mlp.fc1."),
    (rf"{TRANSFORMER_BLOCK}mlp\.(?:3|linear_2)\.", "blocks.{0}.mlp.fc2."),
    (r"encoder\.ln\.", "norm."),
    (r"heads\.head\.", "head."),
)
CONVNEXT: Table = (
    (r"features\.0\.", "stem."),
    (r"features\.([1357])\.(\d+)\.block\.0\.", "stages.{0/2}.blocks.{1}.conv_dw."),
    (r"features\.([1357])\.(\d+)\.block\.2\.", "stages.{0/2}.blocks.{1}.norm."),
    (r"features\.([1357])\.(\d+)\.block\.3\.", "stages.{0/2}.blocks.{1}.mlp.fc1."),
    (r"features\.([1357])\.(\d+)\.block\.5\.", "stages.{0/2}.blocks.{1}.mlp.fc2."),
    (r"features\.([1357])\.(\d+)\.layer_scale", "stages.{0/2}.blocks.{1}.gamma"),
    (r"features\.([246])\.", "stages.{0/2}.downsample."),
    (r"classifier\.0\.", "head.norm."),
    (r"classifier\.2\.", "head.fc."),
)
SWIN: Table = (
    (r"features\.0\.0\.", "patch_embed.proj."),
    (r"features\.0\.2\.", "patch_embed.norm."),
    (r"features\.([1357])\.(\d+)\.mlp\.0\.", "layers.{0/2}.blocks.{1}.mlp.fc1."),
    (r"features\.([1357])\.(\d+)\.mlp\.3\.", "layers.{0/2}.blocks.{1}.mlp.fc2."),
    (r"features\.([1357])\.(\d+)\.", "layers.{0/2}.blocks.{1}."),
    (r"features\.([246])\.", "layers.{0/2}.downsample."),
    (r"head\.", "head.fc."),
)
REGNET_BLOCK = r"trunk_output\.block(\d)\.block\d-(\d+)\."
REGNET: Table = (
    (r"stem\.0\.", "stem.conv."),
    (r"stem\.1\.", "stem.bn."),
    (rf"{REGNET_BLOCK}proj\.0\.", "s{0}.b{1+1}.downsample.conv."),
    (rf"{REGNET_BLOCK}proj\.1\.", "s{0}.b{1+1}.downsample.bn."),
    (rf"{REGNET_BLOCK}f\.a\.0\.", "s{0}.b{1+1}.conv1.conv."),
    (rf"{REGNET_BLOCK}f\.a\.1\.", "s{0}.b{1+1}.conv1.bn."),
    (rf"{REGNET_BLOCK}f\.b\.0\.", "s{0}.b{1+1}.conv2.conv."),
    (rf"{REGNET_BLOCK}f\.b\.1\.", "s{0}.b{1+1}.conv2.bn."),
    (rf"{REGNET_BLOCK}f\.se\.", "s{0}.b{1+1}.se."),
    (rf"{REGNET_BLOCK}f\.c\.0\.", "s{0}.b{1+1}.conv3.conv."),
    (rf"{REGNET_BLOCK}f\.c\.1\.", "s{0}.b{1+1}.conv3.bn."),
    (r"fc\.", "head.fc."),
)
EPS = {"mobilenetv3": 1e-3, "efficientnet_b5": 1e-3, "efficientnet_b6": 1e-3, "efficientnet_b7": 1e-3,
       "efficientnetv2": 1e-3}  # fmt: skip
"""eps of torchvision's BatchNorms where timm's is another, by the start of timm's architecture."""


def from_torchvision(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return tensors under the names of a timm model; those that the family's table does not have keep theirs."""
    rename = _FAMILIES.get(family_of(model), lambda found, _: dict(found))
    return _with_eps(rename(tensors, model), model)


def _by(table: Table) -> Callable[[Mapping[str, Tensor], nn.Module], dict[str, Tensor]]:
    return lambda tensors, model: renamed(tensors, table)


def _without_auxiliary(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Leave out Inception's second classifier, which only a training reads, where the model has none."""
    has_one = getattr(model, "AuxLogits", None) is not None
    return {name: x for name, x in tensors.items() if has_one or not name.startswith("AuxLogits.")}


def _with_eps(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Move the difference of the BatchNorms' eps into their variances: 1 / sqrt(var + eps) stays what it was."""
    arch = str((getattr(model, "pretrained_cfg", None) or {}).get("architecture", ""))
    eps = next((value for start, value in EPS.items() if arch.startswith(start)), None)
    if eps is None:
        return tensors
    own = {name: module.eps for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    return {
        name: tensor + (eps - own.get(name.removesuffix(".running_var"), eps))
        if name.endswith("running_var")
        else tensor
        for name, tensor in tensors.items()
    }


_FAMILIES: dict[str, Callable[[Mapping[str, Tensor], nn.Module], dict[str, Tensor]]] = {
    "vgg": _by(VGG),
    "densenet": _by(DENSENET),
    "vision_transformer": _by(TRANSFORMER),
    "convnext": _by(CONVNEXT),
    "swin_transformer": _by(SWIN),
    "regnet": _by(REGNET),
    "inception_v3": _without_auxiliary,
    "efficientnet": with_inverted_residuals,
    "mobilenetv3": with_inverted_residuals,
}
