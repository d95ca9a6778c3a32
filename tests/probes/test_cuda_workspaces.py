"""What CUDA kernels take for themselves. The bytes are those that torch's allocator was asked for on an H200, unless a comment derives them."""

import pytest
import torch

from benchctl.gpu_models import GPUS, GpuName
from benchctl.probes.prediction.cuda_reductions import reduction_buffers
from benchctl.probes.prediction.cuda_workspaces import kernel_workspaces, thread_workspaces

MIB = 2**20
H200 = GPUS["H200"]
FP32, BF16 = torch.float32, torch.bfloat16
aten = torch.ops.aten
sum_over, mean_over = aten.sum.dim_IntList, aten.mean.dim


def empty(*shape: int, dtype: torch.dtype = FP32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    ("rows", "columns", "dtype", "buffer_mib"),
    [
        # bias gradients of ViT-B: 32 images of 197 tokens
        (6304, 768, BF16, 37.125),
        (6304, 2304, BF16, 111.375),
        (6304, 3072, BF16, 132.0),
        # and of VideoMAE-B: 2 clips of 1568 tokens
        (3136, 768, FP32, 18.375),
        (3136, 3072, FP32, 73.5),
    ],
)
def test_bias_gradients(rows: int, columns: int, dtype: torch.dtype, buffer_mib: float):
    found = reduction_buffers(sum_over, (empty(rows, columns, dtype=dtype), [0], True), H200)
    assert found[0] == buffer_mib * MIB


def test_leading_dimensions_that_are_one_stretch_count_as_one():
    together = reduction_buffers(sum_over, (empty(6304, 768), [0]), H200)
    assert reduction_buffers(sum_over, (empty(32, 197, 768), [0, 1]), H200) == together
    assert reduction_buffers(sum_over, (empty(32, 1, 197, 768), [0, 1, -2]), H200) == together


def test_a_smaller_gpu_takes_less():
    # 84 multiprocessors of 1536 threads: 1008 blocks of 128 threads to fill, over 24 columns of blocks
    assert reduction_buffers(sum_over, (empty(6304, 3072), [0]), GPUS["A6000"])[0] == 4 * 3072 * 42 * 128


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((64, 768), [0]),  # too few rows for a block each
        ((6304, 768), [1]),  # one row a warp
        ((0, 768), [0]),
        ((1, 1), [0]),
        ((1, 768), [0]),
        ((6304, 1_000_000), [0]),  # the columns alone fill the GPU
    ],
)
def test_other_sums_take_nothing(shape: tuple[int, ...], dims: list[int]):
    assert reduction_buffers(sum_over, (empty(*shape), dims), H200) == ()


def test_a_sum_of_everything_ends_in_one_number():
    buffer, counter = reduction_buffers(aten.sum.default, (empty(4096, 4096),), H200)
    assert counter == 4
    assert buffer % 4 == 0
    assert reduction_buffers(mean_over, (empty(4096, 4096), [0, 1]), H200) == (buffer, counter)
    assert reduction_buffers(aten.sum.default, (empty(4096, 4096).to(torch.int64),), H200) == ()


def flat(operator: torch._ops.OpOverload, *args: object, gpu: GpuName = "H200") -> list[list[float]]:
    return [[size / MIB for size in phase] for phase in kernel_workspaces(operator, args, GPUS[gpu])]


def test_attention():
    q = empty(2, 4, 100, 64, dtype=BF16)
    # 100 rows become 128; one softmax sum a row, and float32 gradients of width 64
    assert kernel_workspaces(aten._scaled_dot_product_flash_attention_backward.default, (q, q, q, q), H200) == (
        (2 * 4 * 128 * 4, 2 * 4 * 128 * 64 * 4),
    )
    vit, videomae = empty(32, 12, 197, 64, dtype=BF16), empty(4, 12, 1568, 64, dtype=BF16)
    cudnn = aten._scaled_dot_product_cudnn_attention_backward.default
    efficient = aten._scaled_dot_product_efficient_attention_backward.default
    assert flat(cudnn, vit, vit, vit, vit)[0] == pytest.approx([18.757], abs=1e-3)
    assert flat(efficient, videomae, videomae, videomae, videomae)[0] == pytest.approx([0.287, 18.768], abs=1e-3)
    single = empty(2, 12, 1568, 64)
    product, tiles = flat(efficient, single, single, single, single)
    assert product == pytest.approx([9.1875, 0.144, 0.144], abs=1e-3)
    assert tiles == pytest.approx([0.144, 9.384], abs=1e-3)
    short = empty(2, 12, 64, 64)
    assert len(flat(efficient, short, short, short, short)[1]) == 1


