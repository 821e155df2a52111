"""A standing attack on both doors behind real servers: `make attack`."""
