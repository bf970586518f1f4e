"""Encoder: a PyTorch model, its tokenizer and its task, loaded from and saved to a stock checkpoint folder.

Loading never runs code of the checkpoint, never reads a pickle and never asks the network: the folder is resolved and
checked first (`sources.resolve`, `checkpoint_info`), weights come as float32 whatever they were stored in, and a weight
that is not finite is refused. What a sentence-transformers folder holds beside the transformer (modules.json, pooling)
is kept and written again.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertshrink.errors import BertshrinkError, OutputError, UnsafeModel
from bertshrink.model.batches import predict, tokenize
from bertshrink.model.checkpoint_info import CheckpointInfo, check_weights, read_facts
from bertshrink.model.checks.converted_names import as_loaded
from bertshrink.model.checks.tied_weights import refuse_other_decoder
from bertshrink.model.checks.token_ids import fit_to_tables, in_small_letters
from bertshrink.model.checks.tokenizer_files import load_tokenizer
from bertshrink.model.checks.weight_names import check_names, is_spare, notes_on
from bertshrink.model.checks.weight_sizes import check_sizes, refuse_other_sizes
from bertshrink.model.families import anatomy_of
from bertshrink.model.family import ModelFamily
from bertshrink.model.folder.layer_weights import load_layers, save_layers
from bertshrink.model.folder.pooling import Pooling, Similarity
from bertshrink.model.folder.side_files import SENTENCE_FILES, fit_tokenizer, write_modules, write_tokenizer
from bertshrink.model.sizes.encoder_dims import EncoderDims
from bertshrink.model.tasks import TASKS

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from bertshrink.engines import Arrays, Session

_WITHOUT_WEIGHTS = shutil.ignore_patterns("*.bin", "*.pt", "*.pkl", "*.safetensors")
"""Of a sentence encoder's modules: those of now are written, and pickles are not carried on."""
_PLAIN = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""Settings of config.json that change how a model answers and not what; with others its answers would not be found."""


_TRIAL = "A text of a few words, longer than the nearest distances, says whether the model runs at all."


@dataclass
class Encoder:
    """A PyTorch encoder with its tokenizer and task.

    Attributes:
        model: the stock transformers model, float32, in eval mode.
        task: a name in `TASKS`.
        source: the folder or name it came from, for messages.
        max_length: the longest input in tokens.
        pooling: for embedding models.
        sentence_folder: the folder whose sentence-transformers files are to be written beside the model.
        prompt: what is put before every text.
        activation: what makes a score of a logit: `identity` or `sigmoid`.
        similarity: how its vectors are compared; None: by cosines, of a sparse encoder by products.
        notes: what its tokenizer and the model do not agree on, and how it is read.
        words_of: the folder whose stored names have words in front that the class's do not have, and the words.
        layers: the modules of `pooling.layers`, with their weights; they stay in memory when the model's are let go.
        remarks: what `CheckpointInfo.remarks` says, for the cards of what is made of it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    task: str
    source: str
    max_length: int
    pooling: Pooling | None = None
    sentence_folder: Path | None = None
    prompt: str = ""
    activation: Literal["identity", "sigmoid"] = "identity"
    similarity: Similarity | None = None
    notes: tuple[str, ...] = ()
    words_of: tuple[Path, str] | None = None
    layers: nn.ModuleList | None = None
    remarks: tuple[str, ...] = ()

    @property
    def anatomy(self) -> ModelFamily:
        """The family's row."""
        return anatomy_of(self.model.config.model_type)

    @property
    def prefix(self) -> str:
        """What is in front of the encoder's own paths in the model with its head: `bert.`; empty: it has none."""
        return "" if TASKS[self.task].is_bare else f"{self.anatomy.base}."

    @property
    def shape(self) -> EncoderDims:
        """The sizes of the model as it is now."""
        return EncoderDims.read(self.anatomy, self.model.config.to_dict())

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names in the order of the logits; empty where the task has none."""
        if not TASKS[self.task].has_labels:
            return ()
        return tuple(str(self.model.config.id2label[i]) for i in range(self.model.config.num_labels))

    @classmethod
    def load(cls, folder: Path, task: str = "auto", source: str | None = None) -> Encoder:
        """Load a checked checkpoint folder.

        Raises:
            UserError: not a model folder, unknown family or task, no tokenizer.
            UnsafeModel: damaged, pickled, not finite, or asking for remote code.
        """
        return cls.from_facts(read_facts(folder, task), source)

    @classmethod
    def from_facts(cls, facts: CheckpointInfo, source: str | None = None) -> Encoder:
        """Load the folder that `facts` describe; errors as in `load`."""
        header = check_weights(facts.folder)
        check_sizes(facts, header)
        layers = load_layers(facts.folder, facts.pooling)
        import torch
        import transformers

        from bertshrink.engines.torch_engine import load_renamed

        auto = getattr(transformers, TASKS[facts.task].auto_class)
        path = str(facts.folder)
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        empty = _without_numbers(auto, path, safe)
        tokenizer, notes = load_tokenizer(facts.folder)
        if facts.sentence is not None and facts.sentence.lower_case:
            tokenizer = in_small_letters(tokenizer)
        words = check_names(facts, as_loaded(header, empty), empty)
        tokenizer, more = fit_to_tables(tokenizer, facts)
        try:
            model, info = load_renamed(
                auto, path, words, dtype=torch.float32, output_loading_info=True, **_PLAIN, **safe
            )
        except Exception as error:  # a strange configuration makes transformers raise anything
            raise UnsafeModel(
                f"the weights cannot be loaded: {_reason(error)}", where=path, hint="save the model again"
            ) from error
        _refuse_unfilled(info, facts)
        refuse_other_decoder(model, facts)
        refuse_other_sizes(EncoderDims.read(facts.anatomy, model.config.to_dict()), facts)
        _plain_pooler(model, info)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise UnsafeModel(
                    f"the weight `{name}` holds values that are not finite",
                    where=path,
                    hint="its training diverged or the file is damaged: take an earlier checkpoint",
                )
        if facts.labels:
            model.config.id2label = dict(enumerate(facts.labels))
            model.config.label2id = {name: at for at, name in enumerate(facts.labels)}
        if TASKS[facts.task].learns_from in ("classes", "score"):
            model.config.problem_type = TASKS[facts.task].problem  # what a reload tells the task by
        encoder = cls(
            model.eval(),
            tokenizer,
            facts.task,
            source or path,
            facts.max_length,
            _without_prompt(facts, tokenizer),
            sentence_folder=facts.folder if facts.sentence is not None else None,
            prompt=facts.sentence.prompt if facts.sentence is not None else "",
            activation=facts.activation,
            similarity=facts.sentence.similarity if facts.sentence is not None else None,
            notes=(*notes, *notes_on(header, words), *more),
            words_of=(facts.folder, words) if words else None,
            layers=layers,
            remarks=facts.remarks,
        )
        _refuse_idle(encoder, facts)
        return encoder

    def copy(self) -> Encoder:
        """An encoder with weights of its own; tokenizer and folders are shared."""
        return replace(self, model=copy.deepcopy(self.model), layers=copy.deepcopy(self.layers))

    def with_model(self, model: PreTrainedModel) -> Encoder:
        """The same encoder around another model."""
        return replace(self, model=model.eval())

    def save(self, folder: Path) -> None:
        """Write a stock checkpoint (float32 safetensors, tokenizer, sentence-transformers files) into `folder`.

        Raises:
            OutputError: the disk is full.
        """
        from safetensors import SafetensorError

        try:
            self.model.save_pretrained(folder, safe_serialization=True, max_shard_size="1000GB")
        except SafetensorError as error:  # how that library tells of a full disk
            hint = "free some space, or choose another place"
            raise OutputError(f"cannot write `{folder}`: {_reason(error)}", hint=hint) from error
        self.write_papers(folder)

    def write_papers(self, folder: Path) -> None:
        """Write what is beside the weights into `folder`: configuration, tokenizer, a sentence encoder's modules."""
        self.model.config.save_pretrained(folder)
        write_tokenizer(self.tokenizer, folder)
        if self.sentence_folder is not None:
            for name in SENTENCE_FILES:
                if (self.sentence_folder / name).is_file():
                    shutil.copyfile(self.sentence_folder / name, folder / name)
            for sub in sorted(self.sentence_folder.glob("[0-9]*_*")):
                if sub.is_dir():
                    shutil.copytree(sub, folder / sub.name, ignore=_WITHOUT_WEIGHTS, dirs_exist_ok=True)
        if self.pooling is not None:
            save_layers(self.layers or [], self.pooling, folder)
            width = self.shape.hidden_size
            write_modules(folder, self.pooling, width, self.max_length, similarity=self.similarity)
        fit_tokenizer(folder, self.max_length)

    def tokenize(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int | None = None
    ) -> list[dict[str, list[int]]]:
        """Token ids of each text (or pair), not padded, cut at `max_length`: one dict of equal lists per row."""
        limit = min(max_length or self.max_length, self.max_length)
        return tokenize(self.tokenizer, texts, pairs, limit, self.prompt)

    def words_in(self, folder: Path) -> str:
        """What stands in front of the names that are stored in `folder`; empty: nothing, as in all that is saved."""
        return self.words_of[1] if self.words_of is not None and self.words_of[0].resolve() == folder.resolve() else ""

    def session(self, outputs: Sequence[str] | None = None) -> Session:
        """The model in memory as an engine's session; it gives the task's outputs where none are named."""
        from bertshrink.engines.torch_session import TorchSession

        pooling = self.pooling.spec if self.pooling else None
        return TorchSession(self.model, outputs or TASKS[self.task].outputs, pooling, self.layers or ())

    def predict(self, rows: Sequence[dict[str, list[int]]], max_tokens_per_batch: int = 4096) -> list[Arrays]:
        """Outputs of tokenized rows, in their order, run in batches of like length."""
        per_token = TASKS[self.task].per_token
        return predict(
            self.session(), rows, self.tokenizer.pad_token_id or 0, max_tokens_per_batch, per_token=per_token
        )


