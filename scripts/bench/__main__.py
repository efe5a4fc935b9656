"""``python -m scripts.bench``: what scripts/bench/run runs when everything is installed."""

from __future__ import annotations

import sys

from scripts.bench.main import main

sys.exit(main())
