"""Meta: everything that only Meta knows, its words, forms, codes and addresses."""
