"""``python -m dapo`` is the command ``dapo``."""

from __future__ import annotations

from dapo.cli.main import main

if __name__ == "__main__":
    main(prog_name="dapo")
