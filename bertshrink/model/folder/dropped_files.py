"""What is in a model's folder and does not go along into what is made of it: told, unless it is known to say nothing.

    goes along     config.json, the tokenizer's files, and what sentence-transformers reads (see `side_files`)
    says nothing   the same model in other formats, papers of its training, texts for people, pictures, code
    is named       anything else: thresholds, names of classes, templates, which nothing stock reads

Standard library only.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from bertshrink.errors import listed
from bertshrink.model.folder.sentence_modules import MODULES, OF_TRANSFORMER, SETTINGS

_OF_SENTENCES = (MODULES, SETTINGS, *OF_TRANSFORMER)
_GOES_ALONG = (
    *("config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model"),
    *("chat_template*", "bpe.codes"),
)
_SAYS_NOTHING = (
    *("model*.safetensors*", "pytorch_model*", "model*.bin", "tf_model*", "flax_model*", "rust_model*", "*.onnx*"),
    *("*.ort", "*.pte", "*.pt", "*.pth", "*.ot", "*.h5", "*.msgpack", "*.mlmodel", "onnx", "openvino*", "executorch"),
    *("training_args.bin", "optimizer*", "scheduler*", "scaler*", "rng_state*", "trainer_state.json", "checkpoint-*"),
    *("*results*.json", "*results*.txt", "*results*.csv", "eval*", "runs", "logs", "*.log", "train_script.py", "*.py"),
    *("README*", "*.md", "LICENSE*", "NOTICE*", "CITATION*", ".*", "*.png", "*.jpg", "*.svg", "*.html"),
    *("generation_config.json", "preprocessor_config.json", "data_config.json", "reference_vectors.json"),
    *("MANIFEST.json", "bertshrink.json", "stage.json", "report.*", "recipe.yaml", "artifact.json"),
)


def left_behind(folder: Path, *, is_sentence: bool) -> list[str]:
    """A sentence that names what is left in a model's folder; none where nothing is.

    Args:
        is_sentence: whether what sentence-transformers reads goes along.
    """
    known = (*_GOES_ALONG, *_SAYS_NOTHING, *(_OF_SENTENCES if is_sentence else ()))
    names = []
    for path in sorted(folder.iterdir()):
        is_module = path.is_dir() and fnmatch(path.name, "[0-9]*_*")
        if not any(fnmatch(path.name, pattern) for pattern in known) and not (is_module and is_sentence):
            names.append(f"`{path.name}`")
    if not names:
        return []
    return [f"not carried over, because the stock class for this task does not use it: {listed(names, 5)}"]
