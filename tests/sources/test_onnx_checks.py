"""ONNX files from elsewhere: looked at in a child process, refused for what they are, the parent alive."""

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bertshrink.cli.app import run
from bertshrink.errors import UnsafeModel, UserError
from bertshrink.files.atomic import seal
from bertshrink.files.headers import MAX_ENDS, MAX_NODES, MAX_STORED
from bertshrink.files.safe_open import open_plain
from bertshrink.files.scratch_folder import folder_of_process
from bertshrink.model.artifact import Artifact
from bertshrink.onnx_graph.canonicalize import canonicalise
from bertshrink.onnx_graph.constant_folding import computed
from bertshrink.onnx_graph.encoder_graph import array, initializers, read_model, tensor
from bertshrink.sources import import_external as external
from bertshrink.sources import probe_child, resolve
from bertshrink.sources.onnx_checks import check_structure
from bertshrink.sources.probe_process import (
    COMMAND,
    probe_again_in_subprocess,
    probe_in_subprocess,
    read_header_in_subprocess,
)
from tests.support.onnx_files import (
    OPSETS,
    ROWS,
    encoder_model,
    encoder_parts,
    files_of,
    hub_cache,
    onnx_folder,
    outside,
)

OWN = (*OPSETS, helper.make_opsetid("own", 1))


def refused(folder, name="model.onnx"):
    """What is said of a file in `folder` when it is looked at; nothing of it stays."""
    target = folder / "target.onnx"
    with pytest.raises(UnsafeModel) as caught:
        probe_in_subprocess(folder / name, target)
    assert caught.value.where
    return caught.value.what


def look_here(path, tmp_path):
    """The same look, in this process: what the child would say, without its start."""
    target = tmp_path / "looked.onnx"
    with pytest.raises(UnsafeModel) as caught:
        probe_child.look(path, target)
    return caught.value.what


@pytest.fixture(autouse=True)
def no_limits_here(monkeypatch, capsys):
    monkeypatch.setattr(probe_child, "limit", lambda num_bytes: None)


def write(folder, model):
    data = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "model.onnx").write_bytes(data)
    return folder / "model.onnx"


# what serves


