"""What is sold: products, and the generated shop with its goals."""
