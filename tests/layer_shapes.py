"""Layers of common networks, at the ranks that compression leaves them: what the cost model is judged by."""

from zoo.export.forms import DENSE, Form, Geometry, Op

K3 = {"kernel": (3, 3), "padding": (1, 1)}


def _forms(problem: Geometry, ranks: list[int]) -> list[Form]:
    return [*(Form("kxk to 1x1", rank) for rank in ranks), DENSE]


def layers() -> list[tuple[Geometry, list[Form]]]:
    """Return layers, each with forms to order."""
    found = []
    for c, size in ((64, 32), (64, 56), (128, 16), (128, 28), (256, 8), (256, 14), (512, 4), (512, 7)):
        problem = Geometry("conv", Op(c, c, **K3), (size, size))
        found.append((problem, _forms(problem, [c // 4 - 1, c // 4, c // 4 + 1, c // 2, 3 * c // 4])))
    for c, n, size in ((64, 128, 32), (128, 256, 16), (256, 512, 8)):
        problem = Geometry("conv", Op(c, n, stride=(2, 2), **K3), (size, size))
        found.append((problem, _forms(problem, [c // 4, c // 2, c // 2 + 8])))
        problem = Geometry("conv", Op(c, n, stride=(2, 2)), (size, size))
        found.append((problem, _forms(problem, [c // 8, c // 4, c // 2])))
    for c, n, size in ((16, 96, 16), (96, 24, 16), (24, 144, 16), (144, 32, 8), (192, 64, 4), (384, 96, 4),
                       (576, 160, 2), (960, 320, 2), (320, 1280, 2), (256, 1024, 14), (1024, 256, 14)):  # fmt: skip
        problem = Geometry("conv", Op(c, n), (size, size))
        small = min(c, n)
        found.append((problem, _forms(problem, sorted({max(1, small // 8), small // 4, small // 2}))))
    for c, n, tokens in ((192, 576, 65), (192, 768, 65), (768, 192, 65), (384, 1536, 197), (512, 512, 1),
                         (4096, 1024, 1), (40, 160, 256), (160, 40, 256), (320, 1280, 16)):  # fmt: skip
        problem = Geometry("linear", Op(c, n), (1, tokens))
        small = min(c, n)
        found.append((problem, _forms(problem, [small // 8, small // 4, small // 4 + 1, small // 2])))
    return found