@pytest.mark.subprocess
def test_a_whole_file_is_seen_and_copied_byte_for_byte(tmp_path):
    path = write(tmp_path, encoder_model())
    look = probe_in_subprocess(path, tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == path.read_bytes()
    assert look.inputs["input_ids"].type == "int64"
    assert look.outputs["logits"].shape == (None, 2)
    assert look.shape == (None, None)
    assert (look.vocab_size, look.precision, look.opset) == (ROWS, "float32", 17)


@pytest.mark.subprocess
def test_weights_beside_the_file_are_taken_in(tmp_path):
    plain = encoder_model()
    model, data = outside(plain, offset="64")
    path = write(tmp_path, model)
    (tmp_path / "weights.bin").write_bytes(bytes(64) + data)
    probe_in_subprocess(path, tmp_path / "copy.onnx")
    found = read_model(tmp_path / "copy.onnx")
    for name, stored in initializers(plain).items():
        assert np.array_equal(array(initializers(found)[name]), array(stored))


def test_functions_are_unfolded(tmp_path):
    nodes, weights = encoder_parts()
    nodes[4] = helper.make_node("Bend", ["dense"], ["bent"], domain="own")
    bend = helper.make_function("own", "Bend", ["a"], ["b"], [helper.make_node("Tanh", ["a"], ["b"])], OPSETS)
    path = write(tmp_path, encoder_model(nodes, weights, functions=[bend], opsets=OWN))
    probe_child.look(path, tmp_path / "copy.onnx")
    found = read_model(tmp_path / "copy.onnx")
    assert not found.functions
    assert "Tanh" in {node.op_type for node in found.graph.node}


# what is refused, and how


def test_other_kinds_of_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.onnx", "w") as archive:
        archive.writestr("data.pkl", "x")
    (tmp_path / "pickle.onnx").write_bytes(pickle.dumps({"weight": 1}))
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.onnx").write_bytes(b"no model at all" * 9)
    (tmp_path / "lfs.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    (tmp_path / "folder.onnx").mkdir()
    os.mkfifo(tmp_path / "pipe.onnx")
    with (tmp_path / "huge.onnx").open("wb") as file:
        file.truncate(2**31 + 10)
    expected = {
        "zip": "zip archive",
        "pickle": "a pickle",
        "empty": "is empty",
        "text": "not an ONNX file, or is damaged",
        "lfs": "git LFS",
        "folder": "is a folder",
        "pipe": "is not a regular file",
        "huge": "larger than 2 GB",
        "missing": "is missing",
    }
    said = {name: look_here(tmp_path / f"{name}.onnx", tmp_path) for name in expected}
    assert [name for name in expected if expected[name] not in said[name]] == []


def test_every_cut_is_refused(tmp_path):
    whole = encoder_model().SerializeToString()
    for cut in range(1, len(whole), len(whole) // 40):
        look_here(write(tmp_path, whole[:cut]), tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_weights_that_no_model_has(value, tmp_path):
    nodes, weights = encoder_parts()
    weights["weight"][3, 4] = value
    assert "the weight `weight` holds" in look_here(write(tmp_path, encoder_model(nodes, weights)), tmp_path)


def test_flipped_bits_are_refused_or_the_model_still_runs(tmp_path):
    whole = bytearray(encoder_model().SerializeToString())
    rng, kept = np.random.default_rng(0), 0
    for place in rng.integers(0, len(whole), size=60):
        whole[place] ^= 1 << int(rng.integers(8))
        path = write(tmp_path, bytes(whole))
        try:
            probe_child.look(path, tmp_path / "looked.onnx")
            kept += 1
        except UnsafeModel as error:
            assert error.what
        whole = bytearray(encoder_model().SerializeToString())
    assert 0 < kept < 60  # most bytes are weights, where another mantissa is just another weight


@pytest.mark.subprocess
def test_a_flipped_bit_in_a_sealed_artifact_is_always_refused(tmp_path):
    folder = external.import_external(onnx_folder(tmp_path / "m") / "model.onnx")
    ours = shutil.copytree(folder, tmp_path / "ours")
    seal(ours)
    data = bytearray((ours / "onnx/model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (ours / "onnx/model.onnx").write_bytes(data)
    assert run(["inspect", str(ours)]) == 5


def test_shapes_that_contradict_each_other(tmp_path):
    nodes, weights = encoder_parts()
    weights["weight"] = weights["weight"][:5]
    assert "not valid ONNX" in look_here(write(tmp_path, encoder_model(nodes, weights)), tmp_path)
    model = encoder_model()
    model.graph.initializer[0].dims[0] += 1
    assert "a size that does not match its type and shape" in look_here(write(tmp_path, model), tmp_path)
    model.graph.initializer[0].dims[0] = 2**60
    look_here(write(tmp_path, model), tmp_path)
    model = encoder_model()
    model.graph.node[3].op_type = "MatMull"
    assert "not valid ONNX" in look_here(write(tmp_path, model), tmp_path)


def test_other_kinds_of_models(tmp_path):
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["b", 3, 8, 8])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    kernel = tensor(np.ones((4, 3, 3, 3), np.float32), "kernel")
    nodes = [helper.make_node("Conv", ["pixel_values", "kernel"], ["y"])]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 4, 6, 6])
    image = helper.make_model(
        helper.make_graph(nodes, "g", [pixels], [output], [kernel]), opset_imports=OPSETS, ir_version=8
    )
    assert "its inputs are `pixel_values`" in look_here(write(tmp_path, image), tmp_path)
    nodes, weights = encoder_parts()
    nodes[0] = helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT)
    nodes.insert(1, helper.make_node("Unsqueeze", ["floats", "last"], ["column"]))
    nodes.insert(2, helper.make_node("Mul", ["column", "one_row"], ["rows"]))
    weights["one_row"] = weights.pop("table")[:1]
    assert probe_child.look(write(tmp_path, encoder_model(nodes, weights)), tmp_path / "a.onnx")["vocab_size"] is None
    nodes, weights = encoder_parts()
    nodes[3] = helper.make_node("Identity", ["rows"], ["dense"])
    nodes[-1] = helper.make_node("Identity", ["sum"], ["logits"])
    assert probe_child.look(write(tmp_path, encoder_model(nodes, weights)), tmp_path / "b.onnx")["vocab_size"] == ROWS
    model = encoder_model(inputs=("input_ids", "attention_mask", "bbox"))
    assert "an input `bbox`" in look_here(write(tmp_path, model), tmp_path)


def test_operators_from_elsewhere(tmp_path):
    nodes, weights = encoder_parts()
    nodes[4] = helper.make_node("Bend", ["dense"], ["bent"], domain="com.example")
    opsets = (*OPSETS, helper.make_opsetid("com.example", 1))
    said = look_here(write(tmp_path, encoder_model(nodes, weights, opsets=opsets)), tmp_path)
    assert "`Bend` of `com.example`" in said


# bombs


def chain(length, width=1):
    """A model whose functions call each other, each the next one `width` times."""
    functions = []
    for i in range(length):
        calls = [helper.make_node("Relu", ["a"], ["b"])]
        if i < length - 1:
            names = ["a", *(f"v{n}" for n in range(1, width)), "b"]
            calls = [helper.make_node(f"F{i + 1}", [a], [b], domain="own") for a, b in itertools.pairwise(names)]
        functions.append(helper.make_function("own", f"F{i}", ["a"], ["b"], calls, OWN))
    nodes, weights = encoder_parts()
    nodes[4] = helper.make_node("F0", ["dense"], ["bent"], domain="own")
    return encoder_model(nodes, weights, functions=functions, opsets=OWN)


def test_functions_without_end(tmp_path):
    with pytest.raises(UnsafeModel, match="more than 32 deep"):
        check_structure(chain(3000))
    with pytest.raises(UnsafeModel, match=f"more than {MAX_NODES} nodes"):
        check_structure(chain(30, width=3))
    circle = chain(2)
    circle.functions[1].node[0].CopyFrom(helper.make_node("F0", ["a"], ["b"], domain="own"))
    with pytest.raises(UnsafeModel, match="in a circle"):
        check_structure(circle)
    check_structure(chain(20))


def nested(depth):
    """Branches inside each other."""
    output = helper.make_tensor_value_info(f"o{depth}", TensorProto.FLOAT, ["b", "l", 8])
    if depth == 0:
        return helper.make_graph([helper.make_node("Tanh", ["dense"], ["o0"])], "inner", [], [output])
    other = helper.make_graph([helper.make_node("Tanh", ["dense"], [f"o{depth}"])], "other", [], [output])
    inner = nested(depth - 1)
    node = helper.make_node("If", ["flag"], [f"o{depth}"], then_branch=inner, else_branch=other)
    return helper.make_graph([node], "outer", [], [output])


@pytest.mark.parametrize(("depth", "match"), [(6, "6 deep"), (60, "is nested deeper|damaged")])
def test_branches_without_end(depth, match, tmp_path):
    model = encoder_model()
    bytes_of = model.SerializeToString()
    if depth < 20:
        (node,) = nested(depth).node
        nodes, weights = encoder_parts()
        nodes[4] = node
        node.output[0] = "bent"
        weights["flag"] = np.array(True)
        bytes_of = encoder_model(nodes, weights).SerializeToString()
    else:  # deeper than protobuf itself writes: the same bytes, wrapped by hand
        field = b""
        for _ in range(depth):
            graph = b"\x0a" + varint(len(field)) + field  # GraphProto.node
            attribute = b"\x32" + varint(len(graph)) + graph  # AttributeProto.g
            field = b"\x2a" + varint(len(attribute)) + attribute  # NodeProto.attribute
        graph = b"\x0a" + varint(len(field)) + field
        bytes_of = b"\x3a" + varint(len(graph)) + graph  # ModelProto.graph
    assert any(word in look_here(write(tmp_path, bytes_of), tmp_path) for word in match.split("|"))


def varint(number):
    found = b""
    while number >= 128:
        found += bytes([number % 128 + 128])
        number //= 128
    return found + bytes([number])


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("ConstantOfShape", {"a": np.array([2**20, 2**20, 2**20])}),
        ("Expand", {"a": np.float32([1]), "b": np.array([2**30, 2**30])}),
        ("Tile", {"a": np.float32([[1]]), "b": np.array([2**30, 2**30])}),
        ("Range", {"a": np.int64(0), "b": np.int64(2**62), "c": np.int64(1)}),
        ("Add", {"a": np.ones((2**20, 1), np.float32), "b": np.ones((1, 2**20), np.float32)}),
        ("MatMul", {"a": np.ones((2**20, 1), np.float32), "b": np.ones((1, 2**20), np.float32)}),
        ("OneHot", {"a": np.array([1]), "b": np.array(2**40), "c": np.array([0, 1])}),
        ("Range", {"a": np.int64(0), "b": np.int64(9), "c": np.int64(0)}),
        ("Gather", {"a": np.ones(3), "b": np.array([9])}),
    ],
)
def test_what_would_be_giant_is_not_computed(kind, stored):
    node = helper.make_node(kind, list(stored), ["giant"])
    assert computed(node, stored) is None
    nodes, weights = encoder_parts()
    nodes += [node, helper.make_node("Size", ["giant"], ["logits2"])]
    model = encoder_model(nodes, weights | stored, outputs=("logits", "logits2"))
    assert kind in {node.op_type for node in canonicalise(model).graph.node}


