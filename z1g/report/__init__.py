"""Reports on finished runs: tables and one HTML page, built from the files that the stages wrote."""
