"""`python -m chronicle.cli`: the same as the console script."""

from chronicle.cli import main

main()
