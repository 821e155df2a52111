"""The page: where the tag belongs in it, what the tag says, and what else changes there."""
