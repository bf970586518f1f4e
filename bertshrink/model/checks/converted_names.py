"""Stored weights under the names of the stock class, where transformers converts what was saved by other code.

Of some families the published weights have the names of the code that came with them, and several matrices in one.
transformers renames and cuts them when it loads a model, and writes them so again when it saves one. What it would make
of each name is asked of its own table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Header = Mapping[str, Mapping[str, Any]]


def as_loaded(header: Header, model: Any) -> Header:
    """The entries of a weights file's header as transformers loads them.

    Args:
        header: name -> dtype and shape.
        model: the class, built on the device `meta`.

    Returns:
        the same where the family has no conversion; names that are not converted stay as they are.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming, rename_source_key

    transforms = get_model_conversion_mapping(model, add_legacy=False)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    if not transforms:
        return header
    loaded: dict[str, Mapping[str, Any]] = {}
    for name, about in header.items():
        renamed, matched = rename_source_key(name, renamings, converters)
        if matched is None:
            loaded[renamed] = about
            continue
        converter = next(one for one in converters if matched in one.source_patterns)
        parts, operations = converter.target_patterns, converter.operations
        if len(operations) != 1 or not isinstance(operations[0], Chunk) or operations[0].dim != 0:
            loaded[name] = about  # it has no place, and is refused by name
            continue
        rows, *rest = about["shape"]
        for part in parts:
            loaded[renamed.replace(parts[0], part, 1)] = {**about, "shape": [rows // len(parts), *rest]}
    return loaded
