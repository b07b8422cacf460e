"""The sums of Dice and cross-entropy: Triton and PyTorch against the definition in float64."""

import math

import pytest
import torch

from scanseg.errors import InputError, UsageError
from scanseg.ops._support.triton import MISSING
from scanseg.ops.segmentation_sums import BACKENDS, segmentation_sums
from scanseg.ops.segmentation_sums.triton_backend import MOST_OUTPUTS, _gradient, _sum, refuses

from .precision import assert_accurate, poisoned, relative_errors, run

pytest.importorskip("triton", reason=str(MISSING))
from scanseg.ops.segmentation_sums import triton_launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DIFFERENTIABLE = ("overlap", "predicted", "cross_entropy")
NAMES = (*DIFFERENTIABLE, "actual", "counted")
backends = pytest.mark.parametrize("backend", BACKENDS)
formats = pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
no_float64 = pytest.mark.skipif(DEVICE == "cuda", reason="no float64 on the GPU")

FORMS = {
    "classes": {"groups": [(0,), (1,), (2,)], "regions": False},
    "classes in another order": {
        "groups": [(0,), (2,), (1,)],
        "regions": False,
        "weights": [0.5, 2.0, 0.0],
        "ignore_label": 3,
        "squared": True,
        "over_batch": False,
        "first_output": 1,
    },
    "weighted classes": {"groups": [(0,), (1,), (2,)], "regions": False, "weights": [1.0, 3.0, 0.25]},
    "classes with ignored voxels": {
        "groups": [(0,), (1,), (2,)],
        "regions": False,
        "ignore_label": 3,
        "first_output": 1,
    },
    "regions": {"groups": [(1, 2), (2,), (0, 1)], "regions": True},
    "weighted regions of many labels": {
        "groups": [(1, 31, 33, 95), (33,), (0, 31, 64)],
        "regions": True,
        "weights": [1.0, 3.0, 0.25],
        "ignore_label": 255,
        "squared": True,
        "over_batch": False,
    },
}
forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture(params=["one tile a program", "many small tiles"])
def tiling(request, monkeypatch):
    """Process small maps in one tile, or by chunks of tiles like large maps."""
    if request.param == "many small tiles":
        monkeypatch.setattr(triton_launch, "SUM", triton_launch.Tile(16, 1))
        monkeypatch.setattr(triton_launch, "GRADIENT", triton_launch.Tile(32, 1))
        monkeypatch.setattr(triton_launch, "COMBINE", triton_launch.Tile(8, 1))
        monkeypatch.setattr(triton_launch, "NUM_PROGRAMS", 7)
    return request.param


def labels_of(form):
    found = sorted({label for group in form["groups"] for label in group})
    return found if form.get("ignore_label") is None else [*found, form["ignore_label"]]


def make_inputs(generator, form, *, shape=(2, 3, 5, 7), dtype=torch.float32, channels_last=True, scale=3.0):
    """Make logits and a label map with every label of a form, if enough voxels exist."""
    logits = (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)
    if channels_last:
        logits = logits.movedim(1, -1).contiguous().movedim(-1, 1)
    values = torch.tensor(labels_of(form))
    size = (shape[0], *shape[2:])
    chosen = torch.arange(math.prod(size))[torch.randperm(math.prod(size), generator=generator)] % len(values)
    return logits.to(DEVICE), values[chosen].view(size).to(torch.uint8).to(DEVICE)


def summing(label_map, form, backend):
    """Return an operator that concatenates the sums with gradients."""

    def operator(inputs):
        sums = segmentation_sums(inputs["logits"], label_map, **form, backend=backend)
        return torch.cat([getattr(sums, name).flatten() for name in DIFFERENTIABLE])

    return operator


