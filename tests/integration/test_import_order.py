"""Native packages in one process: none may take the interpreter down."""

import subprocess
import sys

import pytest

GRAPH_THEN_MODEL = """
import struct
from aicache.stores._vectors import VectorIndex
index = VectorIndex(2, exact_limit=1)
for label in range(8):
    index.add(label, struct.pack("<2f", 1.0, 0.0))
assert "usearch" in __import__("sys").modules
import onnxruntime
"""


def test_onnxruntime_may_be_imported_after_a_graph_was_built() -> None:
    pytest.importorskip("usearch", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    done = subprocess.run([sys.executable, "-c", GRAPH_THEN_MODEL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
