"""The recipe's `data:`: where the texts are and what their columns are. No reader is imported."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

NONE = "none"
"""What `pair` and `label` are set to where there is none, whatever the columns are called."""


class DataSettings(BaseModel):
    """Where the texts are: the recipe's `data:`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = Field(None, description="`builtin:pydoc`, a file, a folder, or a hub name")
    train: str | None = Field(None, description="file of the train split, if separate")
    dev: str | None = Field(None, description="file of the dev split, if separate")
    test: str | None = Field(None, description="file of the test split, if separate")
    unlabelled: str | None = Field(None, description="more training texts, without labels: a file, folder or hub name")
    dev_share: float = Field(0.1, gt=0, le=0.5, description="fraction of train held out when there is no dev split")
    text: str | None = Field(None, description="column of the texts; for tagged words also its number")
    pair: str | None = Field(None, description="column of the second texts of pairs; `none`: single texts")
    label: str | None = Field(
        None,
        description="column of the labels; `none`: unlabelled; several columns of 0 or 1, one per class, as A,B,C",
    )
    split_seed: int = Field(
        0, ge=0, description="seed that selects the rows for `dev_share`, `max_train`, `max_dev` and the like"
    )
    columns: tuple[str, ...] | None = Field(
        None, min_length=1, description="names of all columns of a CSV without a header"
    )
    max_train: int | None = Field(None, gt=0, description="use at most N training texts (a fixed sample)")
    max_unlabelled: int | None = Field(None, gt=0, description="use at most N unlabelled texts (a fixed sample)")
    max_dev: int | None = Field(None, gt=0, description="evaluate on at most N texts (a fixed sample)")
    max_length: int | None = Field(None, ge=4, description="truncate texts to N tokens (default: the model's limit)")
