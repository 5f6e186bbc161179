"""`python -m edge_adapt.edge.cli` is `edge-adapt`."""

import sys

from .main import main

sys.exit(main())
