"""These tests cover networks: the contract of all of them, published weights, placement, export."""
