"""WebShop's own data: its files, and what is built of them and read."""
