"""Convolutions by a processor's matrix unit against torch's: results, gradients, and where they are taken."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lth.config import resolve
from lth.models import build, groups
from lth.models.init import draw
from lth.pruning import masks
from lth.randomness import generator
from lth.training.bfloat16 import kernels, lowering, matrices, sparse

pytestmark = [
    pytest.mark.skipif(not kernels.matrix_kernels(), reason="the processor has no matrix unit, or it may not be used"),
    pytest.mark.usefixtures("one_thread"),
]

# images, inputs, outputs, height, width: one and many, blocks filled and not, edges that touch, more than fit the cache
SHAPES = [(1, 32, 32, 1, 1), (5, 64, 32, 3, 2), (33, 32, 96, 1, 5), (64, 32, 64, 8, 8), (70, 96, 64, 4, 4)]
SHAPES += [(66, 512, 64, 8, 8), (32, 64, 64, 2, 2), (3, 32, 32, 40, 70)]


def whole(seed: int, *shape: int) -> Tensor:
    """Small whole numbers in bfloat16, channels_last: what is summed of their products is exact."""
    drawn = torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed))
    return drawn.bfloat16().contiguous(memory_format=torch.channels_last)


def gradients(x: Tensor, weight: Tensor, bias: Tensor | None, gradient: Tensor, by_torch: bool) -> list[Tensor]:
    """A convolution's result and the gradients of all that it is given."""
    given = [tensor.detach().requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
    y = (
        F.conv2d(*given, padding=1)
        if by_torch
        else matrices.MatrixConvolution.apply(*given, *[None] * (3 - len(given)))
    )
    assert isinstance(y, Tensor)
    return [y.detach(), *torch.autograd.grad(y, given, gradient)]


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_and_gradients_are_a_convolutions_to_the_bit(shape: tuple[int, ...], biased: bool) -> None:
    n, c, k, h, w = shape
    x, weight, gradient = whole(1, n, c, h, w), whole(2, k, c, 3, 3), whole(3, n, k, h, w)
    bias = whole(4, 1, k, 1, 1).flatten() if biased else None
    exact = gradients(*(t if t is None else t.double() for t in (x, weight, bias)), gradient.double(), by_torch=True)
    for arrange in (Tensor.clone, Tensor.contiguous):  # the latter: channels first
        found = gradients(arrange(x), arrange(weight), bias, arrange(gradient), by_torch=False)
        for tensor in (found[0], found[2]):  # the result, and the weight's gradient
            assert tensor.is_contiguous(memory_format=torch.channels_last)
        for tensor, wanted in zip(found, exact, strict=True):
            assert tensor.dtype == torch.bfloat16 and tensor.equal(wanted.bfloat16())


def test_only_results_are_rounded() -> None:
    drawn = torch.Generator().manual_seed(1)
    x, weight, gradient = (
        torch.randn(shape, generator=drawn).bfloat16() for shape in ((64, 256, 4, 4), (64, 256, 3, 3), (64, 64, 4, 4))
    )
    exact = gradients(x.double(), weight.double(), None, gradient.double(), by_torch=True)
    for found, wanted in zip(gradients(x, weight, None, gradient, by_torch=False), exact, strict=True):
        assert ((found - wanted).norm() / wanted.norm()).item() < 0.002


@pytest.mark.parametrize("shape", [(70, 96, 64, 5, 5), (66, 512, 32, 8, 8), (130, 32, 512, 8, 8)], ids=str)
def test_the_number_of_threads_changes_no_bit(shape: tuple[int, ...]) -> None:
    """The latter two are more images than fit the cache at a time: forth, and back."""
    n, c, k, h, w = shape
    drawn = torch.Generator().manual_seed(1)
    x, weight, bias, gradient = (
        torch.randn(of, generator=drawn).bfloat16() for of in ((n, c, h, w), (k, c, 3, 3), (k,), (n, k, h, w))
    )
    found = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        found.append(gradients(x, weight, bias, gradient, by_torch=False))
    for other in found[1:]:
        assert all(a.equal(b) for a, b in zip(found[0], other, strict=True))


def test_a_number_that_is_none_stays_with_its_image_and_its_neighbours() -> None:
    x, weight = whole(1, 40, 32, 4, 4), whole(2, 32, 32, 3, 3)
    x[3, 5, 0, 0] = torch.nan
    y = matrices.MatrixConvolution.apply(x, weight, None)
    assert isinstance(y, Tensor)
    lost = y.isnan().any(1)
    assert lost[3].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]] and lost.sum() == 4