def _refuse_idle(encoder: Encoder, facts: CheckpointInfo) -> None:
    """Refuse settings that fit the weights, and with which the class itself cannot run.

    Raises:
        UnsafeModel: they do not.
    """
    try:
        encoder.predict(encoder.tokenize([_TRIAL]))
    except (BertshrinkError, MemoryError):
        raise
    except Exception as error:  # whatever PyTorch finds
        raise UnsafeModel(
            f"`{type(encoder.model).__name__}` cannot run with these settings: {_reason(error)}",
            where=str(facts.folder / "config.json"),
            hint="transformers itself cannot run this model: correct its config.json",
        ) from error


def _without_prompt(facts: CheckpointInfo, tokenizer: PreTrainedTokenizerBase) -> Pooling | None:
    """The pooling, with the number of the default prompt's tokens that it leaves out, counted as sentence-transformers
    does; of another prompt nothing is known here, which `Sentence.notes` tells.
    """
    sentence, pooling = facts.sentence, facts.pooling
    if sentence is None or pooling is None or not sentence.leaves_prompt_out or not sentence.prompt:
        return pooling
    ids = tokenize(tokenizer, [sentence.prompt], None, facts.max_length)[0]["input_ids"]
    return replace(pooling, skip=len(ids) - (ids[-1] in tokenizer.all_special_ids))


