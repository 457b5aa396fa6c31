"""Many runs over settings and seeds: `gps sweep`."""