@pytest.mark.parametrize("needed", [True, False], ids=["needed", "not needed"])
def test_the_images_gradient_is_made_where_somebody_needs_it(needed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    core, asked = kernels.core(), []
    backward = lambda *given: asked.append(given[-2] != 0) or core.matrix_backward(*given)
    monkeypatch.setattr(
        kernels, "core", lambda: SimpleNamespace(matrix_forward=core.matrix_forward, matrix_backward=backward)
    )
    x, conv = whole(1, 2, 32, 4, 4).requires_grad_(needed), nn.Conv2d(32, 64, 3, padding=1).bfloat16()
    matrices.Conv(conv)(x).sum().backward()
    assert asked == [needed] and (x.grad is not None) is needed
    assert conv.weight.grad is not None and conv.bias is not None and conv.bias.grad is not None


def test_a_batch_may_be_empty() -> None:
    x, weight = whole(1, 0, 32, 4, 4).requires_grad_(), whole(2, 64, 32, 3, 3).requires_grad_()
    y = matrices.MatrixConvolution.apply(x, weight, None)
    assert isinstance(y, Tensor) and y.shape == (0, 64, 4, 4)
    y.sum().backward()
    assert weight.grad is not None and weight.grad.eq(0).all()


def test_channels_that_fill_no_tile_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        matrices.MatrixConvolution.apply(whole(1, 2, 48, 4, 4), whole(2, 32, 48, 3, 3), None)


@pytest.mark.parametrize(
    ("conv", "taken"),
    [
        (nn.Conv2d(32, 64, 3, padding=1), True),
        (nn.Conv2d(96, 32, 3, padding=1, bias=False), True),
        (nn.Conv2d(48, 32, 3, padding=1), False),
        (nn.Conv2d(32, 48, 3, padding=1), False),
        (nn.Conv2d(32, 32, 3), False),
        (nn.Conv2d(32, 32, 3, stride=2, padding=1), False),
        (nn.Conv2d(32, 32, 3, padding=1, groups=2), False),
        (nn.Conv2d(32, 32, 3, padding=2, dilation=2), False),
        (nn.Conv2d(32, 32, 3, padding=(1, 0)), False),
        (nn.Conv2d(32, 32, 1), False),
        (nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular"), False),
    ],
    ids=str,
)
def test_which_convolutions_are_taken(conv: nn.Conv2d, taken: bool) -> None:
    assert matrices.fits(conv) is taken


def test_without_a_matrix_unit_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "hardware", lambda device: "the processor's avx512_bf16")
    assert not matrices.fits(nn.Conv2d(32, 32, 3, padding=1))


@pytest.mark.parametrize(("side", "taken"), [(2, True), (8, True), (9, False)])
def test_only_small_images_are_done_so(side: int, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(matrices.MatrixConvolution, "apply", lambda x, weight, bias: asked.append(True) or x)
    matrices.Conv(nn.Conv2d(32, 32, 3, padding=1).bfloat16())(whole(1, 1, 32, side, side))
    assert bool(asked) is taken


def test_vgg_is_arranged_of_them_and_rounds_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(resolve("vgg19").model, (3, 32, 32), 10)
    start, x = draw(network, generator(1)), torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network.load_state_dict(start)
    exact = network(x)

    def error(taken: int) -> float:
        lowered = lowering.lower(network, "cpu", masks.ones(start, groups(network)))
        assert [type(part) for part in lowered.module.children()].count(matrices.Conv) == taken
        for name, value in lowered.parameters.items():
            value.data.copy_(lowered.arranged(name, start[name]))
        found = lowered.module(x.bfloat16().contiguous(memory_format=torch.channels_last))
        return ((found - exact).norm() / exact.norm()).item()

    by_matrices = error(15)
    monkeypatch.setattr(matrices, "fits", lambda conv: False)
    assert by_matrices < 1.5 * error(0)


def test_the_output_layer_stays_float32() -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.Flatten())
    lowered = lowering.lower(network, "cpu", masks.ones(network.state_dict(), ["0.weight", "2.weight"]))
    first, _, last, _ = lowered.module.children()
    assert (type(first), type(last)) == (matrices.Conv, nn.Conv2d)
    x = whole(1, 4, 32, 8, 8)
    found, exact = lowered.module(x), network(x.float())
    assert found.dtype == torch.float32 and ((found - exact).norm() / exact.norm()).item() < 0.01


@pytest.mark.parametrize(("unit", "few"), [(True, 0.02), (False, 0.09)])
def test_below_which_density_sparse_convolutions_gain(unit: bool, few: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "matrix_kernels", lambda: unit)
    of = lambda density: torch.arange(512 * 512 * 9).view(512, 512, 3, 3) < density * 512 * 512 * 9
    assert sparse.gains(of(few)) and not sparse.gains(of(few + 0.02))
    assert sparse.gains(of(0.15).flatten(1))  # a Linear layer's
