"""``python -m dream3d.cli`` is the ``dream3d`` command."""

from dream3d.cli.app import main

if __name__ == "__main__":
    main()
