"""timm's names for the tensors of Hugging Face's ResNets and vision transformers."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from zoo.checkpoints.renaming import Table, family_of, renamed

RESNET: Table = (
    (r"embedder\.embedder\.convolution\.", "conv1."),
    (r"embedder\.embedder\.normalization\.", "bn1."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.", r"layer{0+1}.{1}.conv{2+1}."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.", r"layer{0+1}.{1}.bn{2+1}."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.", r"layer{0+1}.{1}.downsample.0."),
    (r"encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.", r"layer{0+1}.{1}.downsample.1."),
    (r"classifier\.1\.", "fc."),
)
BLOCK = r"encoder\.layer\.(\d+)\."
TRANSFORMER: Table = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (rf"{BLOCK}attention\.attention\.(query|key|value)\.", r"blocks.{0}.attn.{1}."),
    (rf"{BLOCK}attention\.output\.dense\.", r"blocks.{0}.attn.proj."),
    (rf"{BLOCK}intermediate\.dense\.", r"blocks.{0}.mlp.fc1."),
    (rf"{BLOCK}output\.dense\.", r"blocks.{0}.mlp.fc2."),
    (rf"{BLOCK}layernorm_before\.", r"blocks.{0}.norm1."),
    (rf"{BLOCK}layernorm_after\.", r"blocks.{0}.norm2."),
    (r"layernorm\.", "norm."),
    (r"classifier\.", "head."),
)
TABLES = {"resnet": RESNET, "vision_transformer": TRANSFORMER, "deit": TRANSFORMER}
"""By timm's name of the family."""
PREFIX = r"(?:resnet|vit|deit)\."
UNUSED = r"(?:vit\.)?pooler\."
"""What transformers saves and no classifier reads."""


def from_huggingface(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return tensors under the names of a timm model; those that the table does not have keep theirs."""
    table = TABLES.get(family_of(model), ())
    kept = {re.sub(rf"^{PREFIX}", "", name): x for name, x in tensors.items() if not re.match(UNUSED, name)}
    return _joined(renamed(kept, table))


def _joined(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put query, key and value together, one below the other, as timm has them."""
    result = {}
    for name, tensor in tensors.items():
        part = re.fullmatch(r"(.*\.attn\.)(query|key|value)(\..*)", name)
        if part is None:
            result[name] = tensor
            continue
        names = [f"{part[1]}{which}{part[3]}" for which in ("query", "key", "value")]
        if part[2] == "query" and all(x in tensors for x in names):
            result[f"{part[1]}qkv{part[3]}"] = torch.cat([tensors[x] for x in names])
    return result