def test_what_is_small_is_computed_as_the_reference_does():
    for kind, feeds, expected in (
        ("ConstantOfShape", [np.array([2, 3])], np.zeros((2, 3), np.float32)),
        ("Expand", [np.float32([[1], [2]]), np.array([2, 3])], np.float32([[1, 1, 1], [2, 2, 2]])),
        ("Range", [np.int64(1), np.int64(7), np.int64(3)], np.array([1, 4])),
        ("Gather", [np.array([5, 6, 7]), np.array([[2, 0]])], np.array([[7, 5]])),
    ):
        names = [f"x{i}" for i in range(len(feeds))]
        found = computed(helper.make_node(kind, names, ["y"]), dict(zip(names, feeds, strict=True)))
        assert np.array_equal(found, expected), kind


@pytest.mark.subprocess
def test_memory_without_end_ends_the_child_only(tmp_path):
    nodes, weights = encoder_parts()
    weights |= {"giant": np.array([2**14, 2**14, 2**9]), "none": np.array([0, 0, 0])}
    nodes[5:5] = [
        helper.make_node("Cast", ["bent"], ["as_ints"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["as_ints"], ["number"], keepdims=0),
        helper.make_node("Mul", ["number", "none"], ["zeros"]),
        helper.make_node("Add", ["zeros", "giant"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["filled"]),
        helper.make_node("ReduceMax", ["filled"], ["highest"], keepdims=0),
    ]
    nodes[11] = helper.make_node("Mul", ["bent", "highest"], ["hidden"])
    del nodes[1:3]
    path = write(tmp_path, encoder_model(nodes, weights))
    what = refused(tmp_path)
    assert path.exists()
    assert "ONNX Runtime cannot run the file" in what or "memory" in what or "was ended by" in what


# the child dies, the parent does not


@pytest.mark.subprocess
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGKILL", "SIGXCPU", "SIGILL", "SIGFPE"])
def test_death_by_any_signal_is_a_refusal(name, tmp_path):
    write(tmp_path, encoder_model())
    code = f'import os, signal; print(\'{{"at": "reading it"}}\', flush=True); os.kill(os.getpid(), signal.{name})'
    with pytest.raises(UnsafeModel, match=f"was ended by {name} while reading it"):
        probe_in_subprocess(tmp_path / "model.onnx", tmp_path / "t.onnx", (sys.executable, "-c", code))


@pytest.mark.subprocess
def test_a_child_that_says_nothing_is_a_refusal(tmp_path):
    write(tmp_path, encoder_model())
    for code, match in (("pass", "exit code 0"), ("print('{')", "exit code 0"), ("1/0", "exit code 1")):
        with pytest.raises(UnsafeModel, match=match):
            probe_in_subprocess(tmp_path / "model.onnx", tmp_path / "t.onnx", (sys.executable, "-c", code))


@pytest.mark.subprocess
def test_a_chain_that_onnx_runtime_dies_of(tmp_path):
    """Without the check of its depth, the file reaches ONNX Runtime, which overruns its stack: in the child."""
    write(tmp_path, chain(3000))
    code = (
        "import sys; from bertshrink.sources import onnx_checks, probe_child; from pathlib import Path;"
        "onnx_checks.MAX_CALLS = 10**6; probe_child.step('running it in ONNX Runtime');"
        "import onnxruntime; onnxruntime.InferenceSession(sys.argv[2], providers=['CPUExecutionProvider'])"
    )
    with pytest.raises(UnsafeModel, match=r"was ended by SIG.* while running it in ONNX Runtime"):
        probe_in_subprocess(tmp_path / "model.onnx", tmp_path / "t.onnx", (sys.executable, "-c", code))
    assert "more than 32 deep" in refused(tmp_path)


@pytest.mark.subprocess
def test_the_child_imports_no_other_engine():
    code = "import bertshrink.sources.probe_child, bertshrink.sources.onnx_checks, sys;"
    code += "print([m for m in ('torch', 'transformers', 'onnxruntime', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert COMMAND[0] == sys.executable


# weights outside


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "sub/w.bin", "..", "", "missing.bin", "."])
def test_weights_outside_the_folder(location, tmp_path):
    folder = tmp_path / "m"
    (folder / "sub").mkdir(parents=True)
    model, data = outside(encoder_model(), location)
    for place in (tmp_path, folder / "sub"):
        (place / "w.bin").write_bytes(data)
    what = look_here(write(folder, model), tmp_path)
    assert "not a file beside it" in what or "is missing" in what