def _reason(error: Exception) -> str:
    """The first line of an error, after its kind where the text alone says little."""
    text = (str(error).splitlines() or [""])[0]
    return text if isinstance(error, OSError | ValueError | RuntimeError) else f"{type(error).__name__}: {text}"


def _without_numbers(auto: Any, path: str, safe: dict[str, Any]) -> Any:
    """The stock class as config.json asks for it: names and shapes only."""
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(path, **safe)
        with torch.device("meta"):
            return auto.from_config(config)
    except Exception as error:  # a strange configuration makes transformers raise anything
        raise UnsafeModel(
            f"transformers cannot build a model from config.json: {_reason(error)}",
            where=str(Path(path) / "config.json"),
            hint="fix the value, or save the model again",
        ) from error


def _refuse_unfilled(info: dict[str, Any], facts: CheckpointInfo) -> None:
    """Refuse a model with numbers of its own making: `check_names` has seen that it need not have any."""
    made_up = [*map(str, info.get("missing_keys", ())), *map(str, info.get("mismatched_keys", ()))]
    names = [name for name in made_up if not is_spare(name, facts)]
    if names:
        raise UnsafeModel(
            f"transformers did not load {len(names)} weights of the checkpoint: `{names[0]}`",
            where=str(facts.folder),
            hint="save the model again with the installed transformers",
        )


def _plain_pooler(model: Any, info: dict[str, Any]) -> None:
    """Give a pooler that the checkpoint lacks weights that are always the same; transformers makes up random ones.

    Nothing is promised of what it answers: no task of the table reads it.
    """
    import torch

    missing = set(info.get("missing_keys", ()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in missing and "pooler" in name:
                parameter.copy_(torch.eye(len(parameter)) if parameter.dim() == 2 else torch.zeros(len(parameter)))
