"""Tokenizers of every kind that encoders come with, built in code: they cut the same words into different pieces.

wordpiece   BERT, DistilBERT, ELECTRA: lower case, accents and control characters dropped, `##` inside words
bytes       RoBERTa: byte-level BPE, spaces belong to tokens but not to their offsets
raw-bytes   the same with offsets that hold the blank, as some checkpoints are saved
unigram     ALBERT, XLM-RoBERTa: SentencePiece, `▁` for the blank before a word, offsets that hold it
"""

from functools import lru_cache

import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

KINDS = ("wordpiece", "bytes", "raw-bytes", "unigram")
SAMPLE = "the quick brown fox plays and played with the lazy dogs while playing in Berlin and Paris " * 3
PIECES = ("the", "play", "quick", "fox", "and", "ber", "lin", "par", "is", "dog", "in", "wh", "ile")
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,'-?!æøß東京🙂"
NAMES = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}


@lru_cache
def tokenizer_of(kind: str) -> transformers.PreTrainedTokenizerFast:
    """A fast tokenizer of a kind in `KINDS`."""
    backend = {"wordpiece": _wordpiece, "bytes": _bytes, "raw-bytes": _bytes, "unigram": _unigram}[kind]()
    inputs = ["input_ids", "attention_mask"]
    ends = [(name, backend.token_to_id(name)) for name in ("<s>", "</s>")]
    if "bytes" in kind:
        backend.post_processor = processors.RobertaProcessing(
            ends[1], ends[0], trim_offsets=kind == "bytes", add_prefix_space=False
        )
    else:
        inputs.insert(1, "token_type_ids")
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=ends
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_input_names=inputs, model_max_length=64, **NAMES
    )


def _wordpiece() -> Tokenizer:
    vocab = [*NAMES.values(), *CHARACTERS.lower(), *(f"##{c}" for c in CHARACTERS.lower())]
    vocab += [*PIECES, *(f"##{piece}" for piece in ("ing", "ed", "s", *PIECES))]
    found = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(dict.fromkeys(vocab))}, unk_token="<unk>"))
    found.normalizer = normalizers.BertNormalizer()
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return found


def _bytes() -> Tokenizer:
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=alphabet, special_tokens=list(NAMES.values()), show_progress=False
    )
    found.train_from_iterator([SAMPLE], trainer)
    return found


def _unigram() -> Tokenizer:
    scored = [(piece, 0.0) for piece in NAMES.values()] + [("▁", -4.0)] + [(c, -6.0) for c in CHARACTERS.lower()]
    scored += [(f"▁{piece}", -3.0) for piece in PIECES] + [(f"{piece}", -5.0) for piece in ("ing", "ed", "lin")]
    pieces = list({piece: (piece, score) for piece, score in scored}.values())
    found = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    found.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return found