def definition(label_map, form):
    """Return a function that computes the formulas in the operator's docstring over lists of voxels, by name."""
    form = {
        "weights": None,
        "ignore_label": None,
        "squared": False,
        "over_batch": True,
        "first_output": 0,
    } | form

    def sums(logits):
        x = logits.double().movedim(1, -1).flatten(1, -2)  # (batch, voxel, output)
        labels = label_map.long().flatten(1)
        v = torch.ones_like(labels) if form["ignore_label"] is None else (labels != form["ignore_label"])
        v = v.double()[..., None]
        t = torch.stack([torch.isin(labels, torch.tensor(group)) for group in form["groups"]], -1).double()
        weights = torch.tensor(form["weights"] or [1.0] * x.shape[-1], dtype=torch.float64)
        if form["regions"]:
            p = 1 / (1 + torch.exp(-x))
            losses = -(t * torch.log(p) + (1 - t) * torch.log(1 - p)) * weights / weights.sum()
            counted = v.sum()
        else:
            p = torch.exp(x) / torch.exp(x).sum(-1, keepdim=True)
            losses = -t * torch.log(p) * weights
            counted = (v * t * weights).sum()
        first = form["first_output"]
        rows = {
            "overlap": (v * p * t).sum(1),
            "predicted": (v * p ** (2 if form["squared"] else 1)).sum(1),
            "actual": (v * t).sum(1),
        }
        if form["over_batch"]:
            rows = {name: rows.sum(0, keepdim=True) for name, rows in rows.items()}
        columns = {name: rows[:, first:] for name, rows in rows.items()}
        return {**columns, "cross_entropy": (v * losses).sum(), "counted": counted}

    return sums


@no_float64
@backends
@forms
@formats
def test_values_and_gradients_are_those_of_the_definition(generator, tiling, backend, form, channels_last):
    logits, label_map = make_inputs(generator, form, dtype=torch.float64, channels_last=channels_last)
    leaves = [logits.clone().requires_grad_() for _ in range(2)]
    expected = definition(label_map, form)(leaves[0])
    sums = segmentation_sums(leaves[1], label_map, **form, backend=backend)
    grads = [torch.randn(expected[name].shape, generator=generator).double() for name in DIFFERENTIABLE]
    for name in NAMES:
        torch.testing.assert_close(getattr(sums, name), expected[name].double(), rtol=1e-12, atol=1e-12)
    torch.autograd.backward([expected[name] for name in DIFFERENTIABLE], grads)
    torch.autograd.backward([getattr(sums, name) for name in DIFFERENTIABLE], grads)
    torch.testing.assert_close(leaves[1].grad, leaves[0].grad, rtol=1e-11, atol=1e-12)


@backends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@forms
@formats
def test_accuracy(generator, tiling, backend, dtype, form, channels_last):
    logits, label_map = make_inputs(generator, form, dtype=dtype, channels_last=channels_last)
    operator, reference = summing(label_map, form, backend), summing(label_map, form, "reference")
    grad = torch.randn(reference({"logits": logits}).shape, generator=generator, dtype=torch.float64)
    assert_accurate(operator, reference, {"logits": logits}, grad.to(DEVICE))


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 2, 1, 1), (2, 2, 1, 1, 1), (3, 14, 5, 7), (2, 5, 3, 5, 7), (1, 16, 65), (1, 3, 255)],
    ids=str,
)
@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
@formats
def test_sizes(generator, shape, regions, channels_last):
    form = {"groups": [(number,) for number in range(shape[1])], "regions": regions}
    logits, label_map = make_inputs(generator, form, shape=shape, channels_last=channels_last)
    operator, reference = summing(label_map, form, "triton"), summing(label_map, form, "reference")
    grad = torch.randn(reference({"logits": logits}).shape, generator=generator, dtype=torch.float64)
    assert_accurate(operator, reference, {"logits": logits}, grad.to(DEVICE))


@pytest.mark.parametrize("num_outputs", [33, 256])
@pytest.mark.parametrize("reordered", [False, True])
def test_many_classes(generator, num_outputs, reordered):
    numbers = range(num_outputs)
    form = {
        "groups": [(number,) for number in (reversed(numbers) if reordered else numbers)],
        "regions": False,
    }
    logits, label_map = make_inputs(generator, form, shape=(2, num_outputs, 3, 7))
    operator, reference = summing(label_map, form, "triton"), summing(label_map, form, "reference")
    grad = torch.randn(reference({"logits": logits}).shape, generator=generator, dtype=torch.float64)
    assert_accurate(operator, reference, {"logits": logits}, grad.to(DEVICE))


