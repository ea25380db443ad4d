"""A loss at one point, traced and audited once; its products are sums over batches of data."""