def test_the_gradient_of_softmax_is_a_product_first():
    scores = empty(8, 12, 785, 785)
    assert flat(aten._softmax_backward_data.default, scores, scores, -1, FP32)[0] == pytest.approx([225.668], abs=1e-3)


def test_matrices_that_cublas_cannot_read_are_copied():
    a, b = empty(6, 8), empty(8, 10)
    mm = aten.mm.default
    assert kernel_workspaces(mm, (a, b), H200) == ()
    assert kernel_workspaces(mm, (b.t(), a.t()), H200) == ()
    assert kernel_workspaces(mm, (empty(6, 16)[:, ::2], b), H200) == ((6 * 8 * 4,),)
    assert kernel_workspaces(aten.relu.default, (a,), H200) == ()


def test_workspaces_of_a_thread():
    a, bias = empty(8, 8), empty(8)
    names = [name for name, _ in thread_workspaces(aten.addmm.default, (bias, a, a), H200)]
    assert names == ["cuBLAS workspace", "cuBLASLt workspace"]
    assert [size / MIB for _, size in thread_workspaces(aten.mm.default, (a, a), H200)] == [32]
    assert [size / MIB for _, size in thread_workspaces(aten.mm.default, (a, a), GPUS["A100"])] == [8.125]
    assert list(thread_workspaces(aten.relu.default, (a,), H200)) == []


def convolution(x: torch.Tensor, w: torch.Tensor, stride: int = 1, groups: int = 1) -> list[list[float]]:
    places = x.dim() - 2
    return flat(aten.convolution.default, x, w, None, [stride] * places, [0] * places, [1] * places, False, [0] * places, groups)


def backward(y: torch.Tensor, x: torch.Tensor, w: torch.Tensor, stride: int = 1, mask: tuple[bool, ...] = (True, True, False)):
    places = x.dim() - 2
    return flat(
        aten.convolution_backward.default,
        *(y, x, w, None, [stride] * places, [0] * places, [1] * places, False, [0] * places, 1, mask),
    )


@pytest.mark.parametrize(
    ("x", "w", "stride", "mib"),
    [
        # ResNet-50 in bfloat16: three channels are filled up to eight
        (empty(32, 3, 224, 224, dtype=BF16), empty(64, 3, 7, 7, dtype=BF16), 2, [73.548]),
        (empty(32, 64, 56, 56, dtype=BF16), empty(64, 64, 3, 3, dtype=BF16), 1, [24.571]),
        (empty(32, 256, 56, 56, dtype=BF16), empty(512, 256, 1, 1, dtype=BF16), 2, [73.5]),
        (empty(32, 512, 7, 7, dtype=BF16), empty(2048, 512, 1, 1, dtype=BF16), 1, [7.657]),
        (empty(32, 64, 56, 56, dtype=BF16), empty(64, 64, 1, 1, dtype=BF16), 1, None),
        # R(2+1)D: 45 channels are filled up to 48
        (empty(2, 45, 16, 112, 112), empty(64, 45, 3, 1, 1), 1, [171.536]),
        # patches of a ViT
        (empty(32, 3, 224, 224), empty(768, 3, 16, 16), 16, None),
    ],
)
def test_convolutions(x: torch.Tensor, w: torch.Tensor, stride: int, mib: list[float] | None):
    assert convolution(x, w, stride) == ([] if mib is None else [pytest.approx(mib, abs=2e-3)])


def test_what_convolutions_are_spared():
    x, w = empty(32, 64, 56, 56), empty(64, 64, 3, 3)
    assert convolution(x.contiguous(memory_format=torch.channels_last), w) == []
    assert convolution(x, empty(64, 1, 3, 3), groups=64) == []


def test_gradients_of_convolutions():
    x, w, y = empty(32, 64, 56, 56), empty(64, 64, 3, 3), empty(32, 64, 56, 56)
    inputs, weights = backward(y, x, w)
    assert inputs == pytest.approx([49.141], abs=1e-3)
    assert weights[0] > inputs[0]
    assert backward(y, x, w, mask=(False, True, False)) == [weights]
    pointwise = empty(64, 64, 1, 1)
    assert backward(y, x, pointwise) == [[0.5]]
    # the gradient of a bias is a sum, and of 56 x 56 positions one without a buffer
    assert backward(y, x, pointwise, mask=(False, True, True)) == [[0.5]]
    large = empty(32, 64, 224, 224)
    weights, bias = backward(large, large, pointwise, mask=(False, True, True))
    assert weights == [0.5]
    assert len(bias) == 2
