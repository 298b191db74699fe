"""A layer's archive as one EROFS image: format, xattrs, directories (pure); image, tree, layer (the writer)."""
