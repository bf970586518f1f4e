"""What a folder says and a stock class would leave out: refused by name."""
