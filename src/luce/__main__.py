"""`python -m luce` is the command `luce`."""

import sys

from luce.cli import main

sys.exit(main())