def test_weights_behind_links(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    model, data = outside(encoder_model())
    path = write(folder, model)
    (tmp_path / "w.bin").write_bytes(data)
    (folder / "weights.bin").symlink_to(tmp_path / "w.bin")
    assert "is a link to" in look_here(path, tmp_path)
    (folder / "weights.bin").unlink()
    os.link(tmp_path / "w.bin", folder / "weights.bin")
    assert "a hard link" in look_here(path, tmp_path)
    (tmp_path / "w.bin").unlink()
    probe_child.look(path, tmp_path / "fine.onnx")


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "8"},
        {"offset": "-8"},
        {"length": "8"},
        {"length": "-1"},
        {"length": "99999999999999999999"},
        {"offset": "x"},
        {"offset": str(2**62)},
    ],
)
def test_weights_beyond_their_file(entries, tmp_path):
    model, data = outside(encoder_model(), **entries)
    path = write(tmp_path, model)
    (tmp_path / "weights.bin").write_bytes(data)
    assert "`weight`" in look_here(path, tmp_path)


def test_one_file_read_a_thousand_times_is_too_much(tmp_path):
    model, data = outside(encoder_model())
    path = write(tmp_path, model)
    (tmp_path / "weights.bin").write_bytes(data)
    probe_child.look(path, tmp_path / "fine.onnx")
    for i in range(3):
        twin = model.graph.initializer.add()
        twin.CopyFrom(next(value for value in model.graph.initializer if value.name == "weight"))
        twin.name, twin.dims[:] = f"twin{i}", [2**14, 2**14]
        next(entry for entry in twin.external_data if entry.key == "length").value = str(2**30)
    path = write(tmp_path, model)
    with (tmp_path / "weights.bin").open("ab") as file:
        file.truncate(2**30)
    assert "the files beside the model hold 1073741824" in look_here(path, tmp_path)


