"""The radiance field: hash grid and small networks -> density and colour; background; backends."""
