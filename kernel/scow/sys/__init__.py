"""The system calls that Python doesn't have, by family. Nothing here decides anything."""