# links and the hub's cache


@pytest.mark.subprocess
def test_a_hub_caches_own_links_are_followed(tmp_path):
    model, data = outside(encoder_model(), "model.onnx_data")
    given = onnx_folder(tmp_path / "given", model)
    (given / "model.onnx_data").write_bytes(data)
    snapshot = hub_cache(tmp_path / "hub", files_of(given))
    folder = resolve.locate_model(str(snapshot))
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert folder_of_process().stat().st_mode & 0o777 == 0o700
    weight = initializers(read_model(folder / "onnx/model.onnx"))["weight"]
    assert weight.raw_data == data


@pytest.mark.subprocess
def test_a_hub_file_in_its_onnx_folder_finds_its_tokenizer_above(tmp_path):
    given = files_of(onnx_folder(tmp_path / "given"))
    given["onnx/model.onnx"] = given.pop("model.onnx")
    snapshot = hub_cache(tmp_path / "hub", given)
    assert (resolve.locate_model(str(snapshot / "onnx" / "model.onnx")) / "tokenizer.json").is_file()
    assert (resolve.locate_model(str(snapshot)) / "tokenizer.json").is_file()


@pytest.mark.subprocess
def test_a_blob_with_other_bytes_is_refused(tmp_path):
    given = files_of(onnx_folder(tmp_path / "given"))
    snapshot = hub_cache(tmp_path / "hub", given)
    for name in ("model.onnx", "config.json"):
        blob = (snapshot / name).resolve()
        good = blob.read_bytes()
        blob.write_bytes(good + b" ")
        with pytest.raises(UnsafeModel, match="does not match the hub's hash"), open_plain(snapshot / name):
            pass
        blob.write_bytes(good)
        with open_plain(snapshot / name) as file:
            assert file.read() == good


