"""``python -m dream3d`` is the ``dream3d`` command."""

from dream3d.cli.app import main

if __name__ == "__main__":
    main()
