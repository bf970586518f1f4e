"""Assignments of number formats, searched by measurement."""