@backends
@forms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_hard_logits(generator, backend, form, dtype):
    """Probabilities are 0 and 1, and losses are 20 000 per voxel."""
    logits, label_map = make_inputs(generator, form, scale=1.0)
    logits = (logits.sign() * 1e4).to(dtype)
    operator, reference = summing(label_map, form, backend), summing(label_map, form, "reference")
    size = reference({"logits": logits}).shape
    grad = torch.randn(size, generator=generator, dtype=torch.float64).to(DEVICE)
    results = run(operator, {"logits": logits}, grad)
    assert all(bool(tensor.isfinite().all()) for tensor in results.values())
    assert_accurate(operator, reference, {"logits": logits}, grad)


@backends
@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
def test_ignored_voxels_get_no_gradient_and_all_ignored_voxels_give_zero_sums(generator, backend, regions):
    form = {"groups": [(0,), (1,)], "regions": regions, "ignore_label": 2}
    logits, label_map = make_inputs(generator, form, shape=(2, 2, 4, 4))
    label_map[0] = 2
    logits.requires_grad_()
    sums = segmentation_sums(logits, label_map, **form, over_batch=False, backend=backend)
    (sums.overlap.sum() - sums.predicted.sum() / 3 + sums.cross_entropy).backward()
    assert all((getattr(sums, name)[0] == 0).all() for name in ("overlap", "predicted", "actual"))
    assert sums.counted == (label_map != 2).sum()
    ignored = (label_map == 2)[:, None].expand_as(logits)
    assert (logits.grad[ignored] == 0).all()
    assert (logits.grad[~ignored] != 0).all()


@backends
def test_a_class_without_voxels(generator, backend):
    form = {"groups": [(0,), (1,), (2,)], "regions": False, "weights": [1.0, 2.0, 5.0]}
    logits, _ = make_inputs(generator, form)
    label_map = torch.zeros(2, 5, 7, dtype=torch.int64, device=DEVICE)
    sums = segmentation_sums(logits, label_map, **form, backend=backend)
    assert sums.actual.tolist() == [[70.0, 0.0, 0.0]]
    assert sums.overlap[0, 1:].tolist() == [0.0, 0.0]
    assert sums.counted == 70


@backends
@pytest.mark.parametrize("missing", DIFFERENTIABLE)
def test_only_some_of_the_sums_are_needed(generator, backend, missing):
    form = FORMS["classes with ignored voxels"]
    logits, label_map = make_inputs(generator, form)
    grads = []
    for name in (backend, "reference"):
        leaf = logits.clone().requires_grad_()
        sums = segmentation_sums(leaf, label_map, **form, backend=name)
        torch.stack([getattr(sums, key).sum() for key in DIFFERENTIABLE if key != missing]).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_label_maps_of_any_integers(generator, dtype):
    form = FORMS["weighted regions of many labels"]
    logits, label_map = make_inputs(generator, form)
    expected = segmentation_sums(logits, label_map, **form, backend="triton")
    strided = label_map.to(dtype).mT.contiguous().mT
    for result, of_bytes in zip(
        segmentation_sums(logits, strided, **form, backend="triton"), expected, strict=True
    ):
        assert torch.equal(result, of_bytes)


@backends
@formats
def test_dtype_and_memory_format_of_the_gradient_are_those_of_the_logits(generator, backend, channels_last):
    form = FORMS["classes"]
    logits, label_map = make_inputs(
        generator, form, shape=(2, 3, 2, 4, 3), dtype=torch.bfloat16, channels_last=channels_last
    )
    logits.requires_grad_()
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        sums = segmentation_sums(logits, label_map, **form, backend=backend)
    assert {tensor.dtype for tensor in sums} == {torch.float32}
    (sums.overlap.sum() + sums.cross_entropy).backward()
    assert (logits.grad.dtype, logits.grad.stride()) == (torch.bfloat16, logits.stride())


@no_float64
@backends
@forms
def test_strided_logits_in_poisoned_memory(generator, tiling, backend, form):
    logits, label_map = make_inputs(generator, form, dtype=torch.float64)
    operator = summing(label_map, form, backend)
    grad = torch.randn(operator({"logits": logits}).shape, generator=generator, dtype=torch.float64)
    expected = run(summing(label_map, form, "reference"), {"logits": logits}, grad)
    result = run(operator, {"logits": poisoned(logits)}, grad)
    assert max(relative_errors(result, expected).values()) < 1e-12


