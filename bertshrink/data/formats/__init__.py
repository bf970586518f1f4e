"""Formats that are no tables: CoNLL, SQuAD, running text."""
