"""`python -m gps`, the same as `gps`."""

import sys

from gps.cli.main import main

sys.exit(main())
