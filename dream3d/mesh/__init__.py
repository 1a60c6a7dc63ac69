"""From a density field to a file that a 3D program opens: grid, level, surface, colours, export.

``extract.mesh_from_field`` does all of it up to the coloured surface; ``export.export`` writes the file.
``raster`` and ``shading`` draw meshes at :class:`dream3d.cameras.Cameras` without any graphics driver.
"""
