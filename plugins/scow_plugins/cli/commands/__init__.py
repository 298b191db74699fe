"""One module per command: `COMMAND` declares its flags, `main` does it. Imported only when it is asked for."""
