"""`python -m m1pipe`."""

from m1pipe.cli.main import main

main()
