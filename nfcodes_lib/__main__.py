"""``python -m nfcodes_lib``: the doctor's report."""

import sys

from .doctor import main

sys.exit(main())
