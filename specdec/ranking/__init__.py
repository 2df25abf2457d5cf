"""From records to one table: entries, ranks, intervals, and the best possible."""
