"""PyTorch as an engine: precisions, compiled programs, and a GPU that is made up."""

import contextlib
import importlib.util
import shutil
import types

import numpy as np
import pytest
import torch

from bertshrink import engines
from bertshrink.engines import DeviceSession, EngineUnavailable, engine, torch_compile, torch_cuda
from bertshrink.engines.torch_cuda import CudaGraphForward, CudaSession, wake
from bertshrink.engines.torch_options import TorchOptions
from bertshrink.engines.torch_session import TorchSession
from tests.support.tiny import tiny_encoder

pytestmark = pytest.mark.usefixtures("one_thread")
FEEDS = {
    "input_ids": np.array([[2, 7, 9, 3], [2, 11, 3, 0]], np.int64),
    "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]], np.int64),
    "token_type_ids": np.zeros((2, 4), np.int64),
}
EMBEDDING = {"auto_class": "AutoModel", "outputs": ["sentence_embedding"], "pooling": ["mean", True]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder")
    tiny_encoder("bert", "embedding", num_hidden_layers=1).save(place)
    return str(place)


def answer(folder, **options):
    session = engine("torch").load(folder, 1, EMBEDDING | options)
    return session, session.run(FEEDS)["sentence_embedding"]


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtpye": "float32"}, "no option `dtpye`"),
        ({"dtype": "float8"}, "dtype is `float8`, and PyTorch takes float32, bfloat16, float16"),
        ({"device": "tpu"}, "device is `tpu`"),
        ({"cuda_graphs": True}, "the device is `cpu`"),
        ({"tf32": True}, "the device is `cpu`"),
        ({"device": "cuda", "cuda_graphs": True, "compile": "reduce-overhead"}, "one of the two"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TorchOptions.read(options)


def test_what_is_not_asked_for_is_float32_on_the_processor():
    assert TorchOptions.read(None) == TorchOptions()
    assert (TorchOptions().dtype, TorchOptions().device, TorchOptions().compile) == ("float32", "cpu", None)


# Precisions and attention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.03), ("float16", 0.005)])
def test_half_precision_is_near_and_says_what_it_is(folder, dtype, tolerance):
    _, exact = answer(folder)
    session, found = answer(folder, dtype=dtype)
    assert session.describe()["precision"] == dtype
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < tolerance


def test_attention_can_be_chosen_and_gives_the_same(folder):
    plain, exact = answer(folder, attention="sdpa")
    other, found = answer(folder, attention="eager")
    assert [session.describe()["attention"] for session in (plain, other)] == ["sdpa", "eager"]
    np.testing.assert_allclose(found, exact, atol=1e-5)


# Compiled -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiler_settings():
    """What compiling changes in this process is set back afterwards."""
    import torch._dynamo.config as dynamo

    with dynamo.patch(recompile_limit=dynamo.recompile_limit, fail_on_recompile_limit_hit=False):
        yield


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.usefixtures("compiler_settings")
def test_a_compiled_model_gives_the_same_with_one_program_for_each_shape(folder, monkeypatch):
    """Traced as it is always, but run without Inductor: making a model's programs takes most of a minute."""
    traced = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda forward, mode, dynamic: traced(forward, backend="eager", dynamic=dynamic)
    )
    _, exact = answer(folder)
    session, found = answer(folder, compile="default")
    np.testing.assert_allclose(found, exact, atol=1e-5)
    before = session.describe()["compiled"]
    assert before["programs"] >= 1
    assert before["breaks"] == 0
    session.run(FEEDS)
    assert session.describe()["compiled"] == before, "the shape is known"
    session.run({name: value[:1] for name, value in FEEDS.items()})
    assert session.describe()["compiled"]["programs"] > before["programs"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.usefixtures("compiler_settings")
def test_a_program_of_inductors_gives_the_same():
    def forward(given):
        return [torch.nn.functional.gelu(given["x"]) * 2]

    program = torch_compile.compiled(forward, "default", "cpu")
    given = {"x": torch.linspace(-1, 1, 12).reshape(3, 4)}
    with torch.inference_mode():
        torch.testing.assert_close(program(given), forward(given))


def test_without_a_compiler_there_is_a_plain_word(folder, monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(EngineUnavailable, match=r"C\+\+ compiler") as caught:
        engine("torch").load(folder, 1, EMBEDDING | {"compile": "default"})
    assert "g++" in caught.value.hint


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="Triton is here")
def test_a_gpu_program_needs_triton():
    with pytest.raises(EngineUnavailable, match="Triton"):
        torch_compile.compiled(lambda given: [], "default", "cuda")


# A GPU, made up -------------------------------------------------------------------------------------------------------


class Graph:
    """Replays what was recorded under it by running it again into the same tensors."""

    def __init__(self, cuda):
        self.cuda = cuda

    def replay(self):
        self.cuda.calls.append("replay")
        for old, new in zip(self.cuda.recorded_outputs, self.cuda.forward(self.cuda.recorded_inputs), strict=True):
            old.copy_(new)


class Cuda:
    """What of `torch.cuda` the engine uses: its clock runs a millisecond and a half for each forward pass."""

    def __init__(self):
        self.calls = []
        self.now_ms = 0.0
        self.allocated = 1000

    def Event(self, enable_timing):
        assert enable_timing
        event = types.SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.now_ms)
        event.elapsed_time = lambda other: other.at - event.at
        return event

    def synchronize(self):
        self.calls.append("synchronize")

    def max_memory_allocated(self):
        return self.allocated

    def max_memory_reserved(self):
        return 2 * self.allocated

    def reset_peak_memory_stats(self):
        self.calls.append("reset")

    def get_device_name(self):
        return "Made-up GPU"

    def is_available(self):
        return False

    def Stream(self):
        return types.SimpleNamespace(wait_stream=lambda other: self.calls.append("wait"))

    current_stream = Stream

    def stream(self, side):
        return contextlib.nullcontext()

    def CUDAGraph(self):
        return Graph(self)

    def graph(self, graph):
        self.calls.append("record")
        return contextlib.nullcontext()


def on_made_up_gpu(**more):
    encoder = tiny_encoder("bert", "embedding", num_hidden_layers=1)
    session = encoder.session()
    assert isinstance(session, TorchSession)
    cuda = Cuda()
    plain = session.plain

    def forward(given):
        cuda.now_ms += 1.5
        return plain(given)

    session.forward = forward
    return CudaSession(session, **({"graphs": False, "tf32": False} | more), cuda=cuda), cuda, encoder


def test_a_pass_is_timed_by_the_gpus_own_clock_between_two_waits():
    session, cuda, encoder = on_made_up_gpu()
    assert isinstance(session, DeviceSession)
    assert not isinstance(encoder.session(), DeviceSession)
    cuda.calls.clear()
    assert session.device_ns(FEEDS) == 1_500_000
    assert cuda.calls == ["synchronize", "synchronize"]
    found, wanted = (each.run(FEEDS)["sentence_embedding"] for each in (session, encoder.session()))
    np.testing.assert_array_equal(found, wanted)


def test_peaks_are_the_allocators_and_are_set_back():
    session, cuda, _ = on_made_up_gpu()
    assert cuda.calls == ["reset"], "what loading took is over"
    assert session.device_peaks() == {"allocated": 1000, "reserved": 2000}
    assert cuda.calls == ["reset", "reset"]


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_set_and_told(tf32):
    try:
        session, _, _ = on_made_up_gpu(tf32=tf32)
        told = session.describe()
        assert (told["tf32"], told["cuda_graphs"], told["device_name"]) == (tf32, False, "Made-up GPU")
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_shape_is_recorded_once_and_replayed_with_what_is_given():
    encoder = tiny_encoder("bert", "embedding", num_hidden_layers=1)
    session, cuda, passes = encoder.session(), Cuda(), []

    def forward(given):
        passes.append(given["attention_mask"].clone())
        cuda.recorded_inputs = given
        return session.plain(given)

    def remember(given):
        cuda.recorded_outputs = forward(given)
        return cuda.recorded_outputs

    cuda.forward = session.plain
    recorded = CudaGraphForward(remember, cuda)
    with torch.inference_mode():
        for feeds in (FEEDS, {name: np.roll(value, 1, axis=0) for name, value in FEEDS.items()}):
            given = session.given(feeds)
            found = [value.clone() for value in recorded(given)]
            torch.testing.assert_close(found, session.plain(given))
    assert cuda.calls.count("record") == 1
    assert cuda.calls.count("replay") == 2
    assert len(passes) == torch_cuda._PASSES_BEFORE_RECORDING + 1
    assert all((mask[:, -1] == 0).all() for mask in passes), "the passes before take the way of a mask with padding"
    with torch.inference_mode():
        recorded(session.given({name: value[:1] for name, value in FEEDS.items()}))
    assert cuda.calls.count("record") == 2, "another shape"


def test_no_gpu_says_which_pytorch_and_what_to_do(folder):
    with pytest.raises(EngineUnavailable, match="no CUDA GPU for PyTorch") as caught:
        wake(Cuda())
    assert "--target cpu" in caught.value.hint
    assert "sees none" in torch_cuda.absence("2.13", "13.0")[0]
    assert "built without CUDA" in torch_cuda.absence("2.13", None)[0]
    if not torch.cuda.is_available():
        with pytest.raises(EngineUnavailable, match="no CUDA GPU"):
            engine("torch").prepare(folder, EMBEDDING | {"device": "cuda"})


def test_onnx_runtime_without_cuda_says_so(tmp_path):
    import onnxruntime

    found = engines.engine("onnxruntime")
    if found.CUDA in onnxruntime.get_available_providers():
        pytest.skip("CUDA's provider is here")
    for call in (lambda: found.prepare("", {"device": "cuda"}), lambda: found.load("m.onnx", 1, {"device": "cuda"})):
        with pytest.raises(EngineUnavailable, match="CUDAExecutionProvider") as caught:
            call()
        assert "onnxruntime-gpu" in caught.value.hint


def test_onnx_runtime_that_falls_back_on_the_processor_is_refused(monkeypatch):
    found = engines.engine("onnxruntime")

    class Fallen:
        def __init__(self, path, settings, providers):
            assert providers[0] == (found.CUDA, {"use_tf32": "0"})

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(found.onnxruntime, "get_available_providers", lambda: [found.CUDA])
    monkeypatch.setattr(found.onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(EngineUnavailable, match="does not start"):
        found.load("m.onnx", 1, {"device": "cuda"})
