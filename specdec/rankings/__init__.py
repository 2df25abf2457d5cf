"""From records to tables: priced and put in order, held against the best possible, compared, written out, read back."""
