"""What `check` looks at, one part of a setup in each module; each gives Findings."""
