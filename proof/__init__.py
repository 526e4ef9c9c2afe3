"""What must never happen, tried often: each check prints its counts, and docs/reliability.md is made of them."""
