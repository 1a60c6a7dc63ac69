"""What can be trained, one file per task; see :mod:`dream3d.training.task`."""
