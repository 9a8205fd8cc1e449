"""What is no checkpoint, or another model's, is told in one line, and nothing in it is run."""

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from zoo.backbone import create_backbone
from zoo.checkpoints import Checkpoint, load_checkpoint_, read_checkpoint
from zoo.errors import UserError


class Runs:
    """A pickle of it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(new_format: bool, tmp_path: Path) -> None:
    sign, file = tmp_path / "ran", tmp_path / "x.pth"
    content = {"state_dict": {"fc.weight": torch.ones(2, 2)}, "more": Runs(sign)}
    torch.save(content, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(UserError, match=r"holds pickled code or objects \((posix|nt)\.mkdir\), which zoo never runs"):
        read_checkpoint(file)
    assert not sign.exists()


def test_a_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"\(torch\.nn.*Linear\).*torch\.save\(model\.state_dict\(\)"):
        read_checkpoint(tmp_path / "x.pt")


def test_damaged_files(tmp_path: Path) -> None:
    tensors = {"weight": torch.rand(100, 100)}
    torch.save(tensors, tmp_path / "cut.pth")
    save_file(tensors, tmp_path / "cut.safetensors")
    for file in ("cut.pth", "cut.safetensors"):
        content = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>\n<title>404</title>")
    (tmp_path / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    (tmp_path / "noise.ckpt").write_bytes(bytes(range(256)) * 4)
    torch.save({"epoch": 3, "metric": 0.5}, tmp_path / "nothing.pth")
    wrong = {
        "cut.pth": "is cut, damaged, or no file of weights",
        "cut.safetensors": "truncated, or not a safetensors file",
        "empty.pth": "is empty",
        "page.pth": "is a text file.*begins with '<!DOCTYPE html>'",
        "pointer.safetensors": "Git LFS pointer",
        "noise.ckpt": "is cut, damaged, or no file of weights|more than weights",
        "nothing.pth": "has no weights: it holds 'epoch', 'metric'",
        "missing.pth": "no weights at",
    }
    for file, message in wrong.items():
        with pytest.raises(UserError, match=message) as error:
            read_checkpoint(tmp_path / file)
        assert "\n" not in str(error.value)


def test_folders_without_weights_or_with_too_many(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no weights"):
        read_checkpoint(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save({"x": torch.ones(1)}, tmp_path / name)
    with pytest.raises(UserError, match=r"several files of weights, a\.pth, b\.pth"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "model-1.safetensors"}}')
    with pytest.raises(UserError, match=r"lacks model-1\.safetensors"):
        read_checkpoint(tmp_path)


def misfit(model: nn.Module, tensors: dict, **about: object) -> str:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_checkpoint_(model, Checkpoint(Path("x.pth"), tensors, **about))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_architecture_is_named() -> None:
    tensors = timm.create_model("resnet34").state_dict()
    message = misfit(create_backbone("resnet18", 10, (3, 96, 96)), tensors)
    assert message.startswith("x.pth does not fit resnet18: 80 unexpected (layer1.2.conv1.weight, ")
    assert message.endswith("it is a resnet34: give that architecture")
    assert message.count("layer") == 10
    message = misfit(create_backbone("test_resnet", 10, (3, 96, 96)), {"what.weight": torch.ones(3)})
    assert "1 unexpected (what.weight)" in message
    assert "missing (conv1" in message
    assert message.endswith("it is not a common architecture of timm: see `zoo list --archs`")


def test_the_architecture_that_a_folder_names_is_told() -> None:
    tensors = timm.create_model("test_vit").state_dict()
    message = misfit(create_backbone("test_resnet", 10, (3, 96, 96)), tensors, arch="test_vit.r160_in1k")
    assert message.endswith("its config.json says that it is a test_vit.r160_in1k: give that architecture")


def test_the_stem_is_the_reason() -> None:
    original = timm.create_model("resnet18", num_classes=10).state_dict()
    small = create_backbone("resnet18", 10, (3, 32, 32))
    message = misfit(small, original)
    assert "1 of another shape (conv1.weight 64 x 3 x 7 x 7 for 64 x 3 x 3 x 3)" in message
    assert message.endswith("give --stem original")
    load_checkpoint_(create_backbone("resnet18", 10, (3, 32, 32), stem="original"), Checkpoint(Path("x"), original))
    for shape, stem, advice in (
        ((3, 32, 32), "original", "leave --stem original out"),
        ((3, 96, 96), "auto", "--image-size 32"),
    ):
        assert advice in misfit(create_backbone("resnet18", 10, shape, stem=stem), small.state_dict())


def test_factors_are_told_from_weights() -> None:
    tensors = {f"layer1.0.conv1.{factor}": torch.ones(3, 3) for factor in "USV"}
    assert misfit(create_backbone("test_resnet", 10, (3, 96, 96)), tensors).endswith(
        "give the RUN folder, whose card says how"
    )
