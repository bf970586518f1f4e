"""ALBERT-style embedding factorization: a trained encoder with narrow tables, as a stock ALBERT or ELECTRA."""
