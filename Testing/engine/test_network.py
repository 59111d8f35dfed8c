"""The network: shapes, size, field of view, memory."""

import dataclasses

import numpy as np
import pytest
from benchmarks import network_size

from crossmoda import network
from crossmoda.errors import InputError

SMALL = network.Settings(width=0.25)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("size", [(16, 32, 32), (7, 19, 22)])
def test_logits_have_the_size_of_the_input_whatever_it_is(torch, preset, size):
    model = network.build(network.Settings(preset=preset, width=0.25)).eval()
    with torch.inference_mode():
        logits = model(torch.rand(2, 12, *size))
    assert logits.shape == (2, 3, *size)
    assert torch.isfinite(logits).all()


def test_the_factorized_depthwise_filter_equals_the_3d_convolution(torch):
    from crossmoda.network.layers import FactorizedDepthwise

    torch.manual_seed(0)
    for stride, dilation in [
        ((1, 1, 1), (1, 1, 1)),
        ((2, 2, 2), (1, 1, 1)),
        ((1, 2, 2), (1, 1, 1)),
        ((1, 1, 1), (2, 3, 4)),
    ]:
        ours = FactorizedDepthwise(8, stride, dilation).double()
        features = torch.randn(2, 8, 9, 11, 13, dtype=torch.double)
        kernel = ours.axis.weight.unsqueeze(-1) * ours.plane.weight.unsqueeze(2)
        expected = torch.nn.functional.conv3d(features, kernel, None, stride, dilation, dilation, groups=8)
        torch.testing.assert_close(ours(features), expected)


def test_unfolded_pixels_follow_torchs_pixel_shuffle_in_the_plane(torch):
    from crossmoda.network.layers import unfold_pixels

    logits = torch.randn(2, 12, 5, 6, 7)
    expected = torch.nn.functional.pixel_shuffle(logits.transpose(1, 2), 2).transpose(1, 2)
    assert torch.equal(unfold_pixels(logits, (1, 2, 2)), expected)


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_the_receptive_field_is_how_far_gradients_reach(torch, preset):
    """Positive weights and tiny inputs keep units in their linear part: gradients vanish only outside the field."""
    from crossmoda.network.layers import DeepLab

    settings = network.Settings(preset=preset, width=0.125)
    plan = dataclasses.replace(network.architecture(settings), pooling=False)
    model = DeepLab(plan).eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(1 / weights[0].numel() if weights.ndim > 1 else 1e-3)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.weight.fill_(1.0)
    for axis in (0, 2):
        expected = round(network_size.receptive_field_mm(settings, spacing_zyx=(1, 1, 1))[axis])
        size, center = [16, 16, 16], [8, 8, 8]
        size[axis] = expected + 19
        features = torch.full((1, 12, *size), 0.01, requires_grad=True)
        logits = model(features)
        reached = 0
        for offset in range(8):  # the field depends on the position between the strides
            center[axis] = expected // 2 + 1 + offset
            (gradient,) = torch.autograd.grad(logits[(0, 1, *center)], features, retain_graph=True)
            others = [other for other in range(3) if other != axis]
            seen = np.flatnonzero(gradient.abs().sum(1)[0].amax(others).numpy() > 0)
            reached = max(reached, seen[-1] - seen[0] + 1)
        assert reached == expected


def test_the_default_network_sees_the_neighborhood_of_the_largest_tumor():
    """The largest of 119 tumors in VS-SEG has 10784 mm3: a ball of 27 mm; the field shows it and what surrounds it."""
    assert min(network_size.receptive_field_mm()) > 2 * 27


def test_an_inverted_residual_has_the_parameters_counted_by_hand(torch):
    from crossmoda.network.layers import InvertedResidual

    block = InvertedResidual(24, 144, 32, (1, 1, 1), (1, 1, 1), factorized=False)
    by_hand = 24 * 144 + 144 * 27 + 144 * 32 + 2 * (144 + 144 + 32)
    assert sum(weights.numel() for weights in block.parameters()) == by_hand
    assert (
        network_size.parameter_count(SMALL)
        < network_size.parameter_count()
        < network_size.parameter_count(network.Settings("paper"))
    )
    assert network_size.parameter_count() * 2 < 10 * 2**20  # bundled as 16-bit floats in at most 10 MB


def test_memory_for_training_counts_what_the_backward_pass_keeps(torch):
    size, kept = (8, 32, 32), {}
    model = network.build(SMALL)

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.rand(1, 12, *size))
    saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    estimate = network_size.memory(SMALL, size)
    assert estimate.training == pytest.approx(saved + 4 * estimate.weights, rel=0.15)
    assert estimate.weights == sum(item.nbytes for item in model.state_dict().values())
    assert estimate.inference < estimate.training


def test_memory_of_the_published_crop_fits_a_gpu_of_8_gib():
    for preset in ("default", "paper"):
        assert network_size.memory(network.Settings(preset)).training < 8 * 2**30


def test_importing_the_settings_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, crossmoda.network; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_width_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"width must be 0.125 to 4; got 9"):
        network.Settings(width=9)
