"""``python -m maskhub_cli``."""

from maskhub_cli.main import main

main()
