"""``python -m labctl``."""

from labctl.cli.main import main

main()
