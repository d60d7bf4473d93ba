"""The walk through a tower's file sees what ONNX Runtime would see."""

from pathlib import Path

import pytest
from onnx import TensorProto, helper

from contract.errors import BundleError
from contract.graph import check_tower

GRAPH, MESSAGE = 7, 2


def number(value: int) -> bytes:
    """As a protocol buffer writes it."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(rest) if rest else bytes([low])


def field(key: int, content: bytes) -> bytes:
    return number(key) + number(len(content)) + content


@pytest.mark.parametrize("bit", [32, 35, 63])
def test_a_key_whose_low_bits_are_those_of_a_graph_is_refused(tmp_path: Path, bit: int) -> None:
    graph = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    key = GRAPH << 3 | MESSAGE
    disguised = field(key | 1 << bit, graph.SerializeToString()) + field(key, b"")
    path = tmp_path / "tower.onnx"
    path.write_bytes(disguised)

    with pytest.raises(BundleError, match=r"tower\.onnx: not an ONNX model: a field has the key"):
        check_tower(path)
