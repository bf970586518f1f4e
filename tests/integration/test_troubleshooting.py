"""The errors that docs/troubleshooting.md shows are what the program says today."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from bertshrink.cli.app import run
from bertshrink.sources import resolve
from tests.support.tiny import tiny_encoder

PAGE = (Path(__file__).parent.parent.parent / "docs/troubleshooting.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```console\n\$ (bertshrink .+)\n((?:.+\n)+)```", PAGE, re.M)
MEASURED = "--min-cosine 0.9999"
"""Its error holds a figure of the machine that wrote the page."""
EDGE = """model: sentence-transformers/all-MiniLM-L6-v2
data: builtin:pydoc
stages:
  - distill: {layer: 3}
  - exprot
"""
MAILS = (
    "id,a,b,c\n1,first text of a mail,some more text here,x\n2,second text of it,another,y\n3,third one,text too,x\n"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """What the page's commands name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "hub_is_reachable", lambda: False)
    Path("edge.yaml").write_text(EDGE)
    Path("mails.csv").write_text(MAILS)
    for name in ("gpt2", "full", "pickled"):
        Path(name).mkdir()
    Path("gpt2/config.json").write_text(json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    Path("full/notes.txt").write_text("words")
    tiny_encoder("bert", "classification").save(Path("pickled"))
    Path("pickled/model.safetensors").unlink()
    torch.save({"weight": torch.zeros(2)}, "pickled/pytorch_model.bin")
    shutil.rmtree("runs", ignore_errors=True)


def test_the_page_shows_ten_errors():
    assert len(SHOWN) == len(re.findall("^### ", PAGE, re.M)) == 10


@pytest.mark.slow
@pytest.mark.parametrize(("line", "told"), [one for one in SHOWN if MEASURED not in one[0]], ids=lambda text: text[:40])
def test_an_error_is_told_as_the_page_shows(line, told, here, capsys):
    if "--to executorch" in line and importlib.util.find_spec("executorch"):
        pytest.skip("the engine that the page says is missing is installed")
    run(shlex.split(line)[1:])
    assert capsys.readouterr().err.endswith(told)
