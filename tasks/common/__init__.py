"""What every task needs: files that a kill leaves whole, checkpoints, progress bars, checks of flags, their errors."""
