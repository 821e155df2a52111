"""From the ledger to numbers, causes and flags."""
