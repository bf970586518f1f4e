"""Tables as they are written: encoding and dialect proven, every cell as text."""
