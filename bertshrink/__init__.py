"""bertshrink: make a BERT-family encoder small and fast, honestly measured."""

__version__ = "0.1.0.dev0"