@formats
def test_part_of_a_map_of_more_channels(generator, channels_last):
    form = FORMS["classes"]
    whole, label_map = make_inputs(generator, form, shape=(2, 9, 4, 5), channels_last=channels_last)
    grad = torch.randn(7, generator=generator, dtype=torch.float64).to(DEVICE)
    operator, reference = summing(label_map, form, "triton"), summing(label_map, form, "reference")
    assert_accurate(operator, reference, {"logits": whole[:, 2:5]}, grad)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_logit_that_is_no_number_is_not_hidden(generator):
    """The scaling of float16 losses depends on it."""
    form = FORMS["classes"]
    for bad in (math.nan, math.inf):
        logits, label_map = make_inputs(generator, form)
        logits[1, 2, 3, 4] = bad
        leaf = logits.requires_grad_()
        sums = segmentation_sums(leaf, label_map, **form, backend="triton")
        assert not any(bool(getattr(sums, name).isfinite().all()) for name in ("overlap", "predicted"))
        sums.predicted.square().sum().backward()
        assert not leaf.grad.isfinite().all()


@no_float64
@backends
@forms
@formats
def test_gradcheck(generator, backend, form, channels_last):
    logits, label_map = make_inputs(
        generator, form, shape=(2, 3, 2, 3), dtype=torch.float64, channels_last=channels_last
    )
    operator = summing(label_map, form, backend)
    torch.autograd.gradcheck(lambda leaf: operator({"logits": leaf}), logits.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(("shape", "over_batch"), [((2, 3, 4, 5), True), ((2, 3, 2, 3, 4), False)])
@formats
def test_passes_opcheck(generator, shape, over_batch, channels_last):
    logits, label_map = make_inputs(
        generator, FORMS["classes"], shape=shape, dtype=torch.bfloat16, channels_last=channels_last
    )
    settings = [
        (None, None, False, None, False, over_batch, 1),
        ([0, 2, 1], [0.5, 1.0, 2.0], False, 2, True, over_batch, 0),
        ([3, 4, 6], [0.2, 0.3, 0.5], True, None, False, over_batch, 0),
    ]
    for options in settings:
        torch.library.opcheck(_sum, (logits.clone().requires_grad_(), label_map, *options))
        overlap, predicted, _, cross_entropy, _ = _sum(logits, label_map, *options)
        torch.library.opcheck(
            _gradient, (logits, label_map, overlap, predicted, torch.ones_like(cross_entropy), *options)
        )


def test_results_are_the_same_each_time(generator, tiling):
    form = FORMS["classes"]
    logits, label_map = make_inputs(generator, form, shape=(2, 3, 11, 9), dtype=torch.bfloat16)
    operator = summing(label_map, form, "triton")
    grad = torch.ones(7, device=DEVICE)
    first, second = run(operator, {"logits": logits}, grad), run(operator, {"logits": logits}, grad)
    assert all(torch.equal(first[name], second[name]) for name in first)


@backends
@forms
def test_compiles_without_graph_breaks(generator, backend, form):
    logits, label_map = make_inputs(generator, form)
    operator = summing(label_map, form, backend)
    grad = torch.randn(operator({"logits": logits}).shape, generator=generator).to(DEVICE)
    torch.compiler.reset()
    compiled = torch.compile(operator, backend="aot_eager", fullgraph=True)
    errors = relative_errors(run(compiled, {"logits": logits}, grad), run(operator, {"logits": logits}, grad))
    assert max(errors.values()) < 1e-6


def test_tensors_without_data():
    logits = torch.empty(2, 3, 4, 5, device="meta", requires_grad=True)
    sums = segmentation_sums(
        logits, torch.empty(2, 4, 5, dtype=torch.uint8, device="meta"), **FORMS["classes"]
    )
    assert sums.overlap.shape == (1, 3)
    (sums.overlap.sum() + sums.cross_entropy).backward()
    assert logits.grad.shape == logits.shape


def test_the_error_names_wrong_arguments(generator):
    form = FORMS["classes"]
    logits, label_map = make_inputs(generator, form)
    with pytest.raises(
        InputError,
        match=r"label_map: expected shape \(2, 5, 7\), got \(2, 4, 7\).*groups: expected 3, .*got 2",
    ):
        segmentation_sums(logits, label_map[:, 1:], groups=[(0,), (1,)], regions=False)
    with pytest.raises(InputError, match=r"expected one label in each, got \[\(0,\), \(1, 2\), \(3,\)\]"):
        segmentation_sums(logits, label_map, groups=[(0,), (1, 2), (3,)], regions=False)
    with pytest.raises(
        InputError,
        match=r"expected at least one label in each.*first_output: expected one of 3 outputs.*got 3",
    ):
        segmentation_sums(logits, label_map, groups=[(0,), (), (3,)], regions=True, first_output=3)
    with pytest.raises(
        InputError, match=r"expected an integer dtype, got torch.float32; weights: expected 3, .*got 1"
    ):
        segmentation_sums(logits, label_map.float(), **form, weights=[1.0])
    with pytest.raises(InputError, match=r"logits: expected .*got torch.float32 of shape \(2, 3\)"):
        segmentation_sums(logits[..., 0, 0], label_map[:, 0, 0], **form)
    with pytest.raises(UsageError, match=r"one of the backends triton, reference, got 'fast'"):
        segmentation_sums(logits, label_map, **form, backend="fast")
    with pytest.raises(UsageError, match="got a tensor on meta"):
        segmentation_sums(logits.to("meta"), label_map.to("meta"), **form, backend="triton")


def test_more_outputs_than_fit_go_to_pytorch(generator):
    number = MOST_OUTPUTS + 1
    form = {"groups": [(label,) for label in range(number)], "regions": True}
    logits, label_map = make_inputs(generator, form, shape=(1, number, 3))
    assert refuses(logits, label_map) == "expected at most 256 outputs, got 257"
    assert segmentation_sums(logits, label_map, **form).overlap.shape == (1, number)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
def test_maps_of_a_large_patch_on_a_gpu(dtype, regions):
    """The depth is a third of that at which the loss was the peak of a step, so that float64 fits too."""
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)
    form = {"groups": [(number,) for number in range(14)], "regions": regions, "ignore_label": 14}
    shape = (2, 14, 16, 160, 224)
    logits = (3 * torch.randn(shape, generator=generator, device=device)).to(
        dtype, memory_format=torch.channels_last_3d
    )
    label_map = torch.randint(15, (2, *shape[2:]), generator=generator, device=device).to(torch.uint8)
    grad = torch.randn(29, generator=generator, device=device, dtype=torch.float64)
    operator, reference = summing(label_map, form, "triton"), summing(label_map, form, "reference")
    assert_accurate(operator, reference, {"logits": logits}, grad)


