"""PyTorch weights to an int8 ONNX file, once, in a process of its own.

The process keeps PyTorch out of the application, the first time too. It holds a file lock, so that of several
processes that ask at once one converts and the others find the result; the result appears under its name with one
rename, so that nobody sees half of it.

    python -m aicache.embedders._export SOURCE TARGET
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from aicache._errors import EmbedderError, MissingExtraError
from aicache.embedders._digest import file_sha256
from aicache.embedders._folder import CONFIGURATION, WEIGHTS, read_folder
from aicache.embedders._installed import is_installed

__all__ = ["convert", "converted_folder"]

RECIPE: Final = "int8-2"
"""Part of the folder's name: another way of converting gets another folder."""

NEEDED: Final = ("torch", "transformers", "onnx", "onnxruntime", "filelock")

OPSET: Final = 17

PROBES: Final = (
    "How do I reset my password?",
    "Cancel",
    "The parcel that I ordered three weeks ago has not arrived; where is it now, and can I still change the address?",
)
"""Texts of different lengths, to see that the exported graph did not keep the length it was traced with."""

LEAST_COSINE: Final = 0.97
"""Between the vectors of PyTorch and of the result, for each probe. MiniLM measures .992 to .996 on them."""


def converted_folder(source: Path, name: str, cache: Path) -> Path:
    """Where the conversion of these weights is kept. The same weights have the same folder, wherever they lie."""
    digest = file_sha256(source / WEIGHTS, cache / "digests")
    return cache / "models" / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}-{digest[:12]}-{RECIPE}"


def convert(source: Path, name: str, cache: Path, say: Callable[[str], None]) -> Path:
    """The folder of the converted model; converts it if nobody has.

    Args:
        source: the folder with `model.safetensors` and its configuration.
        name: what the model is called in messages and in the folder's name.
        cache: the folder of the cache.
        say: told about the beginning and the end of a conversion.

    Raises:
        MissingExtraError: PyTorch or `onnx` is not installed.
        EmbedderError: the conversion failed.
    """
    target = converted_folder(source, name, cache)
    if read_folder(target) is not None:
        return target
    if not all(map(is_installed, NEEDED)):
        raise MissingExtraError(f"converting {name} to ONNX", "offline")
    say(f"aicache: converting {name} to ONNX, once (about half a minute) ...")
    started = time.monotonic()
    _run_apart(source, target, name)
    model = read_folder(target)
    if model is None:
        raise EmbedderError(f"converting {name} to ONNX left no model: remove {target} and try again")
    size = model.onnx.stat().st_size / 1e6
    say(f"aicache: converted {name} in {time.monotonic() - started:.0f} s, {size:.0f} MB")
    return target


def _run_apart(source: Path, target: Path, name: str) -> None:
    # The application's own import path, for it may have been extended; -P keeps the working folder out of it.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-m", "aicache.embedders._export", str(source), str(target)]
    try:
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise EmbedderError(f"converting {name} to ONNX could not start: run python -m aicache.prepare") from error
    if done.returncode != 0:
        failure = EmbedderError(f"converting {name} to ONNX failed: run python -m aicache.prepare to see why")
        failure.add_note(done.stderr[-4000:])
        raise failure


# ------------------------------------------------------------------------------- in the process of its own


def _convert_here(source: Path, target: Path) -> bool:
    """Convert, unless another process has; whether it was this one."""
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    # The lock is taken before PyTorch is imported: whoever comes second waits cheaply.
    with FileLock(target.with_name(f".{target.name}.lock")):
        if read_folder(target) is not None:
            return False
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".converting-") as scratch:
            made = Path(scratch) / "model"
            _copy_configuration(source, made)
            _export_and_quantise(source, made)
            shutil.rmtree(target, ignore_errors=True)  # Left by hand or by a disk fault: it is no model.
            made.replace(target)
    return True


def _copy_configuration(source: Path, made: Path) -> None:
    for name in CONFIGURATION:
        if (source / name).is_file():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, made / name)


def _export_and_quantise(source: Path, made: Path) -> None:
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import AutoModel

    # Eager attention is plain matrix products; the fused kind does not export everywhere.
    model = AutoModel.from_pretrained(
        source, attn_implementation="eager", use_safetensors=True, local_files_only=True, trust_remote_code=False
    ).eval()
    plain = made.with_name("plain.onnx")
    axes = {0: "batch", 1: "sequence"}
    # No attention mask: texts are embedded one by one, so none is padded.
    torch.onnx.export(
        _token_vectors(torch, model),
        (torch.ones(2, 7, dtype=torch.long),),
        str(plain),
        input_names=["input_ids"],
        output_names=["last_hidden_state"],
        dynamic_axes={"input_ids": axes, "last_hidden_state": axes},
        opset_version=OPSET,
        dynamo=False,  # The newer exporter needs one package more, onnxscript.
    )
    # A scale per channel: with one per matrix, MiniLM's cosine to fp32 is .969 instead of .993 (measured).
    quantize_dynamic(plain, made / "model_int8.onnx", per_channel=True, weight_type=QuantType.QInt8)
    _check(torch, model, made)


def _token_vectors(torch: Any, model: Any) -> Any:
    """The model as a module from token ids to token vectors, which is what the exporter takes."""

    class TokenVectors(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any) -> Any:
            return self.model(input_ids=ids).last_hidden_state

    return TokenVectors().eval()  # The exporter restores the mode it found, also in the model inside.


def _check(torch: Any, model: Any, made: Path) -> None:
    """Compare the result with the original, text by text."""
    import numpy
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(made / "tokenizer.json"))
    tokenizer.no_padding()
    session = InferenceSession(made / "model_int8.onnx", providers=["CPUExecutionProvider"])
    for probe in PROBES:
        ids = numpy.array([tokenizer.encode(probe).ids], dtype=numpy.int64)
        ours = session.run(None, {"input_ids": ids})[0][0].mean(0)
        with torch.no_grad():
            theirs = model(input_ids=torch.from_numpy(ids)).last_hidden_state[0].mean(0).numpy()
        cosine = float(ours @ theirs / numpy.linalg.norm(ours) / numpy.linalg.norm(theirs))
        if not cosine >= LEAST_COSINE:
            raise EmbedderError(f"the converted model is off by too much (cosine {cosine:.3f}): use an fp32 ONNX file")


def _main() -> None:
    source, target = map(Path, sys.argv[1:3])
    warnings.simplefilter("ignore")  # Deprecations inside PyTorch; what matters is checked.
    with contextlib.redirect_stdout(sys.stderr):
        was_here = _convert_here(source, target)
    sys.stdout.write("converted\n" if was_here else "found\n")


if __name__ == "__main__":
    _main()
