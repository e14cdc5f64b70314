"""What people use: the command line, the API and the dashboard. The package `crypto_rt` knows nothing of
them."""