@pytest.mark.gpu
def test_no_copy_of_the_logits_on_a_gpu():
    """At 2 x 14 x 48 x 160 x 224 a float32 copy is 193 MB. The sums add no such tensor, backward only the gradient."""
    logits = torch.randn(2, 14, 48, 160, 224, device="cuda", dtype=torch.bfloat16).to(
        memory_format=torch.channels_last_3d
    )
    logits.requires_grad_()
    label_map = torch.randint(14, (2, 48, 160, 224), device="cuda", dtype=torch.uint8)
    form = {"groups": [(number,) for number in range(14)], "regions": False}
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    sums = segmentation_sums(logits, label_map, **form)
    assert torch.cuda.max_memory_allocated() - before < 2**21
    (sums.overlap.sum() + sums.cross_entropy).backward()
    assert torch.cuda.max_memory_allocated() - before < logits.numel() * 2 + 2**21


@pytest.mark.gpu
def test_a_cuda_graph_records_it():
    generator = torch.Generator("cuda").manual_seed(0)
    form = FORMS["classes in another order"]
    logits = torch.randn(2, 3, 9, 33, 17, generator=generator, device="cuda", requires_grad=True)
    label_map = torch.randint(4, (2, 9, 33, 17), generator=generator, device="cuda")

    def learn():
        sums = segmentation_sums(logits, label_map, **form)
        return torch.autograd.grad((sums.overlap / (sums.predicted + 1)).sum() + sums.cross_entropy, logits)[
            0
        ]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        learn()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = learn()
    with torch.no_grad():
        logits.normal_(generator=generator)
        label_map.random_(4, generator=generator)
    graph.replay()
    assert torch.equal(result, learn())
