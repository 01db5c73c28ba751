"""`python -m hpsearch`: the same door as the command."""

from hpsearch.cli import main

main()
