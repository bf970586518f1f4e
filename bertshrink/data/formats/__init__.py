"""Formats that are not tables: CoNLL, SQuAD, running text."""
