"""`python -m pyplue.ssh`: see pyplue/ssh/admin."""

import sys

from pyplue.ssh.admin.main import main

if __name__ == "__main__":
    sys.exit(main())
