"""The nouns of scow: small frozen types without I/O. Each stage takes one and gives the next."""
