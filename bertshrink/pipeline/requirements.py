"""What must be installed before a model can be run."""

import importlib.util

from bertshrink.errors import MissingDependency


def require_ml() -> None:
    """Say at once, with the install line, when the parts that run models are missing; raises MissingDependency."""
    missing = [name for name in ("torch", "transformers", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"this command runs models, and these are not installed: {', '.join(missing)}",
            hint="pip install 'bertshrink[ml]'",
        )
