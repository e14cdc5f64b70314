"""Measurements that anybody can repeat: `crypto-rt bench NAME...`."""
