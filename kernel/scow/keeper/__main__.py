"""`python -I -S …/scow/keeper/__main__.py FD`: hold on to a container; the descriptor says to which and how."""

import sys

# -I and -S leave nothing on the path but the standard library.
sys.path.append(__file__.rsplit("/", 3)[0])

from scow.keeper.keep import main

main(int(sys.argv[1]))
