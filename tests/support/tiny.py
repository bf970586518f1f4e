"""Tiny models of every family, built in code: random weights, a word-level tokenizer, no network."""

from functools import lru_cache
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from bertshrink.data.texts import Split, TextDataset
from bertshrink.model.checkpoint_info import usual_pooling
from bertshrink.model.encoder import Encoder
from bertshrink.model.families import FAMILIES
from bertshrink.model.tasks import TASKS
from bertshrink.techniques.base import Workbench
from tests.support.families import serves

# fmt: off
WORDS = """
a an and are as at be been but by can code data day did do down each fast find first for from get give good great
had has have he her him his how i if in int into is it its like line list little long look made make many may model
more most my new no not now number of off old on one only or other our out over own part people place quick read
right said same say see set she short slow small so some string than that the their them then there these they this
time to too two under up us use very was way we well were what when where which who will with word work would write
year you your movie film bad terrible wonderful awful love hate best worst boring
""".split()  # noqa: SIM905
# fmt: on
LABELS = {
    "classification": ("negative", "positive"),
    "multi-label": ("place", "time", "person"),
    "token-classification": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}


EACH_FAMILY_AND_TASK = [
    pair for pair in islice(zip(cycle(FAMILIES), cycle(TASKS), strict=False), len(FAMILIES)) if serves(*pair)
]
"""Pairs in which every family and every task comes, each pair one that there is."""


_ROLES = {"bos": "cls", "eos": "sep", "cls": "cls", "sep": "sep", "mask": "mask"}
_AS_PUBLISHED = {
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "mobilebert": {"intra_bottleneck_size": 16, "true_hidden_size": 16, "initializer_range": 0.05},
    "modernbert": {"local_attention": 8},
    "rembert": {"output_embedding_size": 24},
    "squeezebert": {"embedding_size": 32},
    "convbert": {"embedding_size": 32},
}
"""What the configurations of a family's models say besides sizes, or where the class's defaults are large."""


def special_tokens(family: str) -> dict[str, str]:
    return {f"{role}_token": text for role, text in FAMILIES[family].style.special}


@lru_cache
def tiny_tokenizer(family: str = "bert") -> transformers.PreTrainedTokenizerFast:
    special = {"unk_token": "[UNK]"} | special_tokens(family)
    vocab = {token: i for i, token in enumerate([*special.values(), *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=special["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls_token"], special["sep_token"]
    second = FAMILIES[family].style.second_type
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:{second} {sep}:{second}",
        special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
    )
    names = ["input_ids", "attention_mask"]
    if FAMILIES[family].gives_token_types:
        names.insert(1, "token_type_ids")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=names, model_max_length=64, **special
    )


def tiny_config(family: str, **more):
    row, tokenizer = FAMILIES[family], tiny_tokenizer(family)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    sizes = {row.field(name): value for name, value in sizes.items()} | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64 + row.first_position(tokenizer.pad_token_id),
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.2,
    }
    if row.embedding.projection:
        sizes[row.field("embedding_size")] = 16
    if row.is_shared:
        sizes["num_hidden_groups"] = 2
    ids = {f"{role}_token_id": getattr(tokenizer, f"{token}_token_id") for role, token in _ROLES.items()}
    return transformers.AutoConfig.for_model(family, **(ids | sizes | _AS_PUBLISHED.get(family, {}) | more))


def tiny_encoder(family: str = "bert", task: str = "classification", seed: int = 0, **more) -> Encoder:
    """A four-layer encoder, 32 wide, with random weights."""
    torch.manual_seed(seed)
    if task in LABELS:
        names = LABELS[task]
        more = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}} | more
    if task == "regression":
        more = {"num_labels": 1} | more
    if task in ("regression", "multi-label"):
        more = {"problem_type": TASKS[task].problem} | more
    config = tiny_config(family, **more)
    auto = getattr(transformers, TASKS[task].auto_class)
    model = auto.from_config(config).eval()
    config.architectures = [type(model).__name__]
    pooling = usual_pooling(task) if TASKS[task].is_vector else None
    return Encoder(model, tiny_tokenizer(family), task, f"tiny-{family}", 64, pooling)


def sentences(num: int, seed: int = 0, shortest: int = 3, longest: int = 14) -> list[str]:
    """Word salad of the tokenizer's words."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (num,), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (n,), generator=generator).tolist()) for n in lengths]


def tiny_split(task: str, num: int, seed: int = 0) -> Split:
    """Word salad with labels of the task's shape; which label a row has can be learnt from its words."""
    texts = tuple(sentences(num, seed))
    words = tuple(tuple(text.split()) for text in texts)
    rank = {word: i for i, word in enumerate(WORDS)}
    mean = [sum(rank[w] for w in row) / len(row) / len(WORDS) for row in words]
    match task:
        case "classification":
            return Split(texts, labels=tuple(LABELS[task][value > 0.5] for value in mean))
        case "multi-label":
            names = LABELS[task]
            chosen = (
                tuple(n for n, word in zip(names, ("is", "now", "my"), strict=True) if word in row) for row in words
            )
            return Split(texts, labels=tuple(chosen))
        case "regression":
            return Split(texts, labels=tuple(mean))
        case "token-classification":
            tags = tuple(tuple("B-PER" if rank[w] % 5 == 0 else "O" for w in row) for row in words)
            return Split(texts, words=words, labels=tags)
        case "question-answering":
            questions = tuple(f"where is {row[-1]}" for row in words)
            answers = tuple(((row[-1], len(text) - len(row[-1])),) for row, text in zip(words, texts, strict=True))
            return Split(questions, pairs=texts, labels=answers)
    return Split(texts)


def tiny_pairs(num: int, seed: int = 0) -> Split:
    """Pairs of texts with scores from 0 to 5: how many of the first one's words the second one has."""
    firsts, others = sentences(num, seed), sentences(num, seed + 1000)
    seconds = [a if i % 2 else b for i, (a, b) in enumerate(zip(firsts, others, strict=True))]
    shares = [len(set(a.split()) & set(b.split())) / len(set(a.split())) for a, b in zip(firsts, seconds, strict=True)]
    return Split(tuple(firsts), tuple(seconds), labels=tuple(5 * share for share in shares))


def tiny_texts(task: str, num_train: int = 16, num_dev: int = 8) -> TextDataset:
    """A dataset of the task's shape."""
    return TextDataset("salad", tiny_split(task, num_train, seed=1), tiny_split(task, num_dev, seed=2))


def tiny_project(place: Path, num_rows: int) -> None:
    """A classifier in `m` and labelled texts in `d.tsv`, as a user would have them."""
    (place / "m").mkdir()
    tiny_encoder().save(place / "m")
    rows = [f"{text}\t{LABELS['classification'][i % 2]}" for i, text in enumerate(sentences(num_rows, seed=3))]
    (place / "d.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")


def bench_of(encoder, folder, texts="given"):
    """A workbench for a technique that makes `encoder` smaller, with it as teacher and the tiny texts of its task."""
    texts = tiny_texts(encoder.task) if texts == "given" else texts
    return Workbench(texts, encoder, folder, task=encoder.task)


def outputs(encoder, rows):
    """All numbers that an encoder gives for rows, one after another."""
    return np.concatenate([np.ravel(values) for row in encoder.predict(rows) for values in row.values()])
