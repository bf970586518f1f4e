"""A judgement, drawn: one file for each that reads it; all of them tell the same findings in the same words."""
