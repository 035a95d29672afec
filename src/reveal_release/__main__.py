"""`python -m reveal_release`: the command line, where the environment's `bin` is not on the path."""

import sys

from .cli import main

sys.exit(main())
