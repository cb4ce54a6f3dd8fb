"""`python -m embedded_hand [OUT.npz]`, from the folder `tools`."""

import sys

from embedded_hand.generate import main

main(*sys.argv[1:2])
