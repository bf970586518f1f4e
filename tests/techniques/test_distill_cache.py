"""The teacher cache: what is read is what was computed, and what is torn or stale is never read."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bertshrink.errors import CheckFailed, OutputError
from bertshrink.techniques.distill import teacher_cache
from bertshrink.techniques.distill.teacher import Answers, Wanted
from bertshrink.techniques.distill.teacher_cache import META, ROWS, CachedTeacher, note_of

H = 8


class Live:
    """Answers that depend on the tokens alone, and count how many rows were asked."""

    def __init__(self, width=5, per_token=False, scale=1.0):
        torch.manual_seed(0)
        self.module = torch.nn.Linear(3, 2)
        self.layers = torch.nn.ModuleList()
        self.module.config = SimpleNamespace(to_json_string=lambda use_diff: "{}")
        self.width, self.per_token, self.scale, self.asked = width, per_token, scale, 0

    def __call__(self, inputs, rows_B):
        ids = inputs["input_ids"].float()
        self.asked += len(ids)
        seed_BL1 = torch.sin(ids * 12.9898).unsqueeze(-1)
        of_token = self.scale * torch.sin(seed_BL1 * torch.arange(1, self.width + 1) * 3.7)
        of_row = (of_token * inputs["attention_mask"].unsqueeze(-1)).sum(dim=1)
        states = {n: torch.cos(seed_BL1 * torch.arange(1, H + 1) * (n + 1.5)) for n in (1, 3)}
        return Answers({"logits": of_token if self.per_token else of_row}, states)


def rows_of(lengths=(3, 5, 2, 4)):
    return [{"input_ids": [10 * i + j + 1 for j in range(n)]} for i, n in enumerate(lengths)]


def batch_of(rows, numbers):
    longest = max(len(rows[i]["input_ids"]) for i in numbers)
    ids = torch.zeros(len(numbers), longest, dtype=torch.long)
    for at, i in enumerate(numbers):
        ids[at, : len(rows[i]["input_ids"])] = torch.tensor(rows[i]["input_ids"])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}, torch.tensor(numbers)


def cached(live, root, rows=None, **more):
    settings = {"per_token": live.per_token, "conditions": {"arithmetic": "float32"}} | more
    wanted = settings.pop("wanted", Wanted(outputs=True, states=(1, 3)))
    return CachedTeacher(live, wanted, rows or rows_of(), root=root, **settings)


@pytest.mark.parametrize("per_token", [False, True])
def test_second_epoch_asks_nobody_and_gives_the_same(tmp_path, per_token):
    live, rows = Live(per_token=per_token), rows_of()
    teacher = cached(live, tmp_path)
    for numbers in ([0, 2], [3, 1]):
        teacher(*batch_of(rows, numbers))
    assert live.asked == 4
    inputs, numbers = batch_of(rows, [1, 0, 3])  # other batches than the first epoch's
    found, wanted = teacher(inputs, numbers), Live(per_token=per_token)(inputs, None)
    assert live.asked == 4
    mask = inputs["attention_mask"].bool()
    for number in (1, 3):
        assert torch.allclose(found.states[number][mask], wanted.states[number][mask], atol=1e-3)
        assert not found.states[number][~mask].any()
    if per_token:
        assert torch.allclose(found.outputs["logits"][mask], wanted.outputs["logits"][mask], atol=1e-3)
    else:
        assert torch.equal(found.outputs["logits"], wanted.outputs["logits"])


def test_another_process_and_another_student_read_it(tmp_path):
    rows = rows_of()
    cached(Live(), tmp_path)(*batch_of(rows, [0, 1, 2, 3]))
    live = Live()
    again = cached(live, tmp_path)
    again(*batch_of(rows, [0, 1, 2, 3]))
    assert live.asked == 0
    assert "0 of 4 rows were computed in this run" in note_of(again)[-1]


@pytest.mark.parametrize("change", ["flip", "cut", "zero"])
def test_torn_records_are_made_anew(tmp_path, change):
    batch = batch_of(rows_of(), [0, 1, 2, 3])
    first = cached(Live(), tmp_path)
    right = first(*batch)
    path, start = first.folder / ROWS, int(first.starts_N1[2])
    data = bytearray(path.read_bytes())
    if change == "flip":
        data[start + 9] ^= 4
    elif change == "zero":
        data[start : int(first.starts_N1[3])] = bytes(int(first.starts_N1[3]) - start)
    else:
        del data[start + 9 :]
    path.write_bytes(data)
    live = Live()
    again = cached(live, tmp_path)
    found = again(*batch)
    assert live.asked == (2 if change == "cut" else 1)
    assert torch.equal(found.outputs["logits"], right.outputs["logits"])
    assert torch.equal(found.states[3], right.states[3])
    assert (again.rebuilt is not None) == (change == "cut")


@pytest.mark.parametrize(
    "meta", ["", "[1]", '{"widths": {"logits": 9}, "per_token": true, "num_states": 2, "hidden_size": 8}']
)
def test_damaged_description_is_made_anew(tmp_path, meta):
    rows, batch = rows_of(), batch_of(rows_of(), [0, 1, 2, 3])
    right = cached(Live(), tmp_path)(*batch)
    (path,) = tmp_path.glob(f"*/{META}")
    path.write_text(meta)
    again = cached(Live(), tmp_path)
    found = again(*batch)
    assert torch.equal(found.outputs["logits"], right.outputs["logits"])
    assert again.rebuilt is not None and again.rebuilt in note_of(again)
    live = Live()
    cached(live, tmp_path, rows)(*batch)
    assert live.asked == 0


def test_whatever_decides_the_answers_names_another_store(tmp_path):
    changed = Live()
    with torch.no_grad():
        changed.module.weight[0, 0] += 1e-6
    layered = Live()
    layered.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    other_config = Live()
    other_config.module.config = SimpleNamespace(to_json_string=lambda use_diff: '{"act": "relu"}')
    folders = [
        cached(Live(), tmp_path).folder,
        cached(changed, tmp_path).folder,
        cached(layered, tmp_path).folder,
        cached(other_config, tmp_path).folder,
        cached(Live(), tmp_path, rows_of((3, 5, 2, 5))).folder,
        cached(Live(), tmp_path, top_k=2).folder,
        cached(Live(), tmp_path, conditions={"arithmetic": "bfloat16"}).folder,
        cached(Live(), tmp_path, wanted=Wanted(outputs=True, states=(1,))).folder,
    ]
    assert len(set(folders)) == len(folders)
    assert cached(Live(), tmp_path).folder == folders[0]


@pytest.mark.parametrize("per_token", [False, True])
def test_top_k_keeps_the_largest_probabilities_and_all_the_mass(tmp_path, per_token):
    live, rows = Live(width=40, per_token=per_token, scale=4.0), rows_of()
    inputs, numbers = batch_of(rows, [0, 1, 2, 3])
    teacher = cached(live, tmp_path, top_k=6)
    found, whole = teacher(inputs, numbers).outputs["logits"], live(inputs, None).outputs["logits"]
    if per_token:
        mask = inputs["attention_mask"].bool()
        found, whole = found[mask], whole[mask]
    ours, theirs = found.softmax(-1), whole.softmax(-1)
    top = theirs.topk(6).indices
    assert torch.allclose(ours.gather(1, top), theirs.gather(1, top), atol=2e-3)
    rest = torch.ones_like(ours).scatter(1, top, 0.0).bool()
    for mine, right, at in zip(ours, theirs, rest, strict=True):
        assert mine[at].sum() == pytest.approx(float(right[at].sum()), abs=2e-3)
        assert torch.allclose(mine[at], mine[at].mean())
    assert teacher.num_bytes < cached(live, tmp_path / "whole")(inputs, numbers).states[1].numel() * 40


def test_one_value_a_token_keeps_its_shape(tmp_path):
    class Spans(Live):
        def __call__(self, inputs, rows_B):
            ids = inputs["input_ids"].float()
            return Answers({"start_logits": ids / 8, "end_logits": -ids / 8})

    live = Spans(per_token=True)
    inputs, numbers = batch_of(rows_of(), [3, 0])
    found = cached(live, tmp_path, wanted=Wanted(outputs=True))(inputs, numbers)
    assert torch.equal(found.outputs["start_logits"], inputs["input_ids"] / 8)
    assert torch.equal(found.outputs["end_logits"], -inputs["input_ids"] / 8)


def test_values_beyond_float16_are_refused(tmp_path):
    with pytest.raises(CheckFailed, match="larger than 65504"):
        cached(Live(per_token=True, scale=1e6), tmp_path)(*batch_of(rows_of(), [0, 1]))


def test_room_on_the_disk_is_asked_for_first(tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OutputError, match="the teacher cache needs"):
        cached(Live(), tmp_path)(*batch_of(rows_of(), [0]))


def test_real_teacher(tmp_path):
    from bertshrink.techniques.distill.teacher import LiveTeacher
    from tests.support.tiny import sentences, tiny_encoder

    encoder = tiny_encoder("bert", "classification")
    rows = encoder.tokenize(sentences(6))
    inputs, numbers = batch_of(rows, [4, 1, 0])
    if "token_type_ids" in rows[0]:
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    wanted = Wanted(outputs=True, states=(2, 4))
    live = LiveTeacher(encoder, wanted)
    teacher = cached_of(live, wanted, rows, tmp_path)
    first, again = teacher(inputs, numbers), teacher(inputs, numbers)
    right = live(inputs, None)
    assert torch.equal(first.outputs["logits"], again.outputs["logits"])
    assert torch.allclose(again.outputs["logits"], right.outputs["logits"].float(), atol=1e-6)
    mask = inputs["attention_mask"].bool()
    assert np.allclose(again.states[4][mask], right.states[4].float()[mask], atol=2e-3)


def cached_of(live, wanted, rows, root):
    return CachedTeacher(live, wanted, rows, per_token=False, root=root, conditions={})
