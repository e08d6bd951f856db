"""Trial results in, pages, tables and figures out."""
