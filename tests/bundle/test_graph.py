"""A model that reads other files, or holds other operators than ONNX's, is refused before any runtime opens it."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from untrained_bundle import write_bundle

from mlcls.bundle.graph import check_graph


def model_of(*nodes: onnx.NodeProto, **more: object) -> onnx.ModelProto:
    """A model that adds a constant to its input, after the nodes given."""
    constant = numpy_helper.from_array(np.ones(3, np.float32), "one")
    vector = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    graph = helper.make_graph(
        [*nodes, helper.make_node("Add", ["x", "one"], ["y"])], "graph", [vector], [out], [constant]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], **more)


def outside(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """The tensor with its numbers in a file, as ONNX writes it."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    return tensor


def in_an_initializer() -> onnx.ModelProto:
    model = model_of()
    outside(model.graph.initializer[0])
    return model


def in_a_constant() -> onnx.ModelProto:
    value = outside(numpy_helper.from_array(np.ones(3, np.float32)))
    return model_of(helper.make_node("Constant", [], ["c"], value=value))


def in_a_branch() -> onnx.ModelProto:
    branch = in_a_constant().graph
    return model_of(helper.make_node("If", ["b"], ["c"], then_branch=branch, else_branch=branch))


def in_a_sparse_one() -> onnx.ModelProto:
    model = model_of()
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(outside(numpy_helper.from_array(np.ones(3, np.float32), "s")))
    return model


def in_a_function() -> onnx.ModelProto:
    node = in_a_constant().graph.node[0]
    function = helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 18)])
    return model_of(helper.make_node("f", [], ["c"], domain="own"), functions=[function])


def in_training() -> onnx.ModelProto:
    model = model_of()
    model.training_info.add().algorithm.CopyFrom(in_a_constant().graph)
    return model


def only_the_place() -> onnx.ModelProto:
    """Without the mark that the data are elsewhere."""
    model = in_an_initializer()
    model.graph.initializer[0].ClearField("data_location")
    return model


@pytest.mark.parametrize(
    "make",
    [
        *(in_an_initializer, in_a_constant, in_a_branch, in_a_sparse_one),
        *(in_a_function, in_training, only_the_place),
    ],
)
def test_weights_in_other_files_are_refused(make: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(ValueError, match="keeps weights outside of itself"):
        check_graph(make().SerializeToString())


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "evil"])
def test_operators_of_others_are_refused(domain: str) -> None:
    node = helper.make_node("Run", ["x"], ["c"], domain=domain)
    with pytest.raises(ValueError, match=f"uses the operator 'Run' of '{domain}'"):
        check_graph(model_of(node).SerializeToString())
    branch = model_of(node).graph
    nested = model_of(helper.make_node("If", ["b"], ["c"], then_branch=branch, else_branch=branch))
    with pytest.raises(ValueError, match="uses the operator"):
        check_graph(nested.SerializeToString())


def test_functions_that_the_model_defines_are_its_own() -> None:
    function = helper.make_function(
        "own", "f", ["x"], ["c"], [helper.make_node("Abs", ["x"], ["c"])], [helper.make_opsetid("", 18)]
    )
    own = helper.make_node("f", ["x"], ["c"], domain="own")
    check_graph(model_of(own, functions=[function]).SerializeToString())
    other = helper.make_node("g", ["x"], ["c"], domain="own")
    with pytest.raises(ValueError, match="uses the operator 'g' of 'own'"):
        check_graph(model_of(other, functions=[function]).SerializeToString())


def test_graphs_within_graphs_end(tmp_path: Path) -> None:
    def field(number: int, value: bytes) -> bytes:
        length, size = len(value), b""
        while length > 0x7F:
            size += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + value

    graph = b""
    for _ in range(200):
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(ValueError, match="within each other without end"):
        check_graph(b"\x08\x0a" + field(7, graph))


@pytest.mark.parametrize(
    "start", [b"", b"ORTM", b"\x00\x00\x00\x00ORTM", b"<net name='x'>", b"\x12\x05other"]
)
def test_other_formats_are_refused(start: bytes) -> None:
    with pytest.raises(ValueError, match="does not begin as an ONNX model does"):
        check_graph(start)


def test_any_bytes_are_a_model_or_a_sentence(tmp_path: Path) -> None:
    """Cut, changed and random ones: no other error, and none takes long."""
    write_bundle(tmp_path / "bundle")
    whole = (tmp_path / "bundle" / "model.onnx").read_bytes()
    check_graph(whole)
    small, chance = model_of().SerializeToString(), random.Random(0)
    cases = [small[:end] for end in range(len(small))]
    for _ in range(2000):
        changed = bytearray(small)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(1, len(changed))] = chance.randrange(256)
        cases.append(bytes(changed))
    cases += [b"\x08" + chance.randbytes(chance.randint(0, 60)) for _ in range(1000)]
    refused = 0
    for case in cases:
        try:
            check_graph(case)
        except ValueError:
            refused += 1
    assert refused > len(cases) // 2
