"""`python -m scanseg`."""

import sys

from scanseg.cli import main

sys.exit(main())
