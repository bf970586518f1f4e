"""The committed baseline as git has it before a change, and which of its entries is which artifact of today."""