@pytest.mark.subprocess
def test_links_that_are_no_hub_caches_are_refused(tmp_path):
    given = files_of(onnx_folder(tmp_path / "given"))
    snapshot = hub_cache(tmp_path / "hub", given)
    other = hub_cache(tmp_path / "hub", given, "models--org--other")
    blob = (other / "model.onnx").resolve()
    (tmp_path / "secret").write_text("secret")
    path = snapshot / "model.onnx"
    own_blob = path.resolve()
    unhashed = own_blob.with_name("unhashed")
    unhashed.write_bytes(b"x")
    chained = own_blob.with_name("0" * 64)
    chained.symlink_to(tmp_path / "secret")
    for target in (blob, tmp_path / "secret", chained, unhashed, snapshot / "config.json", "/etc/hostname", path):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(UnsafeModel), open_plain(path):
            pass
    path.unlink()
    path.symlink_to(own_blob)
    with open_plain(path):
        pass
    blobs = own_blob.parent
    blobs.rename(tmp_path / "moved")
    blobs.symlink_to(tmp_path / "moved")
    with pytest.raises(UnsafeModel, match="is a link to"), open_plain(path):
        pass


@pytest.mark.subprocess
@pytest.mark.parametrize("name", ["vocab.txt", "config.json", "tokenizer.json"])
def test_small_files_behind_links_are_refused(name, tmp_path):
    folder = onnx_folder(tmp_path / "m")
    (tmp_path / "private").write_text('{"secret": 1}')
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "private")
    with pytest.raises(UnsafeModel, match="is a link to"):
        resolve.locate_model(str(folder))


@pytest.mark.subprocess
def test_a_refusal_leaves_nothing(tmp_path):
    folder = onnx_folder(tmp_path / "m", b"no model")
    shelf = folder_of_process().parent
    before = set(shelf.iterdir())
    for _ in range(2):
        with pytest.raises(UnsafeModel):
            resolve.locate_model(str(folder))
    assert set(shelf.iterdir()) == before


