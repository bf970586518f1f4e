"""How anything is trained, on Hugging Face's Trainer."""