@pytest.mark.subprocess
def test_remote_code_is_refused(tmp_path):
    folder = onnx_folder(tmp_path / "m", auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(UnsafeModel, match="auto_map"):
        resolve.locate_model(str(folder))


# by the command line


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A file that is quantized already."""
    nodes, weights = encoder_parts()
    weights["bytes"] = np.ones((8, 8), np.int8)
    weights["step"] = np.float32(0.1)
    nodes[3:4] = [
        helper.make_node("DequantizeLinear", ["bytes", "step"], ["weight_now"]),
        helper.make_node("MatMul", ["rows", "weight_now"], ["dense"], "dense"),
    ]
    del weights["weight"]
    return onnx_folder(tmp_path_factory.mktemp("q") / "m", encoder_model(nodes, weights))


def spoilt(name, folder):
    """Folders that must not serve, by what is wrong with them."""
    match name:
        case "empty":
            return onnx_folder(folder, b"")
        case "cut":
            return onnx_folder(folder, encoder_model().SerializeToString()[:-20])
        case "chain":
            return onnx_folder(folder, chain(3000))
        case "outside":
            return onnx_folder(folder, outside(encoder_model(), "../../etc/passwd")[0])
    return onnx_folder(folder)


@pytest.mark.subprocess
@pytest.mark.parametrize("name", ["empty", "cut", "chain", "outside"])
def test_exit_code_5_and_nothing_written(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoilt(name, tmp_path / "m")
    assert run(["quantize", "m/model.onnx", "-o", "out"]) == 5
    assert run(["inspect", "m"]) == 5
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "runs").glob("*/01*")) if (tmp_path / "runs").exists() else True
    assert "hint:" in capsys.readouterr().err


@pytest.mark.subprocess
def test_what_is_quantized_is_not_quantized_again(quantized, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["inspect", str(quantized), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"]["precision"] == "int8"
    assert run(["quantize", str(quantized), "-o", "out", "--quiet"]) == 5
    assert "already quantized" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.subprocess
def test_a_folder_named_like_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.onnx").mkdir()
    assert run(["quantize", "x.onnx", "-o", "out"]) == 5
    assert run(["quantize", "absent.onnx", "-o", "out"]) == 2
    assert "there is no model folder `absent.onnx`" in capsys.readouterr().err


@pytest.mark.subprocess
def test_an_artifact_folder_without_its_manifest_is_looked_at(tmp_path):
    made = external.import_external(onnx_folder(tmp_path / "m") / "model.onnx")
    ours = shutil.copytree(made, tmp_path / "ours")
    assert resolve.locate_model(str(ours)) not in (ours, made)
    seal(ours)
    assert resolve.locate_model(str(ours)) == ours
    (ours / "MANIFEST.json").write_text('{"files": {}}')
    with pytest.raises(UnsafeModel, match="was added"):
        resolve.locate_model(str(ours))
    (ours / "MANIFEST.json").unlink()
    assert resolve.locate_model(str(ours)) != ours
    (ours / "onnx/model.onnx").write_bytes(b"")
    with pytest.raises(UnsafeModel, match="empty"):
        resolve.locate_model(str(ours))


def resealed(tmp_path, model):
    """A folder of ours whose file somebody has replaced, seal and all."""
    made = external.import_external(onnx_folder(tmp_path / "m") / "model.onnx")
    ours = tmp_path / "ours"
    shutil.copytree(made, ours)
    (ours / "onnx/model.onnx").write_bytes(model.SerializeToString())
    seal(ours)
    return ours


@pytest.mark.subprocess
def test_a_sealed_file_that_never_ends_is_run_apart(tmp_path, monkeypatch):
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("go_in", "state_in")],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_in_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in_out", TensorProto.FLOAT, None),
        ],
    )
    model = encoder_model()
    model.graph.node[-1].output[0] = "first"
    model.graph.initializer.append(numpy_helper.from_array(np.array(10**18), "forever"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
    model.graph.node.append(helper.make_node("Loop", ["forever", "go", "first"], ["logits"], body=body))
    ours = resealed(tmp_path, model)
    assert resolve.locate_config(str(ours)) == ours, "nothing is run for a plan"
    code = "import sys; from bertshrink.sources import probe_child as c, probe_limits; probe_limits._BASE_S = 4;"
    code += "c.main(*sys.argv[1:])"
    monkeypatch.setattr(
        resolve, "probe_again_in_subprocess", lambda file: probe_again_in_subprocess(file, (sys.executable, "-c", code))
    )
    with pytest.raises(UnsafeModel, match="was ended by SIGXCPU while running it in ONNX Runtime"):
        resolve.locate_model(str(ours))


@pytest.mark.subprocess
@pytest.mark.parametrize("kind", ["nodes", "stored", "ends", "no output"])
def test_a_graph_that_is_out_of_all_proportion(tmp_path, kind):
    model = encoder_model()
    if kind == "nodes":
        model.graph.node.extend([helper.make_node("Identity", ["rows"], [f"x{i}"]) for i in range(MAX_NODES)])
    elif kind == "stored":
        one = numpy_helper.from_array(np.zeros(1, dtype=np.float32))
        model.graph.initializer.extend([one] * MAX_STORED)
    elif kind == "ends":
        model.graph.node.append(helper.make_node("Concat", ["rows"] * MAX_ENDS, ["much"], axis=0))
    else:
        model.graph.node.append(helper.make_node("Constant", [], [], value_float=1.0))
        model.graph.node.append(helper.make_node("Constant", [], [], value=numpy_helper.from_array(np.zeros(1))))
    write(tmp_path, model)
    if kind != "no output":
        with pytest.raises(UnsafeModel, match="far more than an encoder needs"):
            read_header_in_subprocess(tmp_path / "model.onnx")
    assert ("more than an encoder needs" in refused(tmp_path)) == (kind != "no output")


@pytest.mark.subprocess
def test_a_missing_tokenizer_is_asked_for(tmp_path):
    folder = onnx_folder(tmp_path / "m")
    (folder / "tokenizer.json").unlink()
    artifact = Artifact.load(resolve.locate_model(str(folder / "model.onnx")))
    with pytest.raises(UserError, match="no tokenizer beside the model file") as caught:
        artifact.tokenize(["a text"])
    assert "`tokenizer.json`" in caught.value.hint
